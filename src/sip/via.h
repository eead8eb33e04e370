// Via (RFC 3261 18.2 and 20.42, RFC 3581): one value parsed, as views into the caller's text.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/address.h"

namespace ktrunk::sip {

struct Via {
  std::string_view text;       // the whole value
  std::string_view transport;  // "TLS", "udp", ..., as written
  std::string_view host;       // of sent-by, without brackets
  bool is_ipv6 = false;        // host stood in brackets
  std::uint16_t port = 0;      // of sent-by; 0: none
  std::string_view branch;     // empty: none
  std::string_view maddr;
  // The whole parameter, "received=192.0.2.1" or "rport"; empty when absent. Values without brackets or "=".
  std::string_view received_parameter, received;
  std::string_view rport_parameter, rport;
  std::string_view flow;  // in our own: the connection of the trunk that the request came by (flow_token.h)

  [[nodiscard]] bool wants_rport() const { return !rport_parameter.empty(); }
  // RFC 3261 8.1.1.7: the branch is unique to the transaction.
  [[nodiscard]] bool has_magic_cookie() const;
};

inline constexpr std::string_view kMagicCookie = "z9hG4bK";

// None: not one Via value. LWS is allowed wherever the grammar has it (RFC 4475 3.1.1.1).
[[nodiscard]] std::optional<Via> parse_via(std::string_view text);
// The same into a Via that is new. False: it is none, and `via` says nothing.
[[nodiscard]] bool read_via(std::string_view text, Via& via);

// Whether sent-by is the literal address that the request came from; if not, `received` is due (18.2.1).
[[nodiscard]] bool sent_by_is(const Via& via, const Address& source);

// Where the response to a request over UDP goes: the source address; its port if rport was asked for (RFC 3581 4), else
// the port of sent-by (18.2.2). maddr is not followed: it lets a stranger send our responses anywhere.
[[nodiscard]] Address response_address(const Via& top_via, const Address& source);

}  // namespace ktrunk::sip
