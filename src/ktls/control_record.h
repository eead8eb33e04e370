// Control records: what kernel TLS passes beside data: alerts (RFC 8446 6), and handshake messages after the handshake.
// Workers read and send them with recvmsg and sendmsg, by io_uring or without; nothing here makes a system call.
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/result.h"

namespace ktrunk::ktls {

// ContentType (RFC 8446 5.1).
enum class RecordType : std::uint8_t { kChangeCipherSpec = 20, kAlert = 21, kHandshake = 22, kApplicationData = 23 };
[[nodiscard]] std::string_view record_type_name(RecordType type);  // "alert"; "unknown" for other numbers

enum class AlertLevel : std::uint8_t { kWarning = 1, kFatal = 2 };
// AlertDescription (RFC 8446 6, RFC 5246 7.2, RFC 7301). Other numbers may come from a peer.
enum class AlertDescription : std::uint8_t {
  kCloseNotify = 0,
  kUnexpectedMessage = 10,
  kBadRecordMac = 20,
  kRecordOverflow = 22,
  kHandshakeFailure = 40,
  kNoCertificate = 41,
  kBadCertificate = 42,
  kUnsupportedCertificate = 43,
  kCertificateRevoked = 44,
  kCertificateExpired = 45,
  kCertificateUnknown = 46,
  kIllegalParameter = 47,
  kUnknownCa = 48,
  kAccessDenied = 49,
  kDecodeError = 50,
  kDecryptError = 51,
  kProtocolVersion = 70,
  kInsufficientSecurity = 71,
  kInternalError = 80,
  kInappropriateFallback = 86,
  kUserCanceled = 90,
  kNoRenegotiation = 100,
  kMissingExtension = 109,
  kUnsupportedExtension = 110,
  kUnrecognizedName = 112,
  kBadCertificateStatusResponse = 113,
  kUnknownPskIdentity = 115,
  kCertificateRequired = 116,
  kNoApplicationProtocol = 120,
};
[[nodiscard]] std::string_view alert_name(AlertDescription description);  // "close_notify"; "unknown_alert" for others

struct Alert {
  AlertLevel level = AlertLevel::kFatal;
  AlertDescription description = AlertDescription::kInternalError;
  friend bool operator==(Alert, Alert) = default;
};
inline constexpr Alert kCloseNotify{AlertLevel::kWarning, AlertDescription::kCloseNotify};

// The payload of an alert record: exactly two octets, else an error (answer decode_error and close).
[[nodiscard]] Result<Alert> parse_alert(std::span<const std::byte> payload);

// HandshakeType of the first message in a handshake record; what may come after the handshake is these two.
enum class HandshakeType : std::uint8_t { kNewSessionTicket = 4, kKeyUpdate = 24 };
// No value: the record is empty. Numbers other than the two are unexpected_message.
[[nodiscard]] std::optional<HandshakeType> handshake_type(std::span<const std::byte> payload);

// Octets of control buffer that recvmsg needs in order to tell the record type.
inline constexpr std::size_t kControlBytes = CMSG_SPACE(sizeof(std::uint8_t));

// The type of the record that recvmsg returned, from the control bytes that it filled in (msg_controllen of them) and
// msg_flags. control must be aligned as a cmsghdr, as every control buffer is. Without a control message it is
// application data: so it is on a socket without kernel TLS, and at the end of the stream.
// Errors: MSG_CTRUNC, or control bytes that are not what the kernel writes. Close the connection: type unknown.
[[nodiscard]] Result<RecordType> record_type(std::span<const std::byte> control, int msg_flags);

// One short control record as a msghdr for sendmsg or an io_uring SENDMSG. The object holds all memory that the msghdr
// points to and must stay where it is until the send is complete.
class ControlMessage {
 public:
  static constexpr std::size_t kMaxBytes = 8;
  // payload: at most kMaxBytes; what is beyond is cut off.
  ControlMessage(RecordType type, std::span<const std::byte> payload);
  ControlMessage(const ControlMessage&) = delete;
  ControlMessage& operator=(const ControlMessage&) = delete;

  [[nodiscard]] const msghdr* header() const { return &header_; }
  [[nodiscard]] std::size_t bytes() const { return part_.iov_len; }  // what a complete send returns

 private:
  std::array<std::byte, kMaxBytes> payload_ = {};
  iovec part_ = {};
  alignas(cmsghdr) std::array<std::byte, kControlBytes> control_ = {};
  msghdr header_ = {};
};

// One alert, likewise.
class AlertMessage : public ControlMessage {
 public:
  explicit AlertMessage(Alert alert);
  static constexpr std::size_t kPayloadBytes = 2;
};

}  // namespace ktrunk::ktls
