#include "support/hostile_peer.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace ktrunk::test {
namespace {

using Clock = std::chrono::steady_clock;

struct Suite {
  ktls::Aead aead;
  ktls::Hash hash;
};

Result<Suite> suite_of(SSL* session) {
  const SSL_CIPHER* cipher = ::SSL_get_current_cipher(session);
  const ktls::Hash hash = ::EVP_MD_get_type(::SSL_CIPHER_get_handshake_digest(cipher)) == NID_sha384
                              ? ktls::Hash::kSha384
                              : ktls::Hash::kSha256;
  switch (::SSL_CIPHER_get_cipher_nid(cipher)) {
    case NID_aes_128_gcm:
      return Suite{ktls::Aead::kAes128Gcm, hash};
    case NID_aes_256_gcm:
      return Suite{ktls::Aead::kAes256Gcm, hash};
    case NID_chacha20_poly1305:
      return Suite{ktls::Aead::kChaCha20Poly1305, hash};
    default:
      return fail("the peer of tests has no record layer for {}", ::SSL_CIPHER_get_name(cipher));
  }
}

// The secret with this label, from lines "LABEL RANDOM SECRET" in hexadecimal.
Result<ktls::TrafficSecret> secret_of(const std::vector<std::string>& keylog, std::string_view label) {
  for (const std::string& line : keylog) {
    if (!line.starts_with(label) || line[label.size()] != ' ') continue;
    const std::string_view digits = std::string_view(line).substr(line.rfind(' ') + 1);
    std::vector<std::byte> bytes;
    for (std::size_t i = 0; i + 1 < digits.size(); i += 2)
      bytes.push_back(static_cast<std::byte>(std::stoi(std::string(digits.substr(i, 2)), nullptr, 16)));
    return ktls::TrafficSecret(bytes);
  }
  return fail("no line {} in the key log", label);
}

template <ktls::Direction D>
Result<RecordProtection<D>> protection13(const Suite& suite, const std::vector<std::string>& keylog,
                                         std::string_view label) {
  auto secret = secret_of(keylog, label);
  if (!secret) return std::unexpected(secret.error());
  auto keys = ktls::keys_from_secret<D>(suite.aead, suite.hash, *secret, {0});
  if (!keys) return std::unexpected(keys.error());
  return RecordProtection<D>(std::move(*keys), suite.hash, std::move(*secret));
}

Result<ktls::SessionKeys> keys12(SSL* session, const Suite& suite, ktls::Endpoint self) {
  std::array<unsigned char, 48> master = {};
  std::array<unsigned char, 32> client = {};
  std::array<unsigned char, 32> server = {};
  ::SSL_SESSION_get_master_key(::SSL_get_session(session), master.data(), master.size());
  ::SSL_get_client_random(session, client.data(), client.size());
  ::SSL_get_server_random(session, server.data(), server.size());
  // One record each way under these keys: Finished.
  return ktls::keys_from_master_secret(self, suite.aead, suite.hash,
                                       {.master = std::as_bytes(std::span(master)),
                                        .client_random = std::as_bytes(std::span(client)),
                                        .server_random = std::as_bytes(std::span(server))},
                                       {.transmit = {1}, .receive = {1}});
}

ktls::Alert alert_of(const std::string& payload) {
  const auto alert = ktls::parse_alert(std::as_bytes(std::span(payload)));
  return alert ? *alert : ktls::Alert{ktls::AlertLevel::kFatal, static_cast<ktls::AlertDescription>(255)};
}

bool is(const TlsRecord& record, ktls::RecordType type) { return record.type == static_cast<std::uint8_t>(type); }

}  // namespace

std::string handshake_message(std::uint8_t type, std::string_view body) {
  const auto octet = [&](unsigned shift) { return static_cast<char>(body.size() >> shift & 0xff); };
  return std::string{static_cast<char>(type), octet(16), octet(8), octet(0)}.append(body);
}

std::string key_update_message(KeyUpdateRequest request) {
  return handshake_message(24, std::string(1, static_cast<char>(request)));
}

std::string ticket_message(std::string_view ticket) {
  using namespace std::string_literals;
  std::string body =
      "\x00\x00\x0e\x10"s  // lifetime: an hour
      "\x01\x02\x03\x04"s  // age_add
      "\x08nonce..."s;     // with its length
  const auto length = static_cast<std::uint16_t>(ticket.size());
  body.append({static_cast<char>(length >> 8), static_cast<char>(length & 0xff)}).append(ticket);
  body.append(2, '\0');  // no extensions
  return handshake_message(4, body);
}

HostilePeer::HostilePeer(std::unique_ptr<TlsStream> stream, Transmit transmit, Receive receive)
    : stream_(std::move(stream)),
      tls13_(transmit.tls13()),
      transmit_(std::move(transmit)),
      receive_(std::move(receive)) {}

