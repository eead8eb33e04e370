// The other end of a connection, for tests: TCP and TLS (OpenSSL's own record layer), blocking within a time limit.
#pragma once

#include <openssl/ssl.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/address.h"
#include "base/fd.h"
#include "base/result.h"

namespace ktrunk::test {

using std::chrono::milliseconds;

inline constexpr milliseconds kPatience{15'000};  // the time limit of every step; generous: kernels are emulated too

// A stream of bytes, of whatever transport. Owned by one thread at a time.
class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // Some bytes; empty at an orderly end (FIN, or close_notify with TLS). A timeout is an error with code ETIMEDOUT.
  [[nodiscard]] virtual Result<std::string> read_some(milliseconds timeout = kPatience) = 0;
  virtual Status write_all(std::string_view bytes, milliseconds timeout = kPatience) = 0;
  // Ends the sending side in order: FIN, or close_notify with TLS.
  virtual Status finish() = 0;
  [[nodiscard]] virtual int fd() const = 0;
  [[nodiscard]] Address local() const;
  [[nodiscard]] Address remote() const;
};

class TcpStream final : public ByteStream {
 public:
  explicit TcpStream(Fd socket) : socket_(std::move(socket)) {}
  [[nodiscard]] static Result<std::unique_ptr<TcpStream>> connect(const Address& to, milliseconds timeout = kPatience);

  [[nodiscard]] Result<std::string> read_some(milliseconds timeout = kPatience) override;
  Status write_all(std::string_view bytes, milliseconds timeout = kPatience) override;
  Status finish() override;
  [[nodiscard]] int fd() const override { return socket_.get(); }
  [[nodiscard]] Fd take() { return std::move(socket_); }

 private:
  Fd socket_;  // non-blocking
};

// One end's TLS parameters. Empty texts leave OpenSSL's defaults.
struct TlsOptions {
  std::string certificate;  // PEM files; a server needs both
  std::string key;
  std::string ca;  // when set, the peer must show a certificate that it signs
  int min_version = TLS1_2_VERSION;
  int max_version = TLS1_3_VERSION;
  std::string ciphers;             // TLS 1.2
  std::string ciphersuites;        // TLS 1.3
  std::string server_name;         // client: sent as SNI
  std::string verify_name;         // client: what the server's certificate must carry (needs ca)
  int tickets = -1;                // server, TLS 1.3: session tickets after a handshake; -1: OpenSSL's own number
  std::string ticket_key;          // server: 80 octets that seal session tickets, for servers that share theirs
  SSL_SESSION* session = nullptr;  // client: to be resumed
  std::vector<std::string>* keylog = nullptr;  // the handshake's secrets, in the lines of SSLKEYLOGFILE
};

class TlsStream final : public ByteStream {
 public:
  TlsStream(Fd socket, SSL* session) : socket_(std::move(socket)), session_(session) {}
  [[nodiscard]] static Result<std::unique_ptr<TlsStream>> connect(const Address& to, const TlsOptions& options,
                                                                  milliseconds timeout = kPatience);
  // The server's side of a handshake on a socket that was accepted.
  [[nodiscard]] static Result<std::unique_ptr<TlsStream>> accept(Fd socket, const TlsOptions& options,
                                                                 milliseconds timeout = kPatience);
  // The client's side on a socket that is connected.
  [[nodiscard]] static Result<std::unique_ptr<TlsStream>> handshake(Fd socket, const TlsOptions& options,
                                                                    milliseconds timeout = kPatience);

  [[nodiscard]] Result<std::string> read_some(milliseconds timeout = kPatience) override;
  Status write_all(std::string_view bytes, milliseconds timeout = kPatience) override;
  Status finish() override;
  [[nodiscard]] int fd() const override { return socket_.get(); }

  [[nodiscard]] std::string version() const;           // "TLSv1.3"
  [[nodiscard]] std::string cipher() const;            // OpenSSL's name
  [[nodiscard]] std::string peer_common_name() const;  // "" without a certificate
  [[nodiscard]] bool resumed() const { return ::SSL_session_reused(session_.get()) == 1; }
  // Client: the session as it is now; TLS 1.3 tickets come with the first octets that are read.
  struct FreeSession {
    void operator()(SSL_SESSION* session) const { ::SSL_SESSION_free(session); }
  };
  using Session = std::unique_ptr<SSL_SESSION, FreeSession>;
  [[nodiscard]] Session session() const { return Session(::SSL_get1_session(session_.get())); }
  // TLS 1.3: sends a KeyUpdate at the next write (SSL_KEY_UPDATE_REQUESTED asks the peer for one too).
  Status key_update(int kind);
  [[nodiscard]] SSL* ssl() const { return session_.get(); }

 private:
  struct Free {
    void operator()(SSL* session) const { ::SSL_free(session); }
  };
  Fd socket_;  // non-blocking
  std::unique_ptr<SSL, Free> session_;
};

// A listening TCP socket on a free port.
class TcpListener {
 public:
  // Port 0 takes a free one.
  [[nodiscard]] static Result<TcpListener> bind(const Address& address);
  [[nodiscard]] const Address& address() const { return address_; }
  [[nodiscard]] Result<Fd> accept(milliseconds timeout = kPatience) const;

 private:
  TcpListener(Fd socket, const Address& address) : socket_(std::move(socket)), address_(address) {}
  Fd socket_;
  Address address_;
};

// Waits for poll(2) events; ETIMEDOUT when they do not come.
Status wait_ready(int fd, short events, std::chrono::steady_clock::time_point deadline);

// An address of 127.0.0.0/8 that no other process of this run uses as long as the tests keep to this function, and a
// port there that is free for TCP and UDP now.
[[nodiscard]] Address free_address();

// The same with a port that is free at every address, IPv4 and IPv6, for a program that cannot be told to listen at one
// of them. It is none that the kernel hands out, so no other test's socket takes it meanwhile.
[[nodiscard]] Address free_address_for_any();

}  // namespace ktrunk::test
