// RouteReport: what ktrunkd would do with one SIP message from outside a dialog, and the octets that it would send.
// For the command line, with no ktrunkd running: the same Proxy decides (sip/proxy.h), under a key of its own, so
// tokens in the output are worthless, and those in the input are not known.
#pragma once

#include <string>
#include <string_view>

#include "base/address.h"
#include "base/result.h"
#include "config/config.h"

namespace ktrunk::cli {

// Where the message is taken to have come from.
struct RouteQuestion {
  std::string trunk;     // a trunk's name; empty: the one whose peers have that address (trunk.sources), or a stranger
  std::string listener;  // a listener's name; empty: the trunk's, or the first
  Address peer;          // the sender's address
};

struct RouteReport {
  enum class What { kForwarded, kAnswered, kDropped } what = What::kDropped;
  std::string summary;  // a few lines in words
  std::string octets;   // the message as it would go on, or the answer; empty when dropped
};

// message: whole; a header section with bare LF gets CRLF first, so that files can be written with an editor.
// Error: a name that the configuration has not.
[[nodiscard]] Result<RouteReport> route_report(const config::Config& config, std::string_view message,
                                               const RouteQuestion& question);

}  // namespace ktrunk::cli
