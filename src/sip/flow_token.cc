#include "sip/flow_token.h"

#include <bit>
#include <charconv>
#include <concepts>
#include <cstring>
#include <system_error>

#include "sip/siphash.h"

namespace ktrunk::sip {

namespace {

// High half: version 2. Low half: purpose.
constexpr unsigned char kViaKind = 0x21;
constexpr unsigned char kRouteKind = 0x22;
constexpr unsigned char kRouteTwoLinesKind = 0x23;

constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
constexpr auto kDigits = [] {
  std::array<unsigned char, 256> digits{};
  digits.fill(0xff);
  for (unsigned char i = 0; i < 64; ++i) digits[static_cast<unsigned char>(kAlphabet[i])] = i;
  return digits;
}();

static_assert(sizeof(TokenKey::bytes) >= SipHash::kKeyBytes);

// And back.
template <std::unsigned_integral Number>
constexpr Number to_big_endian(Number value) {
  static_assert(std::endian::native == std::endian::little);
  if constexpr (sizeof(Number) == 8) return __builtin_bswap64(value);
  if constexpr (sizeof(Number) == 4) return __builtin_bswap32(value);
  if constexpr (sizeof(Number) == 2) return __builtin_bswap16(value);
  return value;
}

// The first kMacBytes octets of the MAC.
struct Mac {
  std::uint64_t first;
  std::uint32_t rest;
  static_assert(kMacBytes == sizeof first + sizeof rest);

  static Mac of(const unsigned char* bytes, std::size_t size, const TokenKey& key) {
    const auto hash = SipHash::hash128({reinterpret_cast<const char*>(bytes), size},
                                       SipHash::Key(key.bytes.data(), SipHash::kKeyBytes));
    return {hash.low, static_cast<std::uint32_t>(hash.high)};
  }
  void write(unsigned char* to) const {
    std::memcpy(to, &first, sizeof first);
    std::memcpy(to + sizeof first, &rest, sizeof rest);
  }
  // Takes the same time wherever they differ.
  [[nodiscard]] bool is_at(const unsigned char* bytes) const {
    Mac there{};
    std::memcpy(&there.first, bytes, sizeof first);
    std::memcpy(&there.rest, bytes + sizeof first, sizeof rest);
    return ((there.first ^ first) | (there.rest ^ rest)) == 0;
  }
};

// Takes numbers off the front of verified bytes; past the end everything reads as zero and ok() is false.
class TokenReader {
 public:
  TokenReader(const unsigned char* bytes, std::size_t size) : at_(bytes), end_(bytes + size) {}

  template <std::unsigned_integral Number>
  Number number() {
    Number big_endian = 0;
    if (const unsigned char* bytes = take(sizeof(Number)); bytes != nullptr)
      std::memcpy(&big_endian, bytes, sizeof big_endian);
    return to_big_endian(big_endian);
  }
  const unsigned char* take(std::size_t size) {
    if (static_cast<std::size_t>(end_ - at_) < size) {
      ok_ = false;
      at_ = end_;
      return nullptr;
    }
    at_ += size;
    return at_ - size;
  }
  void fail() { ok_ = false; }
  [[nodiscard]] bool complete() const { return ok_ && at_ == end_; }

