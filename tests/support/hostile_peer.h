// HostilePeer: a TLS peer whose handshake is OpenSSL's and whose record layer is its own, so that it can send any
// record at any time: other types, other lengths, forged, cut, glued together, in plaintext; and sees what comes back
// record by record, with its type. TLS 1.2 and 1.3, either end. For tests alone.
//
// It is a ByteStream as well: an ordinary peer as long as nothing else is asked of it. Received KeyUpdates are followed
// and, where the peer requests it, answered. One thread may send while another receives.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "support/record_protection.h"
#include "support/tls_peer.h"

namespace ktrunk::test {

// A handshake message: type, length of three octets, body (RFC 8446 4).
[[nodiscard]] std::string handshake_message(std::uint8_t type, std::string_view body);
// request_update; other values than 0 and 1 are illegal.
enum class KeyUpdateRequest : std::uint8_t { kNotRequested = 0, kRequested = 1 };
[[nodiscard]] std::string key_update_message(KeyUpdateRequest request);
// A NewSessionTicket of TLS 1.3 as a server may send it (RFC 8446 4.6.1).
[[nodiscard]] std::string ticket_message(std::string_view ticket = "an opaque ticket");

class HostilePeer final : public ByteStream {
 public:
  [[nodiscard]] static Result<std::unique_ptr<HostilePeer>> connect(const Address& to, TlsOptions options,
                                                                    milliseconds timeout = kPatience);
  // A server, which sends no tickets of its own in TLS 1.3.
  [[nodiscard]] static Result<std::unique_ptr<HostilePeer>> accept(Fd socket, TlsOptions options,
                                                                   milliseconds timeout = kPatience);

  // ---- sending
  Status send_raw(std::string_view octets, milliseconds timeout = kPatience);
  Status send(ktls::RecordType type, std::string_view payload, const RecordShape& shape = {});
  Status send(std::uint8_t type, std::string_view payload, const RecordShape& shape = {});
  // The record's octets, for send_raw(): what is sealed must be sent in this order.
  [[nodiscard]] std::string seal(ktls::RecordType type, std::string_view payload, const RecordShape& shape = {});
  Status send_alert(ktls::AlertLevel level, ktls::AlertDescription description);
  // A KeyUpdate, and our keys go on.
  Status key_update(KeyUpdateRequest request = KeyUpdateRequest::kNotRequested);
  // The same to be sent by the caller: the record is sealed under the old keys, what follows under the new ones.
  [[nodiscard]] Result<std::string> sealed_key_update(KeyUpdateRequest request = KeyUpdateRequest::kNotRequested);
  Status advance_transmit();

  // ---- receiving
  // The next record; nothing at FIN. Errors: ETIMEDOUT, what the socket says, a record that cannot be opened.
  [[nodiscard]] Result<std::optional<TlsRecord>> receive(milliseconds timeout = kPatience);
  // What the peer does in the end: data records are kept for read_some() and handshake records are followed.
  struct End {
    enum class How : std::uint8_t { kAlert, kFin, kError } how = How::kError;
    ktls::Alert alert;  // kAlert
    Error error;        // kError: reset, timed out, a record that cannot be opened
  };
  [[nodiscard]] End receive_end(milliseconds timeout = kPatience);
  Status advance_receive();
  enum class OnKeyUpdate : std::uint8_t { kFollow, kIgnore };
  void on_key_update(OnKeyUpdate what) { on_key_update_ = what; }
  [[nodiscard]] std::uint64_t key_updates_received() const { return key_updates_received_; }
  [[nodiscard]] std::uint64_t key_updates_sent() const { return key_updates_sent_; }
  [[nodiscard]] std::uint64_t records_received() const { return records_received_; }

  // ---- ByteStream: data alone. The end is close_notify; another alert (but a warning in TLS 1.2) or a FIN before it
  // is an error.
  [[nodiscard]] Result<std::string> read_some(milliseconds timeout = kPatience) override;
  Status write_all(std::string_view bytes, milliseconds timeout = kPatience) override;
  Status finish() override { return send_alert(ktls::AlertLevel::kWarning, ktls::AlertDescription::kCloseNotify); }
  [[nodiscard]] int fd() const override { return stream_->fd(); }

  [[nodiscard]] bool tls13() const { return tls13_; }
  [[nodiscard]] SSL* ssl() const { return stream_->ssl(); }  // what the handshake agreed on

 private:
  using Transmit = RecordProtection<ktls::Direction::kTransmit>;
  using Receive = RecordProtection<ktls::Direction::kReceive>;
  HostilePeer(std::unique_ptr<TlsStream> stream, Transmit transmit, Receive receive);
  enum class Side : std::uint8_t { kClient, kServer };
  static Result<std::unique_ptr<HostilePeer>> take_over(std::unique_ptr<TlsStream> stream, Side side,
                                                        const std::vector<std::string>& keylog);
  Status send_raw_locked(std::string_view octets, milliseconds timeout);
  Status follow(std::string_view handshake_octets);

  std::unique_ptr<TlsStream> stream_;
  bool tls13_;
  std::mutex sending_;
  Transmit transmit_;
  Receive receive_;
  OnKeyUpdate on_key_update_ = OnKeyUpdate::kFollow;
  std::string received_;  // octets of records that are not whole yet
  std::string data_;      // received by receive_end(), for read_some()
  std::atomic<std::uint64_t> key_updates_received_{0};
  std::atomic<std::uint64_t> key_updates_sent_{0};
  std::atomic<std::uint64_t> records_received_{0};
};

}  // namespace ktrunk::test
