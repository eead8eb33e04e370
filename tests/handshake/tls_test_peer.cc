#include "handshake/tls_test_peer.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <stdexcept>

namespace ktrunk::test {
namespace {

constexpr int kWaitMs = 2000;
constexpr int kMostSteps = 200;

void need(bool ok, const char* what) {
  if (!ok) throw std::runtime_error(what);
}

}  // namespace

TcpPair tcp_pair() {
  const Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  need(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0, "bind");
  need(::listen(listener.get(), 1) == 0, "listen");
  need(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length) == 0, "getsockname");
  TcpPair pair;
  pair.first = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  need(::connect(pair.first.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0, "connect");
  pair.second = Fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  need(pair.second.valid(), "accept");
  ::fcntl(pair.first.get(), F_SETFL, O_NONBLOCK);
  const int on = 1;
  for (const Fd* end : {&pair.first, &pair.second}) {
    ::setsockopt(end->get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  return pair;
}

bool wait_readable(int fd) {
  pollfd entry = {.fd = fd, .events = POLLIN, .revents = 0};
  return ::poll(&entry, 1, kWaitMs) == 1;
}

Peer::Peer(SSL_CTX* context, Fd socket, handshake::Role role) : socket_(std::move(socket)), ssl_(SSL_new(context)) {
  ::signal(SIGPIPE, SIG_IGN);  // OpenSSL's own socket BIO uses write(2)
  SSL_set_fd(ssl_.get(), socket_.get());
  if (role == handshake::Role::kAccept) {
    SSL_set_accept_state(ssl_.get());
  } else {
    SSL_set_connect_state(ssl_.get());
  }
}

bool Peer::handshake() {
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_.get());
  error_ = result == 1 ? 0 : SSL_get_error(ssl_.get(), result);
  return result == 1;
}

bool Peer::send(const std::string& text) {
  ERR_clear_error();
  const int result = SSL_write(ssl_.get(), text.data(), static_cast<int>(text.size()));
  error_ = result > 0 ? 0 : SSL_get_error(ssl_.get(), result);
  return result == static_cast<int>(text.size());
}

std::string Peer::receive() {
  std::array<char, 16384> buffer = {};
  for (int i = 0; i < kMostSteps; ++i) {
    ERR_clear_error();
    const int result = SSL_read(ssl_.get(), buffer.data(), static_cast<int>(buffer.size()));
    error_ = result > 0 ? 0 : SSL_get_error(ssl_.get(), result);
    if (result > 0) return {buffer.data(), static_cast<std::size_t>(result)};
    if (error_ != SSL_ERROR_WANT_READ || !wait_readable(socket_.get())) return {};
  }
  return {};
}

void Peer::read_tickets() {
  std::array<char, 1> none = {};
  ERR_clear_error();
  SSL_peek(ssl_.get(), none.data(), 1);
}

Context server_context(const std::string& certificate, const std::string& key) {
  Context context(SSL_CTX_new(TLS_server_method()));
  need(SSL_CTX_use_certificate_chain_file(context.get(), certificate.c_str()) == 1, "peer certificate");
  need(SSL_CTX_use_PrivateKey_file(context.get(), key.c_str(), SSL_FILETYPE_PEM) == 1, "peer key");
  return context;
}

Context client_context(const std::string& authorities) {
  Context context(SSL_CTX_new(TLS_client_method()));
  need(SSL_CTX_load_verify_file(context.get(), authorities.c_str()) == 1, "peer CA");
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  return context;
}

const char* suite_of(ktls::Aead aead) {
  switch (aead) {
    case ktls::Aead::kAes128Gcm:
      return "TLS_AES_128_GCM_SHA256";
    case ktls::Aead::kAes256Gcm:
      return "TLS_AES_256_GCM_SHA384";
    case ktls::Aead::kChaCha20Poly1305:
      break;
  }
  return "TLS_CHACHA20_POLY1305_SHA256";
}

handshake::TlsSession::Step shake(handshake::TlsSession& ours, Peer& peer) {
  using Step = handshake::TlsSession::Step;
  Step step = Step::kWantRead;
  for (int i = 0; i < kMostSteps; ++i) {
    const bool peer_done = peer.handshake();
    step = ours.step();
    if (step == Step::kDone || step == Step::kFailed) return step;
    // Loopback is quick, not instant: wait for whoever is to move.
    std::array<pollfd, 2> entries = {pollfd{ours.fd(), POLLIN, 0}, pollfd{peer_done ? -1 : peer.fd(), POLLIN, 0}};
    ::poll(entries.data(), entries.size(), kWaitMs);
  }
  return step;
}

Line::Line() {
  TcpPair near = tcp_pair();
  TcpPair far = tcp_pair();
  near_end_ = std::move(near.first);
  near_side_ = std::move(near.second);
  far_end_ = std::move(far.first);
  far_side_ = std::move(far.second);
}

std::size_t Line::move(int from, int to, std::size_t limit) {
  std::array<char, 65536> buffer = {};
  const ssize_t count = ::recv(from, buffer.data(), std::min(limit, buffer.size()), MSG_DONTWAIT);
  if (count <= 0) return 0;
  need(::send(to, buffer.data(), static_cast<std::size_t>(count), MSG_NOSIGNAL) == count, "line");
  return static_cast<std::size_t>(count);
}

void Line::wait() const {
  std::array<pollfd, 2> entries = {pollfd{near_side_.get(), POLLIN, 0}, pollfd{far_side_.get(), POLLIN, 0}};
  ::poll(entries.data(), entries.size(), 20);
}

void Line::end_to_near() { ::shutdown(near_side_.get(), SHUT_WR); }

}  // namespace ktrunk::test