 private:
  const unsigned char* at_;
  const unsigned char* end_;
  bool ok_ = true;
};

// A flow's tag: transport in the low half, address family of a UDP flow in the high half.
constexpr unsigned char kTagIpv4 = 0x10;
constexpr unsigned char kTagIpv6 = 0x20;
// The whole tag of a flow that is any connection of its trunk.
constexpr unsigned char kTagTrunk = 0x40;

bool is_trunk_stream(const Flow& flow) { return flow.transport != config::Transport::kUdp && flow.trunk.valid(); }

Address read_address(TokenReader& reader, unsigned char family) {
  const auto port = reader.number<std::uint16_t>();
  if (family == kTagIpv4) {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    if (const auto* bytes = reader.take(4)) std::memcpy(&v4.sin_addr, bytes, 4);
    return Address::from_sockaddr(reinterpret_cast<const sockaddr*>(&v4), sizeof v4);
  }
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  if (const auto* bytes = reader.take(16)) std::memcpy(&v6.sin6_addr, bytes, 16);
  return Address::from_sockaddr(reinterpret_cast<const sockaddr*>(&v6), sizeof v6);
}

Flow read_flow(TokenReader& reader) {
  Flow flow;
  const auto tag = reader.number<std::uint8_t>();
  if (tag == kTagTrunk) {
    flow.trunk.value = reader.number<std::uint16_t>();
    return flow;
  }
  flow.listener.value = reader.number<std::uint16_t>();
  flow.trunk.value = reader.number<std::uint16_t>();
  flow.transport = static_cast<config::Transport>(tag & 0x0f);
  const auto family = static_cast<unsigned char>(tag & 0xf0);
  switch (flow.transport) {
    case config::Transport::kTls:
    case config::Transport::kTcp:
      flow.connection.slot.value = reader.number<std::uint32_t>();
      flow.connection.generation.value = reader.number<std::uint32_t>();
      if (family != 0) reader.fail();
      break;
    case config::Transport::kUdp:
      if (family == kTagIpv4 || family == kTagIpv6) {
        flow.remote = read_address(reader, family);
      } else if (family != 0) {
        reader.fail();
      }
      break;
    default:
      reader.fail();
  }
  return flow;
}

// Decodes and verifies. Returns the bytes before the MAC, or 0. Every token has one spelling: unused low bits are zero.
std::size_t open_token(std::string_view text, const TokenKey& key, std::array<unsigned char, kMaxTokenBytes>& bytes) {
  // Most branches are other people's: every kind of ours has the same first six bits.
  constexpr char kFirst = kAlphabet[kViaKind >> 2];
  static_assert(kViaKind >> 2 == kRouteKind >> 2 && kViaKind >> 2 == kRouteTwoLinesKind >> 2);
  if (text.empty() || text[0] != kFirst || text.size() > kMaxTokenChars || text.size() % 4 == 1) return 0;
  const auto digit = [text](std::size_t i) { return std::uint32_t{kDigits[static_cast<unsigned char>(text[i])]}; };
  std::uint32_t all = 0;  // a character that is none of the alphabet shows in the bits above six
  std::size_t size = 0;
  std::size_t i = 0;
  for (; i + 4 <= text.size(); i += 4) {
    const std::uint32_t a = digit(i), b = digit(i + 1), c = digit(i + 2), d = digit(i + 3);
    all |= a | b | c | d;
    const std::uint32_t three = a << 18 | b << 12 | c << 6 | d;
    bytes[size++] = static_cast<unsigned char>(three >> 16);
    bytes[size++] = static_cast<unsigned char>(three >> 8);
    bytes[size++] = static_cast<unsigned char>(three);
  }
  if (i < text.size()) {
    const std::uint32_t a = digit(i), b = digit(i + 1), c = i + 3 == text.size() ? digit(i + 2) : 0;
    all |= a | b | c;
    const std::uint32_t three = a << 18 | b << 12 | c << 6;
    bytes[size++] = static_cast<unsigned char>(three >> 16);
    if (i + 3 == text.size()) bytes[size++] = static_cast<unsigned char>(three >> 8);
    if ((i + 3 == text.size() ? three & 0xff : three & 0xffff) != 0) return 0;
  }
  if (all > 63 || size <= kMacBytes) return 0;
  size -= kMacBytes;
  return Mac::of(bytes.data(), size, key).is_at(bytes.data() + size) ? size : 0;
}

}  // namespace

// Collects a token's bytes; text() adds the MAC and spells them.
class TokenWriter {
 public:
  template <std::unsigned_integral Number>
  void number(Number value) {
    const Number big_endian = to_big_endian(value);
    std::memcpy(bytes_.data() + size_, &big_endian, sizeof big_endian);
    size_ += sizeof big_endian;
  }
  void flow(const Flow& flow) {
    const bool is_udp = flow.transport == config::Transport::kUdp;
    const std::string_view ip = is_udp ? flow.remote.ip_bytes() : std::string_view{};
    const unsigned family = ip.size() == 4 ? kTagIpv4 : ip.size() == 16 ? kTagIpv6 : 0;
    number(static_cast<std::uint8_t>(static_cast<unsigned>(flow.transport) | family));
    number(flow.listener.value);
    number(flow.trunk.value);
    if (!is_udp) {
      number(flow.connection.slot.value);
      number(flow.connection.generation.value);
    } else if (!ip.empty()) {
      number(flow.remote.port());
      std::memcpy(bytes_.data() + size_, ip.data(), ip.size());
      size_ += ip.size();
    }
  }
  void trunk(const Flow& flow) {
    number(kTagTrunk);
    number(flow.trunk.value);
  }
  [[nodiscard]] TokenText text(const TokenKey& key) {
    Mac::of(bytes_.data(), size_, key).write(bytes_.data() + size_);
    size_ += kMacBytes;
    TokenText text;
    char* to = text.data_.data();
    const auto digit = [](std::uint32_t three, unsigned shift) { return kAlphabet[three >> shift & 63]; };
    std::size_t i = 0;
    for (; i + 3 <= size_; i += 3, to += 4) {
      const std::uint32_t three = std::uint32_t{bytes_[i]} << 16 | std::uint32_t{bytes_[i + 1]} << 8 | bytes_[i + 2];
      to[0] = digit(three, 18);
      to[1] = digit(three, 12);
      to[2] = digit(three, 6);
      to[3] = digit(three, 0);
    }
    if (i < size_) {  // one octet is two digits, two are three
      const std::uint32_t two =
          std::uint32_t{bytes_[i]} << 16 | (i + 2 == size_ ? std::uint32_t{bytes_[i + 1]} << 8 : 0u);
      *to++ = digit(two, 18);
      *to++ = digit(two, 12);
      if (i + 2 == size_) *to++ = digit(two, 6);
    }
    text.size_ = static_cast<std::size_t>(to - text.data_.data());
    return text;
  }

