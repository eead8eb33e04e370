// Address block: what limits per peer count by. An IPv4 address, also where IPv6 writes it as ::ffff:0:0/96; or the
// IPv6 network of 64 bits that an address lies in, all of which one host may have (RFC 4291 2.5.1).
#pragma once

#include <compare>
#include <cstdint>
#include <string>

#include "base/address.h"

namespace ktrunk {

class AddressBlock {
 public:
  AddressBlock() = default;
  explicit AddressBlock(const Address& address) {
    const std::string_view bytes = address.ip_bytes();
    const auto take = [&](std::size_t from, std::size_t to) {
      for (std::size_t i = from; i < to; ++i) prefix_ = prefix_ << 8 | static_cast<unsigned char>(bytes[i]);
    };
    constexpr std::string_view kMapped("\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);
    if (bytes.size() == 4) {
      kind_ = Kind::kIpv4;
      take(0, 4);
    } else if (bytes.size() == 16 && bytes.starts_with(kMapped)) {
      kind_ = Kind::kIpv4;
      take(12, 16);
    } else if (bytes.size() == 16) {
      kind_ = Kind::kIpv6;
      take(0, 8);
    }
  }
  friend auto operator<=>(const AddressBlock&, const AddressBlock&) = default;

 private:
  enum class Kind : std::uint8_t { kNone, kIpv4, kIpv6 } kind_ = Kind::kNone;
  std::uint64_t prefix_ = 0;
};

}  // namespace ktrunk
