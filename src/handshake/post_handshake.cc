#include "handshake/post_handshake.h"

#include <algorithm>

namespace ktrunk::handshake {
namespace {

using ipc::FaultReason;

constexpr std::size_t kHeader = 4;  // msg_type, uint24 length
constexpr std::uint8_t kHelloRequest = 0;
constexpr std::uint8_t kClientHello = 1;
constexpr std::uint8_t kNewSessionTicket = 4;
constexpr std::uint8_t kKeyUpdate = 24;

std::uint8_t octet(std::byte value) { return std::to_integer<std::uint8_t>(value); }

// Takes the vectors of the TLS presentation language off the front of octets (RFC 8446 3.4).
class Reader {
 public:
  explicit Reader(std::span<const std::byte> octets) : rest_(octets) {}
  bool skip(std::size_t count) {
    if (rest_.size() < count) return false;
    rest_ = rest_.subspan(count);
    return true;
  }
  // A vector behind its length of `width` octets, which must be at least `least`.
  std::optional<std::span<const std::byte>> vector(std::size_t width, std::size_t least) {
    if (rest_.size() < width) return std::nullopt;
    std::size_t length = 0;
    for (std::size_t i = 0; i < width; ++i) length = length << 8 | octet(rest_[i]);
    if (length < least || rest_.size() - width < length) return std::nullopt;
    const auto found = rest_.subspan(width, length);
    rest_ = rest_.subspan(width + length);
    return found;
  }
  [[nodiscard]] bool at_end() const { return rest_.empty(); }

 private:
  std::span<const std::byte> rest_;
};

// struct { uint32 ticket_lifetime; uint32 ticket_age_add; opaque ticket_nonce<0..255>; opaque ticket<1..2^16-1>;
// Extension extensions<0..2^16-2>; } NewSessionTicket (RFC 8446 4.6.1)
bool is_ticket(std::span<const std::byte> body) {
  Reader ticket(body);
  if (!ticket.skip(8) || !ticket.vector(1, 0) || !ticket.vector(2, 1)) return false;
  const auto extensions = ticket.vector(2, 0);
  if (!extensions || !ticket.at_end()) return false;
  Reader each(*extensions);
  while (!each.at_end()) {
    if (!each.skip(2) || !each.vector(2, 0)) return false;
  }
  return true;
}

std::unexpected<HandshakeRefusal> refuse(FaultReason reason, std::uint8_t type) {
  return std::unexpected(HandshakeRefusal{reason, type});
}

}  // namespace

void PostHandshakeStream::restore(const ipc::VaultStream& stream) {
  octets_.assign(std::min<std::size_t>(stream.have, kMostMessage), std::byte{});
  std::copy_n(stream.header.begin(), std::min(octets_.size(), kHeader), octets_.begin());
  lost_ = octets_.size() > kHeader;
  message_at_ = 0;
  record_at_ = octets_.size();
}

std::expected<void, HandshakeRefusal> PostHandshakeStream::append(std::span<const std::byte> octets) {
  if (record().size() + octets.size() > ktls::kMaxRecordBytes)
    return refuse(FaultReason::kBadHandshake, octets_.empty() ? std::uint8_t{0} : octet(octets_.front()));
  octets_.insert(octets_.end(), octets.begin(), octets.end());
  return {};
}

std::expected<PostHandshakeKind, HandshakeRefusal> PostHandshakeStream::kind_of(std::uint8_t type) const {
  const bool client = self_ == ktls::Endpoint::kClient;
  if (version_ == ktls::Version::kTls13) {
    if (type == kKeyUpdate) return PostHandshakeKind::kKeyUpdate;
    if (type == kNewSessionTicket && client) return PostHandshakeKind::kNewSessionTicket;
  } else if (type == (client ? kHelloRequest : kClientHello)) {
    return PostHandshakeKind::kRenegotiation;
  }
  return refuse(FaultReason::kUnexpectedHandshake, type);
}

std::expected<std::optional<PostHandshakeMessage>, HandshakeRefusal> PostHandshakeStream::next() {
  // An empty fragment of a handshake message must not be sent (RFC 8446 5.1); nor is there a reason for one in TLS 1.2.
  if (record().empty()) return refuse(FaultReason::kUnexpectedHandshake, 0);
  const auto rest = std::span<const std::byte>(octets_).subspan(message_at_);
  if (rest.empty()) return std::nullopt;
  const std::uint8_t type = octet(rest[0]);
  const auto kind = kind_of(type);
  if (!kind) return std::unexpected(kind.error());
  if (rest.size() < kHeader) return std::nullopt;
  const std::size_t length = std::size_t{octet(rest[1])} << 16 | std::size_t{octet(rest[2])} << 8 | octet(rest[3]);
  if (length > kMostMessage - kHeader || (type == kKeyUpdate && length != 1) || (type == kHelloRequest && length != 0))
    return refuse(FaultReason::kBadHandshake, type);
  if (rest.size() < kHeader + length) return std::nullopt;

  const bool lost = lost_ && message_at_ == 0;
  message_at_ += kHeader + length;
  const auto body = rest.subspan(kHeader, length);
  PostHandshakeMessage message{.kind = *kind, .octets = {}};
  if (!lost) message.octets = rest.first(kHeader + length);
  if (message.kind == PostHandshakeKind::kKeyUpdate) {
    const std::uint8_t request = octet(body[0]);
    if (request > 1) return refuse(FaultReason::kBadKeyUpdate, type);
    message.request = static_cast<KeyUpdateRequest>(request);
    // What follows it is under other keys, and so in another record.
    if (message_at_ != octets_.size()) return refuse(FaultReason::kUnexpectedHandshake, type);
  }
  if (message.kind == PostHandshakeKind::kNewSessionTicket && !lost && !is_ticket(body))
    return refuse(FaultReason::kBadHandshake, type);
  return message;
}

void PostHandshakeStream::end_record() {
  if (message_at_ == octets_.size()) {
    octets_ = {};
  } else {
    octets_.erase(octets_.begin(), octets_.begin() + static_cast<std::ptrdiff_t>(message_at_));
  }
  if (message_at_ > 0) lost_ = false;
  message_at_ = 0;
  record_at_ = octets_.size();
}

void PostHandshakeStream::drop_record() {
  octets_.resize(record_at_);
  message_at_ = 0;
}

std::optional<ipc::VaultStream> PostHandshakeStream::begun() const {
  if (message_at_ == octets_.size()) return std::nullopt;
  const auto rest = std::span<const std::byte>(octets_).subspan(message_at_);
  ipc::VaultStream stream;
  std::copy_n(rest.begin(), std::min(rest.size(), stream.header.size()), stream.header.begin());
  stream.have = static_cast<std::uint32_t>(rest.size());
  return stream;
}

}  // namespace ktrunk::handshake
