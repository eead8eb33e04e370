#include "support/tls_peer.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>

namespace ktrunk::test {
namespace {

using Clock = std::chrono::steady_clock;

struct FreeContext {
  void operator()(SSL_CTX* context) const { ::SSL_CTX_free(context); }
};
using Context = std::unique_ptr<SSL_CTX, FreeContext>;

enum class Side { kClient, kServer };

std::unexpected<Error> tls_failure(std::string_view what) {
  const unsigned long code = ::ERR_get_error();
  char reason[256] = "no reason given";
  if (code != 0) ::ERR_error_string_n(code, reason, sizeof reason);
  ::ERR_clear_error();
  return fail("{}: {}", what, reason);
}

Result<Context> make_context(const TlsOptions& options, Side side) {
  ::ERR_clear_error();
  Context context(::SSL_CTX_new(side == Side::kClient ? ::TLS_client_method() : ::TLS_server_method()));
  if (!context) return tls_failure("SSL_CTX_new");
  SSL_CTX* raw = context.get();
  SSL_CTX_set_min_proto_version(raw, options.min_version);
  SSL_CTX_set_max_proto_version(raw, options.max_version);
  if (!options.certificate.empty() && (::SSL_CTX_use_certificate_chain_file(raw, options.certificate.c_str()) != 1 ||
                                       ::SSL_CTX_use_PrivateKey_file(raw, options.key.c_str(), SSL_FILETYPE_PEM) != 1))
    return tls_failure("certificate and key");
  if (!options.ca.empty()) {
    if (::SSL_CTX_load_verify_file(raw, options.ca.c_str()) != 1) return tls_failure("ca");
    ::SSL_CTX_set_verify(raw, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  }
  if (!options.ciphers.empty() && ::SSL_CTX_set_cipher_list(raw, options.ciphers.c_str()) != 1)
    return tls_failure("ciphers");
  if (!options.ciphersuites.empty() && ::SSL_CTX_set_ciphersuites(raw, options.ciphersuites.c_str()) != 1)
    return tls_failure("ciphersuites");
  if (options.tickets >= 0 && ::SSL_CTX_set_num_tickets(raw, static_cast<std::size_t>(options.tickets)) != 1)
    return tls_failure("tickets");
  // Resumption of sessions with client certificates wants a context.
  constexpr unsigned char kContext[] = "ktrunk tests";
  if (side == Side::kServer) ::SSL_CTX_set_session_id_context(raw, kContext, sizeof kContext);
  std::string ticket_key = options.ticket_key;  // the call takes it as changeable
  if (!ticket_key.empty() && SSL_CTX_set_tlsext_ticket_keys(raw, ticket_key.data(), ticket_key.size()) != 1)
    return tls_failure("ticket_key");
  if (options.keylog != nullptr) {
    SSL_CTX_set_app_data(raw, options.keylog);
    ::SSL_CTX_set_keylog_callback(raw, [](const SSL* session, const char* line) {
      static_cast<std::vector<std::string>*>(SSL_CTX_get_app_data(::SSL_get_SSL_CTX(session)))->emplace_back(line);
    });
  }
  return context;
}

// One OpenSSL call that may want the socket to be ready first. Gives what the call returned when that is positive, 0 at
// an orderly end.
template <typename Call>
Result<int> perform(SSL* session, int fd, milliseconds timeout, std::string_view what, Call call) {
  const auto deadline = Clock::now() + timeout;
  for (;;) {  // ends with the deadline
    ::ERR_clear_error();
    errno = 0;
    const int result = call();
    const int code = errno;
    if (result > 0) return result;
    switch (::SSL_get_error(session, result)) {
      case SSL_ERROR_WANT_READ:
        if (Status status = wait_ready(fd, POLLIN, deadline); !status) return std::unexpected(status.error());
        break;
      case SSL_ERROR_WANT_WRITE:
        if (Status status = wait_ready(fd, POLLOUT, deadline); !status) return std::unexpected(status.error());
        break;
      case SSL_ERROR_ZERO_RETURN:
        return 0;
      case SSL_ERROR_SYSCALL:
        return fail_errno(code != 0 ? code : EPIPE, what);
      default:
        return tls_failure(what);
    }
  }
}

Result<std::unique_ptr<TlsStream>> establish(Fd socket, const TlsOptions& options, Side side, milliseconds timeout) {
  const Result<Context> context = make_context(options, side);
  if (!context) return std::unexpected(context.error());
  const int fd = socket.get();
  const int flags = ::fcntl(fd, F_GETFL);
  ::fcntl(fd, F_SETFL, flags | O_NONBLOCK);
  SSL* session = ::SSL_new(context->get());  // keeps the context
  if (session == nullptr) return tls_failure("SSL_new");
  auto stream = std::make_unique<TlsStream>(std::move(socket), session);
  if (::SSL_set_fd(session, fd) != 1) return tls_failure("SSL_set_fd");
  std::string server_name = options.server_name;  // the call takes it as changeable
  if (!server_name.empty() &&
      ::SSL_ctrl(session, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, server_name.data()) != 1)
    return tls_failure("server name");
  if (options.session != nullptr && ::SSL_set_session(session, options.session) != 1)
    return tls_failure("SSL_set_session");
  if (!options.verify_name.empty()) {
    ::SSL_set_hostflags(session, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (::SSL_set1_host(session, options.verify_name.c_str()) != 1) return tls_failure("SSL_set1_host");
  }
  const Result<int> done =
      perform(session, fd, timeout, side == Side::kClient ? "TLS handshake as client" : "TLS handshake as server",
              [&] { return side == Side::kClient ? ::SSL_connect(session) : ::SSL_accept(session); });
  ::SSL_CTX_set_keylog_callback(context->get(), nullptr);  // it may not outlive the caller's lines
  if (!done) return std::unexpected(done.error());
  if (*done == 0) return fail("the peer ended the TLS handshake");
  return stream;
}

Address name_of(int fd, int (*call)(int, sockaddr*, socklen_t*)) {
  sockaddr_storage storage = {};
  socklen_t length = sizeof storage;
  if (call(fd, reinterpret_cast<sockaddr*>(&storage), &length) != 0) return {};
  return Address::from_sockaddr(reinterpret_cast<const sockaddr*>(&storage), length);
}

void set_nodelay(int fd) {
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

}  // namespace

Status wait_ready(int fd, short events, Clock::time_point deadline) {
  for (;;) {  // ends with the deadline
    const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now());
    if (left.count() <= 0) return std::unexpected(Error{"timed out", ETIMEDOUT});
    pollfd entry = {.fd = fd, .events = events, .revents = 0};
    const int ready = ::poll(&entry, 1, static_cast<int>(left.count()));
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "poll");
  }
}

Address ByteStream::local() const { return name_of(fd(), ::getsockname); }
Address ByteStream::remote() const { return name_of(fd(), ::getpeername); }

Result<std::unique_ptr<TcpStream>> TcpStream::connect(const Address& to, milliseconds timeout) {
  Fd socket(::socket(to.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return fail_errno(errno, "socket");
  if (::connect(socket.get(), to.data(), to.size()) != 0 && errno != EINPROGRESS)
    return fail_errno(errno, "connect to " + to.text());
  if (Status status = wait_ready(socket.get(), POLLOUT, Clock::now() + timeout); !status)
    return std::unexpected(status.error());
  int code = 0;
  socklen_t length = sizeof code;
  ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &code, &length);
  if (code != 0) return fail_errno(code, "connect to " + to.text());
  set_nodelay(socket.get());
  return std::make_unique<TcpStream>(std::move(socket));
}

Result<std::string> TcpStream::read_some(milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  std::string bytes(65536, '\0');
  for (;;) {  // ends with the deadline
    const ssize_t got = ::recv(socket_.get(), bytes.data(), bytes.size(), 0);
    if (got >= 0) {
      bytes.resize(static_cast<std::size_t>(got));
      return bytes;
    }
    if (errno != EAGAIN && errno != EINTR) return fail_errno(errno, "recv");
    if (Status status = wait_ready(socket_.get(), POLLIN, deadline); !status) return std::unexpected(status.error());
  }
}

Status TcpStream::write_all(std::string_view bytes, milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    } else if (errno == EAGAIN || errno == EINTR) {
      if (Status status = wait_ready(socket_.get(), POLLOUT, deadline); !status) return status;
    } else {
      return fail_errno(errno, "send");
    }
  }
  return {};
}

Status TcpStream::finish() {
  if (::shutdown(socket_.get(), SHUT_WR) != 0) return fail_errno(errno, "shutdown");
  return {};
}

Result<std::unique_ptr<TlsStream>> TlsStream::connect(const Address& to, const TlsOptions& options,
                                                      milliseconds timeout) {
  auto tcp = TcpStream::connect(to, timeout);
  if (!tcp) return std::unexpected(tcp.error());
  return handshake((*tcp)->take(), options, timeout);
}

Result<std::unique_ptr<TlsStream>> TlsStream::handshake(Fd socket, const TlsOptions& options, milliseconds timeout) {
  return establish(std::move(socket), options, Side::kClient, timeout);
}

Result<std::unique_ptr<TlsStream>> TlsStream::accept(Fd socket, const TlsOptions& options, milliseconds timeout) {
  return establish(std::move(socket), options, Side::kServer, timeout);
}

Result<std::string> TlsStream::read_some(milliseconds timeout) {
  std::string bytes(16384, '\0');
  const Result<int> got = perform(session_.get(), socket_.get(), timeout, "SSL_read", [&] {
    return ::SSL_read(session_.get(), bytes.data(), static_cast<int>(bytes.size()));
  });
  if (!got) return std::unexpected(got.error());
  bytes.resize(static_cast<std::size_t>(*got));
  return bytes;
}

Status TlsStream::write_all(std::string_view bytes, milliseconds timeout) {
  constexpr std::size_t kMostAtOnce = 1u << 20;
  while (!bytes.empty()) {
    const auto part = bytes.substr(0, kMostAtOnce);
    const Result<int> sent = perform(session_.get(), socket_.get(), timeout, "SSL_write", [&] {
      return ::SSL_write(session_.get(), part.data(), static_cast<int>(part.size()));
    });
    if (!sent) return std::unexpected(sent.error());
    if (*sent == 0) return fail("SSL_write: the peer has closed");
    bytes.remove_prefix(static_cast<std::size_t>(*sent));
  }
  return {};
}

Status TlsStream::finish() {
  ::ERR_clear_error();
  if (::SSL_shutdown(session_.get()) < 0) return tls_failure("SSL_shutdown");
  return {};
}

std::string TlsStream::version() const { return ::SSL_get_version(session_.get()); }
std::string TlsStream::cipher() const { return SSL_get_cipher_name(session_.get()); }

std::string TlsStream::peer_common_name() const {
  const X509* certificate = ::SSL_get0_peer_certificate(session_.get());
  if (certificate == nullptr) return {};
  char name[256] = "";
  ::X509_NAME_get_text_by_NID(::X509_get_subject_name(certificate), NID_commonName, name, sizeof name);
  return name;
}

Status TlsStream::key_update(int kind) {
  ::ERR_clear_error();
  if (::SSL_key_update(session_.get(), kind) != 1) return tls_failure("SSL_key_update");
  return {};
}

Result<TcpListener> TcpListener::bind(const Address& address) {
  Fd socket(::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return fail_errno(errno, "socket");
  const int on = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(socket.get(), address.data(), address.size()) != 0) return fail_errno(errno, "bind " + address.text());
  if (::listen(socket.get(), 128) != 0) return fail_errno(errno, "listen");
  const Address bound = name_of(socket.get(), ::getsockname);
  return TcpListener(std::move(socket), bound);
}

Result<Fd> TcpListener::accept(milliseconds timeout) const {
  const auto deadline = Clock::now() + timeout;
  for (;;) {  // ends with the deadline
    Fd socket(::accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket.valid()) {
      set_nodelay(socket.get());
      return socket;
    }
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) return fail_errno(errno, "accept");
    if (Status status = wait_ready(socket_.get(), POLLIN, deadline); !status) return std::unexpected(status.error());
  }
}

