// Post-handshake messages: a connection's stream of handshake records after the handshake, cut into messages however
// they are spread over records (RFC 8446 5.1), and what each message is good for: RFC 8446 4.6 for TLS 1.3; RFC 5246
// 7.4.1.1 and 7.4.1.2, renegotiation, which we refuse, for TLS 1.2. Pure: no socket, no keys. The handshake process
// runs it, for octets that strangers sent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <vector>

#include "handshake/tls_session.h"
#include "ipc/messages.h"
#include "ipc/vault.h"
#include "ktls/crypto_info.h"
#include "ktls/key_schedule.h"

namespace ktrunk::handshake {

// The kind of message that a message is, where it has a place after the handshake.
enum class PostHandshakeKind : std::uint8_t {
  kNewSessionTicket,
  kKeyUpdate,
  kRenegotiation,  // TLS 1.2: HelloRequest or ClientHello; to be answered with a no_renegotiation alert
};

// Why the connection must end.
struct HandshakeRefusal {
  ipc::FaultReason reason = ipc::FaultReason::kUnexpectedHandshake;
  std::uint8_t type = 0;  // of the message
  friend bool operator==(HandshakeRefusal, HandshakeRefusal) = default;
};

struct PostHandshakeMessage {
  PostHandshakeKind kind = PostHandshakeKind::kNewSessionTicket;
  KeyUpdateRequest request = KeyUpdateRequest::kNotRequested;  // kKeyUpdate
  // Header included; until the next call of the stream. Empty: a predecessor got a part of it.
  std::span<const std::byte> octets;
};

class PostHandshakeStream {
 public:
  // Octets of one message, header included, and of one record.
  static constexpr std::size_t kMostMessage = 64 * 1024;

  PostHandshakeStream(ktls::Version version, ktls::Endpoint self) : version_(version), self_(self) {}

  // Goes on where a predecessor was: `have` octets of a message have come, its header begins with `header`.
  void restore(const ipc::VaultStream& stream);
  // Octets of the current record. Refused when they are more than a record can have.
  [[nodiscard]] std::expected<void, HandshakeRefusal> append(std::span<const std::byte> octets);
  // The octets of the current record so far.
  [[nodiscard]] std::span<const std::byte> record() const { return std::span(octets_).subspan(record_at_); }

  // The current record is complete: its messages one after the other, then nothing. A message that has no place here is
  // refused as soon as its type is known.
  [[nodiscard]] std::expected<std::optional<PostHandshakeMessage>, HandshakeRefusal> next();
  // ... and has been gone through: what follows belongs to the next one.
  void end_record();
  // The current record never came.
  void drop_record();

  // No message and no record has begun.
  [[nodiscard]] bool between_messages() const { return octets_.empty(); }
  // A message has begun that the current record, gone through, has not ended. For restore(); last_record is left alone.
  [[nodiscard]] std::optional<ipc::VaultStream> begun() const;
  // Octets of memory in use.
  [[nodiscard]] std::size_t size() const { return octets_.size(); }

 private:
  [[nodiscard]] std::expected<PostHandshakeKind, HandshakeRefusal> kind_of(std::uint8_t type) const;

  ktls::Version version_;
  ktls::Endpoint self_;
  std::vector<std::byte> octets_;  // of messages that are not gone through, and of the current record
  std::size_t message_at_ = 0;     // where the next message begins
  std::size_t record_at_ = 0;      // where the current record begins
  bool lost_ = false;              // octets of the first message went to a predecessor
};

}  // namespace ktrunk::handshake
