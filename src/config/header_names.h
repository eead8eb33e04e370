// Names of SIP header fields as the configuration writes them (RFC 3261 7.3.1, 7.3.3). Pure.
#pragma once

#include <string>
#include <string_view>

namespace ktrunk::config {

// A header field's name with its compact form, by which it may stand in a message.
struct HeaderName {
  std::string name;  // in full, as the operator wrote it
  char compact = 0;  // lower case; 0: has none

  // Whether a header field of this name in a message is meant: without case, in full or compact. Never allocates.
  [[nodiscard]] bool is(std::string_view written) const;
};

// A name or a compact form ("k": Supported) as the operator wrote it. It must be a token.
[[nodiscard]] HeaderName header_name(std::string_view written);

// Why routes may neither add nor remove such a header field; empty where they may.
[[nodiscard]] std::string_view why_untouchable(const HeaderName& name);

}  // namespace ktrunk::config
