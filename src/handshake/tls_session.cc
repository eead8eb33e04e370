#include "handshake/tls_session.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>

#include <array>
#include <cerrno>
#include <utility>

#include "handshake/tls_failure.h"
#include "handshake/tls_session_state.h"

namespace ktrunk::handshake {

namespace {

bool is_address(const std::string& host) {
  in6_addr any = {};
  return ::inet_pton(AF_INET, host.c_str(), &any) == 1 || ::inet_pton(AF_INET6, host.c_str(), &any) == 1;
}

std::string name_text(const X509_NAME* name) {
  std::array<char, 256> text = {};
  return name != nullptr && X509_NAME_oneline(name, text.data(), static_cast<int>(text.size())) != nullptr ? text.data()
                                                                                                           : "";
}

}  // namespace

// OpenSSL derives them in the moment that they come into use for that direction: from there on records count.
void TlsSession::State::on_traffic_keys(ktls::Endpoint writer, TrafficKeys keys) {
  const bool ours = (writer == ktls::Endpoint::kClient) == (role == Role::kConnect);
  DirectionTrace& direction = ours ? trace.transmit : trace.receive;
  direction.keys = std::move(keys);
  direction.announced = 0;
  direction.passed = 0;
}

void TlsSession::State::on_message(int write, int, int type, const void* data, std::size_t size, SSL* session, void*) {
  if (type != SSL3_RT_HEADER || size == 0) return;
  DirectionTrace& trace = write != 0 ? of(session).trace.transmit : of(session).trace.receive;
  count_record(trace, *static_cast<const std::uint8_t*>(data), trace.announced);
}

void TlsSession::State::on_info(const SSL* session, int where, int value) {
  if ((where & SSL_CB_ALERT) == 0) return;
  const ktls::Alert alert{static_cast<ktls::AlertLevel>(value >> 8), static_cast<ktls::AlertDescription>(value & 0xff)};
  State& state = of(session);
  if ((where & SSL_CB_WRITE) != 0) {
    state.failure.sent = alert;
  } else {
    state.failure.received = alert;
  }
}

bool TlsSession::State::peer_matches(const X509* certificate) {
  const PeerIdentity identity = read_identity(certificate);
  if (expected.empty() || identity.matches(expected)) return true;
  verify_error = X509_V_ERR_HOSTNAME_MISMATCH;
  verify_names = identity.describe();
  return false;
}

// Called for every certificate of the chain, and for every problem. The name is looked at last, with the rest in order.
int TlsSession::State::on_verify(int ok, X509_STORE_CTX* store) {
  State& state = of(static_cast<SSL*>(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx())));
  X509* certificate = X509_STORE_CTX_get_current_cert(store);
  if (ok != 1) {
    state.verify_error = X509_STORE_CTX_get_error(store);
    if (certificate != nullptr) {
      state.verify_subject = name_text(X509_get_subject_name(certificate));
      state.verify_issuer = name_text(X509_get_issuer_name(certificate));
    }
    if (X509* leaf = X509_STORE_CTX_get0_cert(store); leaf != nullptr)
      state.verify_leaf = name_text(X509_get_subject_name(leaf));
    return 0;
  }
  if (X509_STORE_CTX_get_error_depth(store) != 0 || certificate == nullptr || state.peer_matches(certificate)) return 1;
  X509_STORE_CTX_set_error(store, X509_V_ERR_HOSTNAME_MISMATCH);
  return 0;
}

TlsSession::TlsSession(std::unique_ptr<State> state) : state_(std::move(state)) {}
TlsSession::TlsSession(TlsSession&&) noexcept = default;
TlsSession& TlsSession::operator=(TlsSession&&) noexcept = default;
TlsSession::~TlsSession() = default;

Result<TlsSession> TlsSession::make(const TlsContext& context, Fd socket) {
  ERR_clear_error();
  auto state = std::make_unique<State>(std::move(socket));
  state->owner = context.owner();
  state->ssl.reset(SSL_new(context.get()));
  SSL* ssl = state->ssl.get();
  auto bio = make_bio(state->tapped);
  if (ssl == nullptr || !bio || SSL_set_app_data(ssl, state.get()) != 1)
    return fail("{}: OpenSSL gives no session: {}", context.owner(), openssl_error());
  BIO* shared = bio.release();
  SSL_set_bio(ssl, shared, shared);  // one reference serves both directions
  SSL_set_msg_callback(ssl, State::on_message);
  SSL_set_info_callback(ssl, State::on_info);
  SSL_set_verify(ssl, SSL_get_verify_mode(ssl), State::on_verify);
  return TlsSession(std::move(state));
}

Result<TlsSession> TlsSession::accept(const TlsContext& context, Fd socket) {
  auto session = make(context, std::move(socket));
  if (session) SSL_set_accept_state(session->state_->ssl.get());
  return session;
}

