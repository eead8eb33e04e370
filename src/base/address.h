// Address: an IP address and port, as the socket calls take it. Text forms are RFC 3986's: "192.0.2.1:5061",
// "[2001:db8::1]:5061".
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace ktrunk {

// A value type without pointers, so that it may lie in shared memory and cross a process boundary.
class Address {
 public:
  Address() { storage_.v4.sin_family = AF_UNSPEC; }

  // "HOST:PORT" with a literal IPv4 address or a bracketed IPv6 one. No name is resolved.
  [[nodiscard]] static Result<Address> parse(std::string_view text);
  // A literal address without port or brackets.
  [[nodiscard]] static Result<Address> from_ip(std::string_view ip, std::uint16_t port);
  // From what accept, getsockname or recvmsg filled in; unknown families give an empty address.
  [[nodiscard]] static Address from_sockaddr(const sockaddr* address, socklen_t length);

  [[nodiscard]] bool empty() const { return family() == AF_UNSPEC; }
  [[nodiscard]] int family() const { return storage_.v4.sin_family; }
  [[nodiscard]] std::uint16_t port() const;
  [[nodiscard]] const sockaddr* data() const { return &storage_.any; }
  [[nodiscard]] socklen_t size() const { return family() == AF_INET6 ? sizeof(storage_.v6) : sizeof(storage_.v4); }
  [[nodiscard]] std::string ip() const;    // without brackets
  [[nodiscard]] std::string host() const;  // brackets round IPv6, as sent-by and URIs want it
  [[nodiscard]] std::string text() const;  // host():port()
  // The 4 or 16 bytes of the address, in network order; empty when the address is.
  [[nodiscard]] std::string_view ip_bytes() const;

  bool operator==(const Address& other) const;

 private:
  union {
    sockaddr any;
    sockaddr_in v4;
    sockaddr_in6 v6;
  } storage_ = {.v6 = {}};
};

}  // namespace ktrunk
