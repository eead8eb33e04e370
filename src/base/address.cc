#include "base/address.h"

#include <arpa/inet.h>

#include <charconv>
#include <cstring>

namespace ktrunk {

Result<Address> Address::parse(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return fail("'{}' has no port; expected ADDRESS:PORT", text);
  std::string_view ip = text.substr(0, colon);
  const std::string_view digits = text.substr(colon + 1);
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (error != std::errc{} || end != digits.data() + digits.size() || digits.empty())
    return fail("'{}' has no valid port; expected ADDRESS:PORT with a port of 0 to 65535", text);
  if (ip.size() >= 2 && ip.front() == '[' && ip.back() == ']') {
    ip = ip.substr(1, ip.size() - 2);
    if (ip.find(':') == std::string_view::npos) return fail("'{}' is not an IPv6 address in brackets", text);
  } else if (ip.find(':') != std::string_view::npos) {
    return fail("'{}': an IPv6 address needs brackets, as in [2001:db8::1]:5061", text);
  }
  return from_ip(ip, port);
}

Result<Address> Address::from_ip(std::string_view ip, std::uint16_t port) {
  if (ip.find('\0') != std::string_view::npos) return fail("'{}' is not an IPv4 or IPv6 address", ip);
  const std::string terminated(ip);
  Address address;
  if (::inet_pton(AF_INET, terminated.c_str(), &address.storage_.v4.sin_addr) == 1) {
    address.storage_.v4.sin_family = AF_INET;
    address.storage_.v4.sin_port = htons(port);
    return address;
  }
  if (::inet_pton(AF_INET6, terminated.c_str(), &address.storage_.v6.sin6_addr) == 1) {
    address.storage_.v6.sin6_family = AF_INET6;
    address.storage_.v6.sin6_port = htons(port);
    return address;
  }
  return fail("'{}' is not an IPv4 or IPv6 address", ip);
}

Address Address::from_sockaddr(const sockaddr* source, socklen_t length) {
  Address address;
  if (source->sa_family == AF_INET && length >= sizeof(sockaddr_in)) {
    std::memcpy(&address.storage_.v4, source, sizeof(sockaddr_in));
  } else if (source->sa_family == AF_INET6 && length >= sizeof(sockaddr_in6)) {
    std::memcpy(&address.storage_.v6, source, sizeof(sockaddr_in6));
  }
  return address;
}

std::uint16_t Address::port() const {
  if (family() == AF_INET) return ntohs(storage_.v4.sin_port);
  if (family() == AF_INET6) return ntohs(storage_.v6.sin6_port);
  return 0;
}

std::string_view Address::ip_bytes() const {
  if (family() == AF_INET) return {reinterpret_cast<const char*>(&storage_.v4.sin_addr), 4};
  if (family() == AF_INET6) return {reinterpret_cast<const char*>(&storage_.v6.sin6_addr), 16};
  return {};
}

std::string Address::ip() const {
  char buffer[INET6_ADDRSTRLEN] = "";
  if (!empty()) ::inet_ntop(family(), ip_bytes().data(), buffer, sizeof buffer);
  return buffer;
}

std::string Address::host() const { return family() == AF_INET6 ? "[" + ip() + "]" : ip(); }

std::string Address::text() const { return empty() ? std::string("-") : fmt::format("{}:{}", host(), port()); }

bool Address::operator==(const Address& other) const {
  return family() == other.family() && port() == other.port() && ip_bytes() == other.ip_bytes();
}

}  // namespace ktrunk
