// IpNetwork: the addresses that begin with the same bits, "192.0.2.0/24" or "2001:db8::/32"; of a lone address, that
// address. IPv4 is also what IPv6 writes as ::ffff:0:0/96 (RFC 4291 2.5.5.2).
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/address.h"
#include "base/result.h"

namespace ktrunk {

class IpNetwork {
 public:
  // An address in the form that networks of both families have.
  using Bytes = std::array<unsigned char, 16>;

  // "IP" or "IP/PREFIX" without brackets; no bit may be set beyond the prefix.
  [[nodiscard]] static Result<IpNetwork> parse(std::string_view text);
  // None for an empty address.
  [[nodiscard]] static std::optional<Bytes> bytes_of(const Address& address);
  // The first `prefix` bits, of 128.
  [[nodiscard]] static Bytes masked(Bytes bytes, unsigned prefix);

  [[nodiscard]] bool contains(const Address& address) const;
  [[nodiscard]] const Bytes& bytes() const { return bytes_; }
  [[nodiscard]] unsigned prefix() const { return prefix_; }  // of 128 bits, IPv4 too
  [[nodiscard]] const std::string& text() const { return text_; }
  [[nodiscard]] bool operator==(const IpNetwork& other) const {
    return prefix_ == other.prefix_ && bytes_ == other.bytes_;
  }

 private:
  Bytes bytes_{};
  unsigned prefix_ = 128;
  std::string text_;  // as it was written
};

}  // namespace ktrunk
