// The small notations inside the configuration's strings: hosts, HOST:PORT, TRANSPORT:HOST:PORT. Private to config/.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "config/config.h"

namespace ktrunk::config {

struct HostPort {
  std::string host;        // name or literal address, without brackets
  std::uint16_t port = 0;  // 0: not given
};
// "HOST", "HOST:PORT"; an IPv6 address in brackets. Ports are 1 to 65535.
[[nodiscard]] Result<HostPort> parse_host_port(std::string_view text);

// "tls:HOST[:PORT]", "tcp:...", "udp:...", and ";priority=N" and ";weight=N" (1 to 65535) behind; a
// literal address without a port gets the transport's.
[[nodiscard]] Result<Target> parse_target(std::string_view text);

// A DNS name by the letters-digits-hyphen rule (underscores let pass), or a literal address without brackets.
[[nodiscard]] Status check_host(std::string_view host);

// "100%", "2.5%", "0.0001%": up to four places behind the point, 0% to 100%.
[[nodiscard]] Result<Share> parse_share(std::string_view text);

// With brackets round a literal IPv6 address, as a URI wants it.
[[nodiscard]] std::string uri_host(std::string_view host);

// Names of listeners and trunks: 1 to 64 letters, digits and . _ : - [ ].
[[nodiscard]] Status check_name(std::string_view name);

// RFC 3261 25.1, token.
[[nodiscard]] bool is_token(std::string_view text);

[[nodiscard]] std::string to_lower(std::string_view text);  // ASCII alone

}  // namespace ktrunk::config
