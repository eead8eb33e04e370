// The other end of a TLS test: TCP pairs over 127.0.0.1, a plain OpenSSL session, and a slow line between two ends.
#pragma once

#include <openssl/ssl.h>

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "base/fd.h"
#include "handshake/tls_session.h"
#include "ktls/crypto_info.h"

namespace ktrunk::test {

struct TcpPair {
  Fd first;
  Fd second;
};
// Connected over 127.0.0.1, both ends O_NONBLOCK.
[[nodiscard]] TcpPair tcp_pair();
// Waits until the descriptor is readable: false after two seconds.
bool wait_readable(int fd);

struct FreeSsl {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL* session) const { SSL_free(session); }
  void operator()(SSL_SESSION* session) const { SSL_SESSION_free(session); }
};
using Context = std::unique_ptr<SSL_CTX, FreeSsl>;
using Memory = std::unique_ptr<SSL_SESSION, FreeSsl>;

// OpenSSL as anyone uses it, on a descriptor of its own.
class Peer {
 public:
  Peer(SSL_CTX* context, Fd socket, handshake::Role role);

  [[nodiscard]] bool handshake();                    // one step: true when it is finished
  [[nodiscard]] bool send(const std::string& text);  // one record, at once
  // What SSL_read gives, waiting up to two seconds; "" and an SSL_ERROR_ code in error() else.
  [[nodiscard]] std::string receive();
  void read_tickets();  // takes in what lies there, without waiting for more
  [[nodiscard]] int error() const { return error_; }
  void close_notify() { SSL_shutdown(ssl_.get()); }
  [[nodiscard]] Memory memory() { return Memory(SSL_get1_session(ssl_.get())); }
  [[nodiscard]] SSL* get() { return ssl_.get(); }
  [[nodiscard]] int fd() const { return socket_.get(); }
  void hang_up() { socket_.reset(); }

 private:
  Fd socket_;
  std::unique_ptr<SSL, FreeSsl> ssl_;
  int error_ = 0;
};

// Contexts for the peer.
[[nodiscard]] Context server_context(const std::string& certificate, const std::string& key);
[[nodiscard]] Context client_context(const std::string& authorities);

// OpenSSL's name of the TLS 1.3 suite with this AEAD.
[[nodiscard]] const char* suite_of(ktls::Aead aead);

// Steps both ends until ours is done or failed; the peer need not be finished then.
handshake::TlsSession::Step shake(handshake::TlsSession& ours, Peer& peer);

// A line between two TCP connections that forwards as much as it is told to.
class Line {
 public:
  Line();
  [[nodiscard]] Fd take_near() { return std::move(near_end_); }
  [[nodiscard]] Fd take_far() { return std::move(far_end_); }
  void wait() const;  // until an octet can be moved, or 20 ms have passed
  // Octets moved, at most limit.
  std::size_t to_near(std::size_t limit) { return move(far_side_.get(), near_side_.get(), limit); }
  std::size_t to_far(std::size_t limit) { return move(near_side_.get(), far_side_.get(), limit); }
  void end_to_near();  // FIN

 private:
  static std::size_t move(int from, int to, std::size_t limit);
  Fd near_end_, near_side_, far_end_, far_side_;
};

}  // namespace ktrunk::test
