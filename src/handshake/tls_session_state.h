// What a TLS session is made of: for tls_session.cc, the handshake and the way into the kernel, and
// tls_session_records.cc, what OpenSSL does behind it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "handshake/tls_bio.h"
#include "handshake/tls_session.h"
#include "handshake/traffic_keys.h"

namespace ktrunk::handshake {

struct TlsSession::State final : TrafficKeysHearer {
  enum class Phase : std::uint8_t { kHandshake, kDone, kRelay, kExported, kDetached, kFailed };
  struct FreeSsl {
    void operator()(SSL* session) const { SSL_free(session); }
  };

  explicit State(Fd connected)
      : socket(std::move(connected)), tapped{socket.get(), RecordTap(trace.transmit), RecordTap(trace.receive)} {}
  // What a detached session has learnt outlives it: OpenSSL spoils the tickets of one that ends without a word.
  ~State() {
    if (ssl && (phase == Phase::kExported || phase == Phase::kDetached)) drop_quietly();
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  Fd socket;
  SessionTrace trace;
  TappedSocket tapped;
  Phase phase = Phase::kHandshake;
  Role role = Role::kAccept;
  std::string owner;
  std::string expected;  // the name that the peer must have; a client's
  Negotiated negotiated;
  HandshakeFailure failure;
  int verify_error = X509_V_OK;
  std::string verify_subject;
  std::string verify_issuer;
  std::string verify_leaf;
  std::string verify_names;
  Error io_error;
  std::unique_ptr<SSL, FreeSsl> ssl;  // last: its callbacks use the rest

  static State& of(const SSL* session) { return *static_cast<State*>(SSL_get_app_data(session)); }
  [[nodiscard]] bool peer_matches(const X509* certificate);
  [[nodiscard]] Step finish();
  [[nodiscard]] Step fail_handshake();
  [[nodiscard]] IoResult io_failure(int result);
  void drop_quietly();
  [[nodiscard]] bool may_get_tickets() const {
    return role == Role::kConnect && negotiated.version == ktls::Version::kTls13;
  }

  void on_traffic_keys(ktls::Endpoint writer, TrafficKeys keys) override;
  static void on_message(int write, int, int type, const void* data, std::size_t size, SSL* session, void*);
  static void on_info(const SSL* session, int where, int value);
  static int on_verify(int ok, X509_STORE_CTX* store);
};

}  // namespace ktrunk::handshake
