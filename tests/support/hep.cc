#include "support/hep.h"

#include <arpa/inet.h>

namespace ktrunk::test {
namespace {

std::uint64_t number_of(std::string_view octets) {
  std::uint64_t value = 0;
  for (const char octet : octets) value = value << 8 | static_cast<unsigned char>(octet);
  return value;
}

}  // namespace

Result<HepDatagram> HepDatagram::parse(std::string_view octets) {
  constexpr std::size_t kHead = 6;
  if (!octets.starts_with("HEP3")) return fail("it does not begin with HEP3");
  if (octets.size() < kHead || number_of(octets.substr(4, 2)) != octets.size())
    return fail("it says {} octets and has {}", octets.size() < kHead ? 0 : number_of(octets.substr(4, 2)),
                octets.size());
  HepDatagram datagram;
  for (octets.remove_prefix(kHead); !octets.empty();) {
    if (octets.size() < kHead) return fail("{} octets behind the last chunk", octets.size());
    const auto vendor = number_of(octets.substr(0, 2));
    const auto type = static_cast<unsigned>(number_of(octets.substr(2, 2)));
    const auto length = number_of(octets.substr(4, 2));
    if (length < kHead || length > octets.size()) return fail("chunk {} with a length of {}", type, length);
    if (vendor != 0) return fail("chunk {} of vendor {}", type, vendor);
    if (!datagram.chunks.emplace(type, octets.substr(kHead, length - kHead)).second)
      return fail("chunk {} twice", type);
    octets.remove_prefix(length);
  }
  return datagram;
}

std::uint64_t HepDatagram::number(unsigned type) const { return number_of(text(type)); }

std::string HepDatagram::end(unsigned ipv4, unsigned ipv6, unsigned port) const {
  char ip[INET6_ADDRSTRLEN] = "";
  const bool is_ipv6 = has(ipv6);
  if (is_ipv6 == has(ipv4) || text(is_ipv6 ? ipv6 : ipv4).size() != (is_ipv6 ? 16u : 4u) || text(port).size() != 2)
    return "malformed";
  (void)::inet_ntop(is_ipv6 ? AF_INET6 : AF_INET, text(is_ipv6 ? ipv6 : ipv4).data(), ip, sizeof ip);
  return fmt::format("{}{}{}:{}", is_ipv6 ? "[" : "", ip, is_ipv6 ? "]" : "", number(port));
}

}  // namespace ktrunk::test
