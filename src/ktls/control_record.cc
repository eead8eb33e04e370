#include "ktls/control_record.h"

#include <linux/tls.h>

#include <algorithm>
#include <cstring>

namespace ktrunk::ktls {

std::string_view record_type_name(RecordType type) {
  switch (type) {
    case RecordType::kChangeCipherSpec:
      return "change_cipher_spec";
    case RecordType::kAlert:
      return "alert";
    case RecordType::kHandshake:
      return "handshake";
    case RecordType::kApplicationData:
      return "application_data";
  }
  return "unknown";
}

std::string_view alert_name(AlertDescription description) {
  switch (description) {
    case AlertDescription::kCloseNotify:
      return "close_notify";
    case AlertDescription::kUnexpectedMessage:
      return "unexpected_message";
    case AlertDescription::kBadRecordMac:
      return "bad_record_mac";
    case AlertDescription::kRecordOverflow:
      return "record_overflow";
    case AlertDescription::kHandshakeFailure:
      return "handshake_failure";
    case AlertDescription::kNoCertificate:
      return "no_certificate";
    case AlertDescription::kBadCertificate:
      return "bad_certificate";
    case AlertDescription::kUnsupportedCertificate:
      return "unsupported_certificate";
    case AlertDescription::kCertificateRevoked:
      return "certificate_revoked";
    case AlertDescription::kCertificateExpired:
      return "certificate_expired";
    case AlertDescription::kCertificateUnknown:
      return "certificate_unknown";
    case AlertDescription::kIllegalParameter:
      return "illegal_parameter";
    case AlertDescription::kUnknownCa:
      return "unknown_ca";
    case AlertDescription::kAccessDenied:
      return "access_denied";
    case AlertDescription::kDecodeError:
      return "decode_error";
    case AlertDescription::kDecryptError:
      return "decrypt_error";
    case AlertDescription::kProtocolVersion:
      return "protocol_version";
    case AlertDescription::kInsufficientSecurity:
      return "insufficient_security";
    case AlertDescription::kInternalError:
      return "internal_error";
    case AlertDescription::kInappropriateFallback:
      return "inappropriate_fallback";
    case AlertDescription::kUserCanceled:
      return "user_canceled";
    case AlertDescription::kNoRenegotiation:
      return "no_renegotiation";
    case AlertDescription::kMissingExtension:
      return "missing_extension";
    case AlertDescription::kUnsupportedExtension:
      return "unsupported_extension";
    case AlertDescription::kUnrecognizedName:
      return "unrecognized_name";
    case AlertDescription::kBadCertificateStatusResponse:
      return "bad_certificate_status_response";
    case AlertDescription::kUnknownPskIdentity:
      return "unknown_psk_identity";
    case AlertDescription::kCertificateRequired:
      return "certificate_required";
    case AlertDescription::kNoApplicationProtocol:
      return "no_application_protocol";
  }
  return "unknown_alert";
}

Result<Alert> parse_alert(std::span<const std::byte> payload) {
  if (payload.size() != 2) return fail("an alert record of {} octets; expected 2", payload.size());
  const auto level = static_cast<AlertLevel>(payload[0]);
  if (level != AlertLevel::kWarning && level != AlertLevel::kFatal)
    return fail("an alert of level {}; expected 1 or 2", static_cast<unsigned>(payload[0]));
  return Alert{level, static_cast<AlertDescription>(payload[1])};
}

std::optional<HandshakeType> handshake_type(std::span<const std::byte> payload) {
  if (payload.empty()) return std::nullopt;
  return static_cast<HandshakeType>(payload[0]);
}

Result<RecordType> record_type(std::span<const std::byte> control, int msg_flags) {
  if ((msg_flags & MSG_CTRUNC) != 0) return fail("the record's type did not fit the control buffer (MSG_CTRUNC)");
  if (control.empty()) return RecordType::kApplicationData;
  // One message is all that a TLS socket gives; read by offset, for the bytes may lie anywhere in a ring's buffer.
  cmsghdr header = {};
  if (control.size() < CMSG_LEN(sizeof(std::uint8_t))) return fail("a control message of {} octets", control.size());
  std::memcpy(&header, control.data(), sizeof header);
  if (header.cmsg_level != SOL_TLS || header.cmsg_type != TLS_GET_RECORD_TYPE ||
      header.cmsg_len != CMSG_LEN(sizeof(std::uint8_t)) || control.size() > kControlBytes)
    return fail("a control message of level {}, type {} and length {}; expected TLS_GET_RECORD_TYPE", header.cmsg_level,
                header.cmsg_type, header.cmsg_len);
  return static_cast<RecordType>(control[CMSG_LEN(0)]);
}

ControlMessage::ControlMessage(RecordType type, std::span<const std::byte> payload) {
  const std::size_t bytes = std::min(payload.size(), payload_.size());
  std::copy_n(payload.begin(), bytes, payload_.begin());
  part_ = {payload_.data(), bytes};
  header_.msg_iov = &part_;
  header_.msg_iovlen = 1;
  header_.msg_control = control_.data();
  header_.msg_controllen = control_.size();
  cmsghdr* record = CMSG_FIRSTHDR(&header_);
  record->cmsg_level = SOL_TLS;
  record->cmsg_type = TLS_SET_RECORD_TYPE;
  record->cmsg_len = CMSG_LEN(sizeof(std::uint8_t));
  *CMSG_DATA(record) = static_cast<std::uint8_t>(type);
}

AlertMessage::AlertMessage(Alert alert)
    : ControlMessage(RecordType::kAlert,
                     std::array{static_cast<std::byte>(alert.level), static_cast<std::byte>(alert.description)}) {}

}  // namespace ktrunk::ktls