Result<TlsSession> TlsSession::connect(const TlsContext& context, Fd socket, std::string_view target_host,
                                       Resumption resumption) {
  std::string name = context.verify_name().empty() ? std::string(target_host) : context.verify_name();
  if (name.empty()) return fail("{}: no name to verify the peer's certificate by", context.owner());
  auto session = make(context, std::move(socket));
  if (!session) return session;
  State& state = *session->state_;
  state.role = Role::kConnect;
  state.expected = name;
  SSL_set_connect_state(state.ssl.get());
  if (!is_address(name) &&
      SSL_ctrl(state.ssl.get(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, name.data()) != 1)
    return fail("{}: '{}' cannot be sent as server name: {}", context.owner(), name, openssl_error());
  // A session that does not fit (another version, say) is no error: the handshake is a full one then.
  if (resumption.valid() && SSL_set_session(state.ssl.get(), resumption.session_.get()) != 1) ERR_clear_error();
  return session;
}

int TlsSession::fd() const { return state_->socket.get(); }

TlsSession::Step TlsSession::step() {
  State& state = *state_;
  if (state.phase == State::Phase::kFailed) return Step::kFailed;
  if (state.phase != State::Phase::kHandshake) return Step::kDone;
  ERR_clear_error();
  const TrafficKeysHearing hearing(state);
  const int result = SSL_do_handshake(state.ssl.get());
  if (result == 1) return state.finish();
  switch (SSL_get_error(state.ssl.get(), result)) {
    case SSL_ERROR_WANT_READ:
      return Step::kWantRead;
    case SSL_ERROR_WANT_WRITE:
      return Step::kWantWrite;
    default:
      return state.fail_handshake();
  }
}

TlsSession::Step TlsSession::State::finish() {
  const X509* certificate = SSL_get0_peer_certificate(ssl.get());
  const bool verified = certificate != nullptr && SSL_get_verify_result(ssl.get()) == X509_V_OK &&
                        SSL_get_verify_mode(ssl.get()) != SSL_VERIFY_NONE;
  negotiated.version = SSL_version(ssl.get()) == TLS1_3_VERSION ? ktls::Version::kTls13 : ktls::Version::kTls12;
  negotiated.cipher = SSL_get_cipher_name(ssl.get());
  negotiated.resumed = SSL_session_reused(ssl.get()) == 1;
  const unsigned char* alpn = nullptr;
  unsigned alpn_bytes = 0;
  SSL_get0_alpn_selected(ssl.get(), &alpn, &alpn_bytes);
  for (unsigned i = 0; i < alpn_bytes; ++i) negotiated.alpn.push_back(static_cast<char>(alpn[i]));
  if (verified) negotiated.peer = read_identity(certificate);
  // A resumed session brings the certificate of its first handshake, which nothing has compared with this name yet.
  if (role == Role::kConnect && (!verified || !peer_matches(certificate))) {
    failure.error = {fmt::format("{}: TLS handshake failed: the resumed session's certificate is for {}, not for '{}'",
                                 owner, negotiated.peer ? negotiated.peer->describe() : "no verified name", expected),
                     0};
    phase = Phase::kFailed;
    return Step::kFailed;
  }
  if (const Status agreed = TlsContext::check_agreed(ssl.get()); !agreed) {
    failure.error = {fmt::format("{}: TLS handshake failed: {}", owner, agreed.error().what), 0};
    phase = Phase::kFailed;
    return Step::kFailed;
  }
  phase = Phase::kDone;
  return Step::kDone;
}

TlsSession::Step TlsSession::State::fail_handshake() {
  phase = Phase::kFailed;
  const FailureFacts facts{.role = role,
                           .owner = owner,
                           .expected = expected,
                           .sent = failure.sent,
                           .received = failure.received,
                           .verify_error = verify_error,
                           .verify_subject = verify_subject,
                           .verify_issuer = verify_issuer,
                           .verify_leaf = verify_leaf,
                           .verify_names = verify_names,
                           .socket_error = tapped.error,
                           .eof = tapped.eof,
                           .beginning = tapped.receive.beginning()};
  failure.error = explain_failure(facts);
  return Step::kFailed;
}

const HandshakeFailure& TlsSession::failure() const { return state_->failure; }
const Negotiated& TlsSession::negotiated() const { return state_->negotiated; }

Result<Suite> TlsSession::kernel_suite() const {
  if (!state_->ssl) return fail("the session has left OpenSSL");
  return handshake::kernel_suite(state_->ssl.get());
}

Result<HandoverKeys> TlsSession::export_keys() {
  State& state = *state_;
  if (state.phase == State::Phase::kRelay) return fail("the session has carried data in OpenSSL already");
  if (state.phase == State::Phase::kExported) return fail("the keys were exported already");
  if (state.phase != State::Phase::kDone) return fail("the handshake is not finished");
  ERR_clear_error();
  auto keys = handshake::export_keys(state.ssl.get(), state.trace);
  if (keys) state.phase = State::Phase::kExported;
  return keys;
}

std::expected<TlsSession::Handover, TlsSession::HandoverError> TlsSession::into_kernel(ktls::Kernel& kernel) {
  State& state = *state_;
  auto keys = export_keys();
  if (!keys) return std::unexpected(HandoverError{std::move(keys.error()), ktls::SocketState::kUntouched});
  auto installed = ktls::install_keys(std::move(state.socket), keys->keys, kernel);
  if (!installed) {
    // Without a key in the kernel, OpenSSL can go on where it was.
    const bool untouched = installed.error().socket == ktls::SocketState::kUntouched;
    state.phase = untouched ? State::Phase::kDone : State::Phase::kFailed;
    return std::unexpected(HandoverError{std::move(installed.error().error), installed.error().socket});
  }
  Handover handover{std::move(*installed), std::move(*keys).secrets()};
  state.tapped.fd = -1;
  if (!state.may_get_tickets()) state.drop_quietly();
  return handover;
}

}  // namespace ktrunk::handshake
