// What OpenSSL does for a session behind the handshake: the records of a relay, and tickets read from memory.
#include <openssl/err.h>

#include <utility>

#include "handshake/tls_failure.h"
#include "handshake/tls_session_state.h"

namespace ktrunk::handshake {

// Frees OpenSSL's part without a word to the peer. Marked as shut down, the session's tickets stay good.
void TlsSession::State::drop_quietly() {
  SSL_set_quiet_shutdown(ssl.get(), 1);
  SSL_set_shutdown(ssl.get(), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
  ssl.reset();
  tapped.fd = -1;
}

std::optional<ktls::RecordSeq> TlsSession::detach() {
  State& state = *state_;
  if (state.phase != State::Phase::kExported || !state.ssl || !state.may_get_tickets()) return std::nullopt;
  state.tapped.fd = -1;
  state.socket.reset();
  state.phase = State::Phase::kDetached;
  return ktls::RecordSeq{state.trace.receive.passed};
}

Status TlsSession::read_detached(std::span<const std::byte> records) {
  State& state = *state_;
  if (state.phase != State::Phase::kDetached) return fail("the session does not read from memory");
  ERR_clear_error();
  state.tapped.memory = records;
  std::byte none{};
  std::size_t count = 0;
  const int result = SSL_read_ex(state.ssl.get(), &none, 1, &count);
  const bool waits = result != 1 && SSL_get_error(state.ssl.get(), result) == SSL_ERROR_WANT_READ;
  const bool all = state.tapped.memory.empty();
  state.tapped.memory = {};
  if (waits && all) return {};
  std::string why = result == 1 ? "it took them for data" : openssl_error();
  state.drop_quietly();
  state.phase = State::Phase::kFailed;
  return fail("{}: OpenSSL does not take the server's session ticket: {}", state.owner, why);
}

TlsSession::IoResult TlsSession::State::io_failure(int result) {
  switch (SSL_get_error(ssl.get(), result)) {
    case SSL_ERROR_WANT_READ:
      return {Io::kWantRead, 0};
    case SSL_ERROR_WANT_WRITE:
      return {Io::kWantWrite, 0};
    case SSL_ERROR_ZERO_RETURN:
      return {Io::kClosed, 0};
    default:
      break;
  }
  if (tapped.eof) {
    ERR_clear_error();
    return {Io::kEof, 0};
  }
  std::string what = tapped.error != 0 ? errno_text(tapped.error) : openssl_error();
  if (failure.received) what = fmt::format("the peer sent alert {}", ktls::alert_name(failure.received->description));
  ERR_clear_error();
  io_error = {fmt::format("{}: TLS connection broken: {}", owner, what), tapped.error};
  phase = Phase::kFailed;
  return {Io::kFailed, 0};
}

namespace {

// The phases in which OpenSSL carries data.
template <typename Phase>
bool may_relay(Phase phase) {
  return phase == Phase::kDone || phase == Phase::kRelay;
}

}  // namespace

TlsSession::IoResult TlsSession::read(std::span<std::byte> into) {
  State& state = *state_;
  if (!may_relay(state.phase) || into.empty()) return {Io::kFailed, 0};
  state.phase = State::Phase::kRelay;
  ERR_clear_error();
  std::size_t count = 0;
  const int result = SSL_read_ex(state.ssl.get(), into.data(), into.size(), &count);
  return result == 1 ? IoResult{Io::kBytes, count} : state.io_failure(result);
}

TlsSession::IoResult TlsSession::write(std::span<const std::byte> from) {
  State& state = *state_;
  if (!may_relay(state.phase) || from.empty() || from.size() > ktls::kMaxRecordBytes) return {Io::kFailed, 0};
  state.phase = State::Phase::kRelay;
  ERR_clear_error();
  std::size_t count = 0;
  const int result = SSL_write_ex(state.ssl.get(), from.data(), from.size(), &count);
  return result == 1 ? IoResult{Io::kBytes, count} : state.io_failure(result);
}

TlsSession::IoResult TlsSession::shutdown() {
  State& state = *state_;
  if (!may_relay(state.phase)) return {Io::kFailed, 0};
  state.phase = State::Phase::kRelay;
  ERR_clear_error();
  const int result = SSL_shutdown(state.ssl.get());  // 0: sent, the peer's own has not come yet
  return result >= 0 ? IoResult{Io::kClosed, 0} : state.io_failure(result);
}

TlsSession::IoResult TlsSession::update_keys(KeyUpdateRequest request) {
  State& state = *state_;
  if (!may_relay(state.phase) || state.negotiated.version != ktls::Version::kTls13) return {Io::kFailed, 0};
  state.phase = State::Phase::kRelay;
  ERR_clear_error();
  // One that has begun is finished first, and is as good as another.
  const int type = request == KeyUpdateRequest::kRequested ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED;
  if (SSL_in_init(state.ssl.get()) == 0 && SSL_key_update(state.ssl.get(), type) != 1) return state.io_failure(0);
  const int result = SSL_do_handshake(state.ssl.get());
  return result == 1 ? IoResult{Io::kBytes, 0} : state.io_failure(result);
}

const Error& TlsSession::io_error() const { return state_->io_error; }

bool TlsSession::socket_failed() const { return state_->tapped.error != 0; }

bool TlsSession::has_pending() const { return state_->ssl && SSL_has_pending(state_->ssl.get()) == 1; }

Resumption TlsSession::resumption() const {
  Resumption memory;
  if (!state_->ssl || state_->role != Role::kConnect) return memory;
  memory.session_.reset(SSL_get1_session(state_->ssl.get()));
  if (memory.valid() && SSL_SESSION_is_resumable(memory.session_.get()) != 1) memory.session_.reset();
  return memory;
}

}  // namespace ktrunk::handshake