namespace {

// The process's number in the last 22 bits: two processes of one run never share an address.
std::string own_ip() {
  const auto number = static_cast<unsigned>(::getpid());
  return fmt::format("127.{}.{}.{}", 64 + (number >> 16) % 64, (number >> 8) % 256, number % 256);
}

bool can_bind(const std::string& ip, std::uint16_t port) {
  const Result<Address> address = Address::from_ip(ip, port);
  const Fd socket(::socket(address->family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return address->family() == AF_INET6;  // a kernel without IPv6: nobody listens there
  const int on = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (address->family() == AF_INET6) ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  return ::bind(socket.get(), address->data(), address->size()) == 0 && ::listen(socket.get(), 1) == 0;
}

}  // namespace

Address free_address() {
  const std::string ip = own_ip();
  constexpr int kTries = 100;
  for (int i = 0; i < kTries; ++i) {
    const Fd tcp(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const Fd udp(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const Result<Address> any = Address::from_ip(ip, 0);
    if (!any || ::bind(tcp.get(), any->data(), any->size()) != 0) continue;
    const Address bound = name_of(tcp.get(), ::getsockname);
    if (::bind(udp.get(), bound.data(), bound.size()) == 0) return bound;
  }
  throw std::runtime_error("no free port at " + ip);
}

Address free_address_for_any() {
  // Below ip_local_port_range, from a place of this process's own on: tests run side by side.
  constexpr unsigned kFirst = 20'000;
  constexpr unsigned kCount = 12'000;
  static auto place = static_cast<unsigned>(::getpid()) * 16;
  for (unsigned i = 0; i < kCount; ++i) {
    const auto port = static_cast<std::uint16_t>(kFirst + place++ % kCount);
    if (can_bind("0.0.0.0", port) && can_bind("::", port)) return *Address::from_ip(own_ip(), port);
  }
  throw std::runtime_error("no port is free at every address");
}

}  // namespace ktrunk::test
