// IP addresses between bytes and text without std::string: for the paths that allocate nothing.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>

#include <array>
#include <cstring>
#include <optional>
#include <string_view>

#include "base/address.h"

namespace ktrunk::sip {

// An address by value: 16 octets, IPv4 as IPv4-mapped IPv6 (::ffff:192.0.2.1), so that both spellings are equal.
using IpValue = std::array<unsigned char, 16>;

[[nodiscard]] inline std::optional<IpValue> to_ip_value(std::string_view ip_bytes) {
  IpValue value{};
  if (ip_bytes.size() == 16) {
    std::memcpy(value.data(), ip_bytes.data(), 16);
  } else if (ip_bytes.size() == 4) {
    value[10] = value[11] = 0xff;
    std::memcpy(value.data() + 12, ip_bytes.data(), 4);
  } else {
    return std::nullopt;
  }
  return value;
}

// A literal address without brackets; none for anything else.
[[nodiscard]] inline std::optional<IpValue> parse_ip(std::string_view text) {
  char terminated[INET6_ADDRSTRLEN];
  if (text.empty() || text.size() >= sizeof terminated) return std::nullopt;
  std::memcpy(terminated, text.data(), text.size());
  terminated[text.size()] = '\0';
  char bytes[16];
  if (::inet_pton(AF_INET, terminated, bytes) == 1) return to_ip_value({bytes, 4});
  if (::inet_pton(AF_INET6, terminated, bytes) == 1) return to_ip_value({bytes, 16});
  return std::nullopt;
}

// The text of an address without brackets; an IPv4-mapped address as IPv4. Empty for an empty address.
class IpText {
 public:
  explicit IpText(const Address& address) {
    const std::string_view bytes = address.ip_bytes();
    if (bytes.size() == 4) {
      write_v4(reinterpret_cast<const unsigned char*>(bytes.data()));
      return;
    }
    const auto value = to_ip_value(bytes);
    if (!value) return;
    const bool mapped = std::memcmp(value->data(), "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0;
    if (mapped) {
      write_v4(value->data() + 12);
    } else if (::inet_ntop(AF_INET6, value->data(), text_, sizeof text_) != nullptr) {
      size_ = std::strlen(text_);
    }
  }
  [[nodiscard]] std::string_view view() const { return {text_, size_}; }

 private:
  // What inet_ntop does by way of sprintf, which costs as much as all else that a Via needs.
  void write_v4(const unsigned char* octets) {
    char* to = text_;
    for (int i = 0; i < 4; ++i) {
      if (i != 0) *to++ = '.';
      const unsigned octet = octets[i];
      if (octet >= 100) *to++ = static_cast<char>('0' + octet / 100);
      if (octet >= 10) *to++ = static_cast<char>('0' + octet / 10 % 10);
      *to++ = static_cast<char>('0' + octet % 10);
    }
    size_ = static_cast<std::size_t>(to - text_);
  }

  char text_[INET6_ADDRSTRLEN];
  std::size_t size_ = 0;
};

// The same address with another port.
[[nodiscard]] inline Address with_port(const Address& address, std::uint16_t port) {
  if (address.family() == AF_INET) {
    sockaddr_in v4;
    std::memcpy(&v4, address.data(), sizeof v4);
    v4.sin_port = htons(port);
    return Address::from_sockaddr(reinterpret_cast<const sockaddr*>(&v4), sizeof v4);
  }
  if (address.family() == AF_INET6) {
    sockaddr_in6 v6;
    std::memcpy(&v6, address.data(), sizeof v6);
    v6.sin6_port = htons(port);
    return Address::from_sockaddr(reinterpret_cast<const sockaddr*>(&v6), sizeof v6);
  }
  return address;
}

}  // namespace ktrunk::sip
