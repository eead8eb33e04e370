// ktls-echo: a TLS echo server with several processes writing to one TLS connection, and no lock between them.
//
//   ktls-echo CERTIFICATE KEY IP:PORT [CHILDREN]
//   openssl s_client -connect IP:PORT -quiet            each line comes back as "[CHILD] line"
//
// OpenSSL makes the handshake (ktrunk::handshake); then the kernel gets the keys and OpenSSL is done. From there on the
// connection is a plain descriptor: children forked afterwards just send to it. What makes that safe is one fact: a
// send of at most 16384 octets to a kernel TLS socket becomes one record, all of it or nothing, and is never mixed with
// another process's.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/address.h"
#include "base/fd.h"
#include "base/result.h"
#include "handshake/tcp_socket.h"
#include "handshake/tls_context.h"
#include "handshake/tls_session.h"
#include "ktls/control_record.h"
#include "ktls/crypto_info.h"

using namespace ktrunk;

namespace {

constexpr int kHandshakeLimit = 10'000;                       // milliseconds, for each wait
constexpr std::size_t kMaxLine = ktls::kMaxRecordBytes - 16;  // with its prefix it must fit into one record

// The handshake never blocks: it says what it waits for, and the caller waits in its own way. Here: poll.
Result<Fd> handshake(const handshake::TlsContext& context, Fd socket) {
  using Step = handshake::TlsSession::Step;
  auto session = handshake::TlsSession::accept(context, std::move(socket));
  if (!session) return std::unexpected(session.error());
  for (Step step = session->step(); step != Step::kDone; step = session->step()) {
    if (step == Step::kFailed) return std::unexpected(session->failure().error);
    pollfd wait{session->fd(), static_cast<short>(step == Step::kWantRead ? POLLIN : POLLOUT), 0};
    if (::poll(&wait, 1, kHandshakeLimit) <= 0) return fail("the handshake was not done in time");
  }
  // The irreversible step: the keys go to the kernel, and OpenSSL's part is gone.
  auto kernel = session->into_kernel();
  if (!kernel) return std::unexpected(kernel.error().error);
  std::printf("%s, %s, in the kernel\n", ktls::version_name(kernel->socket.version()).data(),
              session->negotiated().cipher.c_str());
  if (auto status = handshake::set_blocking(kernel->socket.get(), handshake::Blocking::kYes); !status)
    return std::unexpected(status.error());
  return std::move(kernel->socket).release();
}

// A child: takes lines and echoes them. Never a blocking send: it would hold the kernel's lock on the connection for as
// long as the peer does not read, and the other children would hang even if they only wanted to try.
void echo(int lines, int connection, unsigned child) {
  std::string line(kMaxLine, '\0');
  for (ssize_t got = 0; (got = ::recv(lines, line.data(), line.size(), 0)) > 0;) {
    const std::string reply =
        fmt::format("[{}] {}", child, std::string_view(line).substr(0, static_cast<std::size_t>(got)));
    while (::send(connection, reply.data(), reply.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
      pollfd wait{connection, POLLOUT, 0};
      if ((errno != EAGAIN && errno != EINTR) || ::poll(&wait, 1, -1) < 0) ::_exit(1);
    }
  }
  ::_exit(0);  // the parent has no more lines
}

// One record: data goes to the end of `data`. False: the connection has ended, for the reason that is printed.
bool receive(int connection, std::string& data) {
  std::array<char, ktls::kMaxRecordBytes> octets;
  alignas(cmsghdr) std::array<std::byte, ktls::kControlBytes> control;
  iovec part{octets.data(), octets.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t got = ::recvmsg(connection, &message, 0);
  if (got < 0 && errno == EINTR) return true;
  if (got <= 0) return std::puts(got == 0 ? "ended without close_notify" : errno_text(errno).c_str()), false;
  // A record that is no data comes with its type; a plain recv would fail with EIO, again and again.
  const auto payload = std::span(octets).first(static_cast<std::size_t>(got));
  const auto type = ktls::record_type(std::span(control).first(message.msg_controllen), message.msg_flags);
  if (type && *type == ktls::RecordType::kApplicationData) return data.append(payload.data(), payload.size()), true;
  const auto alert = ktls::parse_alert(std::as_bytes(payload));
  const bool is_alert = type && *type == ktls::RecordType::kAlert && alert;
  std::puts(is_alert ? ktls::alert_name(alert->description).data() : "a record that this example does not serve");
  return false;
}

// A process of its own: one connection and its children.
void serve(const handshake::TlsContext& context, Fd socket, unsigned children) {
  const auto connection = handshake(context, std::move(socket));
  if (!connection) return void(std::printf("%s\n", connection.error().what.c_str()));

  std::vector<Fd> to_child;  // one message, one line
  for (unsigned i = 0; i < children; ++i) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return std::perror("socketpair");
    const Fd childs_end(ends[1]);
    to_child.emplace_back(ends[0]);
    if (::fork() != 0) continue;
    to_child.clear();  // else no child would ever see the end of its lines
    echo(childs_end.get(), connection->get(), i);
  }

  std::string data;
  std::size_t next = 0;
  while (receive(connection->get(), data)) {
    for (std::size_t end = 0; (end = data.find('\n')) != std::string::npos; data.erase(0, end + 1)) {
      if (::send(to_child[next++ % children].get(), data.data(), end + 1, MSG_NOSIGNAL) < 0)
        return std::perror("child");
    }
    if (data.size() > kMaxLine) {  // what is left has no end yet
      std::puts("a line is too long");
      break;
    }
  }
  to_child.clear();  // the children echo what they still have ...
  while (::wait(nullptr) > 0) {
  }  // ... and end; then nobody sends after our last record
  const ktls::AlertMessage close_notify(ktls::kCloseNotify);
  (void)::sendmsg(connection->get(), close_notify.header(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

int complain(const std::string& what) { return std::fprintf(stderr, "ktls-echo: %s\n", what.c_str()), EXIT_FAILURE; }

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return complain("usage: ktls-echo CERTIFICATE KEY IP:PORT [CHILDREN]");
  const unsigned children = argc > 4 ? static_cast<unsigned>(std::max(1, std::atoi(argv[4]))) : 4;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  std::signal(SIGCHLD, SIG_IGN);  // children are reaped by themselves

  config::Listener listener;  // what a [[listen]] table says, without the table
  listener.name = "echo";
  listener.tls.certificate = argv[1];
  listener.tls.key = argv[2];
  const auto context = handshake::TlsContext::for_listener(listener);
  if (!context) return complain(context.error().what);
  const auto address = Address::parse(argv[3]);
  if (!address) return complain(address.error().what);

  const Fd listening(::socket(address->family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int yes = 1;
  ::setsockopt(listening.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (::bind(listening.get(), address->data(), address->size()) != 0 || ::listen(listening.get(), 64) != 0)
    return complain(fmt::format("{}: {}", argv[3], errno_text(errno)));
  std::printf("listening on %s\n", address->text().c_str());
  while (true) {
    Fd socket(::accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket.valid() || ::fork() != 0) continue;  // the parent's copy closes itself
    serve(*context, std::move(socket), children);
    return EXIT_SUCCESS;
  }
}
