// OwnAddresses: the names and addresses by which peers know us, one per listener (RFC 3261 16.4 and 18.1.1).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/id.h"
#include "config/config.h"
#include "sip/uri.h"

namespace ktrunk::sip {

class OwnAddresses {
 public:
  explicit OwnAddresses(const config::Config& config);

  // "HOST:PORT" as Via and Record-Route show it. For an id that no listener has: the first listener's.
  [[nodiscard]] std::string_view sent_by(ListenerId listener) const;

  // Whether the host and port of a URI are an advertised or bound address of a listener. Without a port, any will do.
  [[nodiscard]] bool is_us(const Uri& uri) const;

 private:
  struct Name {
    std::string host;  // without brackets
    std::uint16_t port;
  };
  std::vector<std::string> sent_by_;
  std::vector<Name> names_;
};

}  // namespace ktrunk::sip
