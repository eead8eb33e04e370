// handoff: a program with TLS connections and without a TLS library: it hands its TCP sockets to a handshake service
// and gets TLS connections back (src/handoff/wire.h). The private key never comes near it.
//
//   ktrunkd-handshake --serve SOCKET FILE &        the service; FILE has the [[listen]] and [[trunk]] tables
//   handoff accept SOCKET LISTEN IP:PORT           a TLS server: echoes what comes
//   handoff connect SOCKET TRUNK HOST IP:PORT      a TLS client: standard input to HOST, what HOST says to standard
//   output
//
// With --relay as the first argument connections that the kernel cannot take are made all the same, by the service.
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/address.h"
#include "base/fd.h"
#include "handoff/client.h"
#include "ktls/control_record.h"
#include "ktls/crypto_info.h"

using namespace ktrunk;

namespace {

constexpr std::chrono::seconds kPatience{30};

int complain(const std::string& what) { return std::fprintf(stderr, "handoff: %s\n", what.c_str()), EXIT_FAILURE; }

// What the service said of a connection, or why there is none.
void report(const handoff::Answer& answer) {
  const std::string what(answer.what.view());
  if (answer.outcome == handoff::Outcome::kFailed) return void(std::fprintf(stderr, "failed: %s\n", what.c_str()));
  const bool kernel = answer.record_layer == handoff::RecordLayer::kKernel;
  std::fprintf(stderr, "ready: TLS 1.%c, %s, %s%s\n", answer.version == handoff::Version::kTls13 ? '3' : '2',
               std::string(answer.cipher.view()).c_str(), kernel ? "in the kernel" : "relayed: ", what.c_str());
  if (!answer.alpn.view().empty()) std::fprintf(stderr, "protocol: %s\n", std::string(answer.alpn.view()).c_str());
  if (answer.names_total > 0) std::fprintf(stderr, "peer: %s\n", std::string(answer.names[0].view()).c_str());
}

// One record's data; false at the end of the connection. The same call serves the kernel's TLS sockets and relays.
bool receive(const Fd& connection, std::string& data) {
  data.resize(ktls::kMaxRecordBytes);
  alignas(cmsghdr) std::array<std::byte, ktls::kControlBytes> control;
  iovec part{data.data(), data.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t got = ::recvmsg(connection.get(), &message, 0);
  if (got <= 0) return false;
  data.resize(static_cast<std::size_t>(got));
  const auto type = ktls::record_type(std::span(control).first(message.msg_controllen), message.msg_flags);
  if (type && *type == ktls::RecordType::kApplicationData) return true;
  // A server's session tickets come as records too; this program does not resume sessions, and reads on. What else
  // there is ends the connection: close_notify or another alert; a KeyUpdate, as no keys are kept (Request::keys).
  const bool ticket = type && *type == ktls::RecordType::kHandshake &&
                      ktls::handshake_type(std::as_bytes(std::span(data))) == ktls::HandshakeType::kNewSessionTicket;
  data.clear();
  return ticket;
}

// At most 16384 octets a send: one record on either kind of connection.
bool send_all(const Fd& connection, std::string_view data) {
  while (!data.empty()) {
    const ssize_t sent =
        ::send(connection.get(), data.data(), std::min(data.size(), ktls::kMaxRecordBytes), MSG_NOSIGNAL);
    if (sent < 0) return false;
    data.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

// A relay says close_notify when its descriptor closes; in the kernel's case it is ours to say.
void close_in_order(Fd connection) {
  const ktls::AlertMessage close_notify(ktls::kCloseNotify);
  (void)::sendmsg(connection.get(), close_notify.header(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

int accept(handoff::Client& service, handoff::Relay relay, const char* context, const Address& address) {
  const Fd listening(::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int yes = 1;
  ::setsockopt(listening.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (::bind(listening.get(), address.data(), address.size()) != 0 || ::listen(listening.get(), 64) != 0)
    return complain(fmt::format("{}: {}", address.text(), errno_text(errno)));
  std::fprintf(stderr, "listening on %s\n", address.text().c_str());

  Fd waiting;  // a socket that the service was too busy for
  for (std::uint64_t number = 1;;) {
    pollfd wait[2] = {{service.fd(), POLLIN, 0}, {waiting.valid() ? -1 : listening.get(), POLLIN, 0}};
    if (::poll(wait, 2, waiting.valid() ? 10 : -1) < 0) continue;
    if ((wait[1].revents & POLLIN) != 0) waiting = Fd(::accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (waiting.valid()) {
      // Any number of handshakes at once: the answers come when they come.
      const auto sent =
          service.send({.number = number, .role = handoff::Role::kAccept, .relay = relay, .context = context}, waiting);
      if (!sent) return complain(sent.error().what);
      if (*sent == PacketSent::kSent) ++number;
    }
    auto reply = service.receive();
    if (!reply) return complain(reply.error().what);
    if (!*reply) continue;
    report((*reply)->answer);
    if (!(*reply)->connection.valid() || ::fork() != 0) continue;
    for (std::string data; receive((*reply)->connection, data) && send_all((*reply)->connection, data);) {
    }
    close_in_order(std::move((*reply)->connection));
    ::_exit(EXIT_SUCCESS);
  }
}

int connect(handoff::Client& service, handoff::Relay relay, const char* context, const char* host,
            const Address& address) {
  Fd socket(::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(socket.get(), address.data(), address.size()) != 0)
    return complain(fmt::format("{}: {}", address.text(), errno_text(errno)));
  auto reply =
      service.secure({.number = 1, .role = handoff::Role::kConnect, .relay = relay, .context = context, .host = host},
                     std::move(socket), kPatience);
  if (!reply) return complain(reply.error().what);
  report(reply->answer);
  if (!reply->connection.valid()) return EXIT_FAILURE;

  pollfd wait[2] = {{STDIN_FILENO, POLLIN, 0}, {reply->connection.get(), POLLIN, 0}};
  while (::poll(wait, 2, -1) > 0) {
    std::array<char, ktls::kMaxRecordBytes> line;
    if (wait[0].revents != 0) {
      const ssize_t got = ::read(STDIN_FILENO, line.data(), line.size());
      if (got <= 0 || !send_all(reply->connection, {line.data(), static_cast<std::size_t>(got)})) break;
    }
    if (wait[1].revents != 0) {
      std::string data;
      if (!receive(reply->connection, data) || ::write(STDOUT_FILENO, data.data(), data.size()) < 0) break;
    }
  }
  close_in_order(std::move(reply->connection));
  return EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<const char*> arguments(argv + 1, argv + argc);
  handoff::Relay relay = handoff::Relay::kRefused;
  if (!arguments.empty() && std::string_view(arguments[0]) == "--relay") {
    relay = handoff::Relay::kAllowed;
    arguments.erase(arguments.begin());
  }
  const bool accepts = arguments.size() == 4 && std::string_view(arguments[0]) == "accept";
  if (!accepts && (arguments.size() != 5 || std::string_view(arguments[0]) != "connect"))
    return complain("usage: handoff [--relay] accept SOCKET LISTEN IP:PORT | connect SOCKET TRUNK HOST IP:PORT");
  const auto address = Address::parse(arguments.back());
  if (!address) return complain(address.error().what);
  std::signal(SIGCHLD, SIG_IGN);  // children are reaped by themselves
  auto service = handoff::Client::connect(arguments[1]);
  if (!service) return complain(service.error().what);
  return accepts ? accept(*service, relay, arguments[2], *address)
                 : connect(*service, relay, arguments[2], arguments[3], *address);
}