Result<std::unique_ptr<HostilePeer>> HostilePeer::connect(const Address& to, TlsOptions options, milliseconds timeout) {
  std::vector<std::string> keylog;
  options.keylog = &keylog;
  auto stream = TlsStream::connect(to, options, timeout);
  if (!stream) return std::unexpected(stream.error());
  return take_over(std::move(*stream), Side::kClient, keylog);
}

Result<std::unique_ptr<HostilePeer>> HostilePeer::accept(Fd socket, TlsOptions options, milliseconds timeout) {
  std::vector<std::string> keylog;
  options.keylog = &keylog;
  options.tickets = 0;
  auto stream = TlsStream::accept(std::move(socket), options, timeout);
  if (!stream) return std::unexpected(stream.error());
  return take_over(std::move(*stream), Side::kServer, keylog);
}

Result<std::unique_ptr<HostilePeer>> HostilePeer::take_over(std::unique_ptr<TlsStream> stream, Side side,
                                                            const std::vector<std::string>& keylog) {
  const auto suite = suite_of(stream->ssl());
  if (!suite) return std::unexpected(suite.error());
  const bool client = side == Side::kClient;
  const auto make = [&](Transmit transmit, Receive receive) {
    return std::unique_ptr<HostilePeer>(new HostilePeer(std::move(stream), std::move(transmit), std::move(receive)));
  };
  if (::SSL_version(stream->ssl()) == TLS1_3_VERSION) {
    const std::string_view ours = client ? "CLIENT_TRAFFIC_SECRET_0" : "SERVER_TRAFFIC_SECRET_0";
    const std::string_view theirs = client ? "SERVER_TRAFFIC_SECRET_0" : "CLIENT_TRAFFIC_SECRET_0";
    auto transmit = protection13<ktls::Direction::kTransmit>(*suite, keylog, ours);
    if (!transmit) return std::unexpected(transmit.error());
    auto receive = protection13<ktls::Direction::kReceive>(*suite, keylog, theirs);
    if (!receive) return std::unexpected(receive.error());
    return make(std::move(*transmit), std::move(*receive));
  }
  auto keys = keys12(stream->ssl(), *suite, client ? ktls::Endpoint::kClient : ktls::Endpoint::kServer);
  if (!keys) return std::unexpected(keys.error());
  return make(Transmit(std::move(keys->transmit), suite->hash, {}), Receive(std::move(keys->receive), suite->hash, {}));
}

// ---- sending

Status HostilePeer::send_raw_locked(std::string_view octets, milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  while (!octets.empty()) {  // ends with the deadline
    const ssize_t sent = ::send(fd(), octets.data(), octets.size(), MSG_NOSIGNAL);
    if (sent >= 0) {
      octets.remove_prefix(static_cast<std::size_t>(sent));
    } else if (errno == EAGAIN || errno == EINTR) {
      if (Status status = wait_ready(fd(), POLLOUT, deadline); !status) return status;
    } else {
      return fail_errno(errno, "send");
    }
  }
  return {};
}

Status HostilePeer::send_raw(std::string_view octets, milliseconds timeout) {
  const std::scoped_lock lock(sending_);
  return send_raw_locked(octets, timeout);
}

Status HostilePeer::send(std::uint8_t type, std::string_view payload, const RecordShape& shape) {
  const std::scoped_lock lock(sending_);
  return send_raw_locked(transmit_.seal(type, payload, shape), kPatience);
}

Status HostilePeer::send(ktls::RecordType type, std::string_view payload, const RecordShape& shape) {
  return send(static_cast<std::uint8_t>(type), payload, shape);
}

std::string HostilePeer::seal(ktls::RecordType type, std::string_view payload, const RecordShape& shape) {
  const std::scoped_lock lock(sending_);
  return transmit_.seal(static_cast<std::uint8_t>(type), payload, shape);
}

Status HostilePeer::send_alert(ktls::AlertLevel level, ktls::AlertDescription description) {
  return send(ktls::RecordType::kAlert, std::string{static_cast<char>(level), static_cast<char>(description)});
}

Result<std::string> HostilePeer::sealed_key_update(KeyUpdateRequest request) {
  const std::scoped_lock lock(sending_);
  std::string record =
      transmit_.seal(static_cast<std::uint8_t>(ktls::RecordType::kHandshake), key_update_message(request));
  if (Status advanced = transmit_.advance(); !advanced) return std::unexpected(advanced.error());
  ++key_updates_sent_;
  return record;
}

Status HostilePeer::key_update(KeyUpdateRequest request) {
  const std::scoped_lock lock(sending_);
  const std::string record =
      transmit_.seal(static_cast<std::uint8_t>(ktls::RecordType::kHandshake), key_update_message(request));
  if (Status advanced = transmit_.advance(); !advanced) return advanced;
  ++key_updates_sent_;
  return send_raw_locked(record, kPatience);
}

