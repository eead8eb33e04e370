// HEP: a SIP message in the shape that collectors such as Homer take: HEPv3 (the Homer project's "HEP3 Network
// Protocol Specification"), one datagram for each message. All chunks are of vendor 0:
//
//   1 IP family   2 IP protocol   3, 4 IPv4 addresses (5, 6 IPv6)   7, 8 ports   9, 10 seconds, microseconds
//   11 payload's protocol: 1, SIP   12 capture agent   14 authentication key   15 payload
//
// Pure: no I/O. Workers run it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/address.h"

namespace ktrunk::worker {

struct HepMessage {
  Address from;  // where one of the two is not known it is all zero
  Address to;
  enum class Protocol : std::uint8_t { kTcp = 6, kUdp = 17 } protocol = Protocol::kTcp;  // under TLS: kTcp
  std::uint32_t seconds = 0;                                                             // since 1970
  std::uint32_t microseconds = 0;
  std::string_view payload;
};

class HepEncoder {
 public:
  // What a datagram holds (over IPv4); the format's own limit is 65535.
  static constexpr std::size_t kMaxBytes = 65507;

  // auth_key: empty for none; at most config::kMaxHepKeyBytes.
  HepEncoder(std::uint32_t capture_id, std::string auth_key);

  // How long it will be; more than kMaxBytes: it cannot be.
  [[nodiscard]] std::size_t size(const HepMessage& message) const;
  // Precondition: `to` has room for size(), which is kMaxBytes at most.
  void encode(const HepMessage& message, std::span<std::byte> to) const;

 private:
  std::uint32_t capture_id_;
  std::string auth_key_;
};

}  // namespace ktrunk::worker