 private:
  std::array<unsigned char, kMaxTokenBytes> bytes_;
  std::size_t size_ = 0;
};

TokenText encode_token(const ViaToken& token, const TokenKey& key) {
  TokenWriter writer;
  writer.number(kViaKind);
  if (is_trunk_stream(token.source)) {
    writer.trunk(token.source);
  } else {
    writer.flow(token.source);
  }
  writer.number(token.transaction);
  writer.number(token.loop);
  writer.number(token.destination);
  return writer.text(key);
}

TokenText encode_token(const RouteToken& token, const TokenKey& key) {
  TokenWriter writer;
  writer.number(token.lines == RouteToken::Lines::kTwo ? kRouteTwoLinesKind : kRouteKind);
  writer.flow(token.a);
  writer.flow(token.b);
  return writer.text(key);
}

FlowHint::FlowHint(const Flow& flow) {
  if (!is_trunk_stream(flow)) return;
  char* const end = data_.data() + data_.size();
  char* at = std::to_chars(data_.data(), end, flow.connection.slot.value, 16).ptr;
  *at++ = '-';
  at = std::to_chars(at, end, flow.connection.generation.value, 16).ptr;
  size_ = static_cast<std::size_t>(at - data_.data());
}

ConnectionId parse_flow_hint(std::string_view text) {
  ConnectionId id;
  const char* const end = text.data() + text.size();
  const auto slot = std::from_chars(text.data(), end, id.slot.value, 16);
  if (slot.ec != std::errc{} || slot.ptr == end || *slot.ptr != '-') return {};
  const auto generation = std::from_chars(slot.ptr + 1, end, id.generation.value, 16);
  if (generation.ec != std::errc{} || generation.ptr != end) return {};
  return id;
}

std::optional<ViaToken> decode_via_token(std::string_view text, const TokenKey& key) {
  std::array<unsigned char, kMaxTokenBytes> bytes;
  TokenReader reader(bytes.data(), open_token(text, key, bytes));
  if (reader.number<std::uint8_t>() != kViaKind) return std::nullopt;
  ViaToken token{.source = read_flow(reader)};
  token.transaction = reader.number<std::uint64_t>();
  token.loop = reader.number<std::uint32_t>();
  token.destination = reader.number<std::uint32_t>();
  if (!reader.complete()) return std::nullopt;
  return token;
}

std::optional<RouteToken> decode_route_token(std::string_view text, const TokenKey& key) {
  std::array<unsigned char, kMaxTokenBytes> bytes;
  TokenReader reader(bytes.data(), open_token(text, key, bytes));
  const auto kind = reader.number<std::uint8_t>();
  if (kind != kRouteKind && kind != kRouteTwoLinesKind) return std::nullopt;
  RouteToken token{.a = read_flow(reader)};
  token.b = read_flow(reader);
  if (kind == kRouteTwoLinesKind) token.lines = RouteToken::Lines::kTwo;
  if (!reader.complete()) return std::nullopt;
  return token;
}

}  // namespace ktrunk::sip
