#include "sip/flow_token.h"

#include <bit>
#include <concepts>
#include <cstring>

#include "sip/base64url.h"
#include "sip/siphash.h"
#include "sip/text.h"

namespace ktrunk::sip {

namespace {

// High half: version 2. Low half: purpose.
constexpr unsigned char kViaKind = 0x21;
constexpr unsigned char kRouteKind = 0x22;
constexpr unsigned char kRouteTwoLinesKind = 0x23;

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

using TokenBytes = std::array<unsigned char, base64url::octet_room(kMaxTokenBytes)>;

// Decodes and verifies. Returns the bytes before the MAC, or 0.
std::size_t open_token(std::string_view text, const TokenKey& key, TokenBytes& bytes) {
  // Most branches and users are other people's: every kind of ours has the same first six bits, 'I'.
  static_assert(kViaKind >> 2 == 8 && kRouteKind >> 2 == 8 && kRouteTwoLinesKind >> 2 == 8);
  if (text.size() < kMinTokenChars || text[0] != 'I' || text.size() > kMaxTokenChars) return 0;
  const std::size_t size = base64url::decode(text, bytes.data());
  if (size <= kMacBytes) return 0;
  const std::size_t rest = size - kMacBytes;
  return Mac::of(bytes.data(), rest, key).is_at(bytes.data() + rest) ? rest : 0;
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
    text.size_ = base64url::encode(bytes_.data(), size_, text.data_.data());
    return text;
  }

 private:
  TokenBytes bytes_;
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

namespace {

// Lower case, without zeros in front; returns one past the last digit.
char* write_hex(std::uint32_t number, char* to) {
  const int digits = number == 0 ? 1 : (35 - std::countl_zero(number)) / 4;
  for (int i = digits; i-- > 0; number >>= 4) to[i] = "0123456789abcdef"[number & 15];
  return to + digits;
}

// One to eight hexadecimal digits off the front.
bool take_hex(Cursor& cursor, std::uint32_t& number) {
  int digits = 0;
  for (number = 0; is_hex(cursor.peek()); ++digits) {
    const char c = cursor.peek();
    number = number << 4 | static_cast<std::uint32_t>(is_digit(c) ? c - '0' : to_lower(c) - 'a' + 10);
    cursor.skip(1);
  }
  return digits > 0 && digits <= 8;
}

}  // namespace

FlowHint::FlowHint(const Flow& flow) {
  if (!is_trunk_stream(flow)) return;
  char* at = write_hex(flow.connection.slot.value, data_.data());
  *at++ = '-';
  at = write_hex(flow.connection.generation.value, at);
  size_ = static_cast<std::size_t>(at - data_.data());
}

ConnectionId parse_flow_hint(std::string_view text) {
  ConnectionId id;
  Cursor cursor(text);
  if (!take_hex(cursor, id.slot.value) || !cursor.take('-')) return {};
  if (!take_hex(cursor, id.generation.value) || !cursor.done()) return {};
  return id;
}

std::optional<ViaToken> decode_via_token(std::string_view text, const TokenKey& key) {
  TokenBytes bytes;
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
  TokenBytes bytes;
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