Status HostilePeer::advance_transmit() {
  const std::scoped_lock lock(sending_);
  return transmit_.advance();
}

Status HostilePeer::write_all(std::string_view bytes, milliseconds timeout) {
  while (!bytes.empty()) {
    const auto part = bytes.substr(0, ktls::kMaxRecordBytes);
    const std::scoped_lock lock(sending_);
    const auto type = static_cast<std::uint8_t>(ktls::RecordType::kApplicationData);
    if (Status sent = send_raw_locked(transmit_.seal(type, part), timeout); !sent) return sent;
    bytes.remove_prefix(part.size());
  }
  return {};
}

// ---- receiving

Result<std::optional<TlsRecord>> HostilePeer::receive(milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  for (;;) {  // ends with the deadline
    if (received_.size() >= kRecordHeaderBytes) {
      const std::size_t whole =
          kRecordHeaderBytes + (static_cast<std::size_t>(static_cast<unsigned char>(received_[3])) << 8 |
                                static_cast<unsigned char>(received_[4]));
      if (received_.size() >= whole) {
        auto record = receive_.open(std::string_view(received_).substr(0, whole));
        if (!record) return std::unexpected(record.error());
        received_.erase(0, whole);
        ++records_received_;
        if (is(*record, ktls::RecordType::kHandshake)) {
          if (Status followed = follow(record->payload); !followed) return std::unexpected(followed.error());
        }
        return std::optional(std::move(*record));
      }
    }
    std::array<char, 65536> some = {};
    const ssize_t got = ::recv(fd(), some.data(), some.size(), 0);
    if (got > 0) {
      received_.append(some.data(), static_cast<std::size_t>(got));
    } else if (got == 0) {
      if (!received_.empty()) return fail("the stream ends within a record");
      return std::nullopt;
    } else if (errno != EAGAIN && errno != EINTR) {
      return fail_errno(errno, "recv");
    } else if (Status status = wait_ready(fd(), POLLIN, deadline); !status) {
      return std::unexpected(status.error());
    }
  }
}

// Messages that begin in this record; ktrunk sends no handshake message that needs two.
Status HostilePeer::follow(std::string_view octets) {
  constexpr std::size_t kMessageHeader = 4;
  while (octets.size() > kMessageHeader) {
    const std::size_t length =
        static_cast<std::size_t>(static_cast<unsigned char>(octets[2])) << 8 | static_cast<unsigned char>(octets[3]);
    if (octets[0] == static_cast<char>(ktls::HandshakeType::kKeyUpdate)) {
      ++key_updates_received_;
      if (on_key_update_ == OnKeyUpdate::kIgnore) return {};
      if (Status advanced = advance_receive(); !advanced) return advanced;
      if (octets[kMessageHeader] == static_cast<char>(KeyUpdateRequest::kRequested))
        if (Status answered = key_update(); !answered) return answered;
    }
    octets.remove_prefix(std::min(octets.size(), kMessageHeader + length));
  }
  return {};
}

Status HostilePeer::advance_receive() { return receive_.advance(); }

HostilePeer::End HostilePeer::receive_end(milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  for (;;) {  // ends with the deadline
    const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now());
    const auto record = receive(std::max(left, milliseconds(0)));
    if (!record) return {End::How::kError, {}, record.error()};
    if (!*record) return {End::How::kFin, {}, {}};
    if (is(**record, ktls::RecordType::kAlert)) {
      const ktls::Alert alert = alert_of((*record)->payload);
      const bool warning = !tls13_ && alert.level == ktls::AlertLevel::kWarning && alert != ktls::kCloseNotify;
      if (!warning) return {End::How::kAlert, alert, {}};
    }
    if (is(**record, ktls::RecordType::kApplicationData)) data_ += (*record)->payload;
  }
}

Result<std::string> HostilePeer::read_some(milliseconds timeout) {
  if (!data_.empty()) return std::exchange(data_, {});
  const auto deadline = Clock::now() + timeout;
  for (;;) {  // ends with the deadline
    const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now());
    auto record = receive(std::max(left, milliseconds(0)));
    if (!record) return std::unexpected(record.error());
    if (!*record) return fail("the stream ends without close_notify");
    if (is(**record, ktls::RecordType::kApplicationData)) {
      if ((*record)->payload.empty()) continue;
      return std::move((*record)->payload);
    }
    if (!is(**record, ktls::RecordType::kAlert)) continue;
    const ktls::Alert alert = alert_of((*record)->payload);
    if (alert.description == ktls::AlertDescription::kCloseNotify) return std::string();
    if (!tls13_ && alert.level == ktls::AlertLevel::kWarning) continue;
    return fail("alert {}", ktls::alert_name(alert.description));
  }
}

}  // namespace ktrunk::test
