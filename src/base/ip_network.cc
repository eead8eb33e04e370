#include "base/ip_network.h"

#include <algorithm>
#include <charconv>

namespace ktrunk {
namespace {

constexpr unsigned kBits = 128;
constexpr unsigned kIpv4Bits = 32;

}  // namespace

std::optional<IpNetwork::Bytes> IpNetwork::bytes_of(const Address& address) {
  const std::string_view ip = address.ip_bytes();
  Bytes bytes{};
  if (ip.size() == 4) bytes[10] = bytes[11] = 0xff;
  if (ip.empty()) return std::nullopt;
  std::ranges::copy(ip, bytes.end() - static_cast<std::ptrdiff_t>(ip.size()));
  return bytes;
}

IpNetwork::Bytes IpNetwork::masked(Bytes bytes, unsigned prefix) {
  for (unsigned i = 0; i < bytes.size(); ++i) {
    const unsigned kept = std::clamp(prefix, 8 * i, 8 * (i + 1)) - 8 * i;
    bytes[i] &= static_cast<unsigned char>(0xff00u >> kept);
  }
  return bytes;
}

Result<IpNetwork> IpNetwork::parse(std::string_view text) {
  constexpr std::string_view kExpected = "expected \"IP\" or \"IP/PREFIX\", as in 192.0.2.0/24 or 2001:db8::/32";
  const std::size_t slash = text.find('/');
  const auto address = Address::from_ip(text.substr(0, slash), 0);
  if (!address) return fail("'{}'; {}", text, kExpected);
  const unsigned most = address->family() == AF_INET ? kIpv4Bits : kBits;
  unsigned prefix = most;
  if (slash != std::string_view::npos) {
    const char* const end = text.data() + text.size();
    const auto number = std::from_chars(text.data() + slash + 1, end, prefix);
    if (number.ec != std::errc{} || number.ptr != end || prefix > most)
      return fail("'{}' has no prefix of 0 to {} bits; {}", text, most, kExpected);
  }
  IpNetwork network;
  network.prefix_ = kBits - most + prefix;
  network.bytes_ = *bytes_of(*address);
  network.text_ = text;
  if (network.bytes_ != masked(network.bytes_, network.prefix_))
    return fail("'{}' has bits beyond its prefix; expected the network's first address", text);
  return network;
}

bool IpNetwork::contains(const Address& address) const {
  const auto bytes = bytes_of(address);
  return bytes && masked(*bytes, prefix_) == bytes_;
}

}  // namespace ktrunk
