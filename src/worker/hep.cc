#include "worker/hep.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace ktrunk::worker {
namespace {

constexpr std::string_view kMagic = "HEP3";
constexpr std::size_t kHeaderBytes = 6;  // magic, length
constexpr std::size_t kChunkBytes = 6;   // vendor, type, length
constexpr std::uint8_t kSip = 1;

enum class Chunk : std::uint16_t {
  kFamily = 1,
  kProtocol = 2,
  kIpv4Source = 3,
  kIpv4Destination = 4,
  kIpv6Source = 5,
  kIpv6Destination = 6,
  kSourcePort = 7,
  kDestinationPort = 8,
  kSeconds = 9,
  kMicroseconds = 10,
  kPayloadProtocol = 11,
  kCaptureAgent = 12,
  kAuthKey = 14,
  kPayload = 15,
};

// Lengths include the chunk's own head; numbers are in network order.
class Writer {
 public:
  explicit Writer(std::byte* at) : at_(at) {}

  void raw(std::string_view octets) {
    if (!octets.empty()) std::memcpy(at_, octets.data(), octets.size());
    at_ += octets.size();
  }
  template <typename Number>
  void number(Number value) {
    for (std::size_t i = sizeof value; i-- > 0;) *at_++ = static_cast<std::byte>(value >> (8 * i) & 0xff);
  }
  template <typename Number>
  void chunk(Chunk type, Number value) {
    head(type, sizeof value);
    number(value);
  }
  void chunk(Chunk type, std::string_view octets) {
    head(type, octets.size());
    raw(octets);
  }

 private:
  void head(Chunk type, std::size_t bytes) {
    number(std::uint16_t{0});  // vendor: the specification's own chunks
    number(static_cast<std::uint16_t>(type));
    number(static_cast<std::uint16_t>(kChunkBytes + bytes));
  }
  std::byte* at_;
};

constexpr std::size_t kIpv4Bytes = 4;
constexpr std::size_t kIpv6Bytes = 16;

bool is_ipv6(const HepMessage& message) {
  return message.from.family() == AF_INET6 || (message.from.empty() && message.to.family() == AF_INET6);
}

// Of the wanted family; zero where there is none.
std::string_view ip_of(const Address& address, std::size_t bytes) {
  static constexpr char kUnknown[kIpv6Bytes] = {};
  const std::string_view ip = address.ip_bytes();
  return ip.size() == bytes ? ip : std::string_view(kUnknown, bytes);
}

}  // namespace

HepEncoder::HepEncoder(std::uint32_t capture_id, std::string auth_key)
    : capture_id_(capture_id), auth_key_(std::move(auth_key)) {}

std::size_t HepEncoder::size(const HepMessage& message) const {
  const std::size_t addresses = 2 * (kChunkBytes + (is_ipv6(message) ? kIpv6Bytes : kIpv4Bytes));
  constexpr std::size_t kOctets = 3 * (kChunkBytes + 1);  // family, protocol, payload's protocol
  constexpr std::size_t kPorts = 2 * (kChunkBytes + 2);
  constexpr std::size_t kWords = 3 * (kChunkBytes + 4);  // seconds, microseconds, agent
  const std::size_t key = auth_key_.empty() ? 0 : kChunkBytes + auth_key_.size();
  return kHeaderBytes + kOctets + addresses + kPorts + kWords + key + kChunkBytes + message.payload.size();
}

void HepEncoder::encode(const HepMessage& message, std::span<std::byte> to) const {
  Writer out(to.data());
  out.raw(kMagic);
  out.number(static_cast<std::uint16_t>(size(message)));
  const bool ipv6 = is_ipv6(message);
  const std::size_t bytes = ipv6 ? kIpv6Bytes : kIpv4Bytes;
  out.chunk(Chunk::kFamily, static_cast<std::uint8_t>(ipv6 ? AF_INET6 : AF_INET));
  out.chunk(Chunk::kProtocol, static_cast<std::uint8_t>(message.protocol));
  out.chunk(ipv6 ? Chunk::kIpv6Source : Chunk::kIpv4Source, ip_of(message.from, bytes));
  out.chunk(ipv6 ? Chunk::kIpv6Destination : Chunk::kIpv4Destination, ip_of(message.to, bytes));
  out.chunk(Chunk::kSourcePort, message.from.port());
  out.chunk(Chunk::kDestinationPort, message.to.port());
  out.chunk(Chunk::kSeconds, message.seconds);
  out.chunk(Chunk::kMicroseconds, message.microseconds);
  out.chunk(Chunk::kPayloadProtocol, kSip);
  out.chunk(Chunk::kCaptureAgent, capture_id_);
  if (!auth_key_.empty()) out.chunk(Chunk::kAuthKey, std::string_view(auth_key_));
  out.chunk(Chunk::kPayload, message.payload);
}

}  // namespace ktrunk::worker
