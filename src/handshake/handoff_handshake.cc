#include "handshake/handoff_handshake.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <utility>
#include <vector>

#include "handshake/tcp_socket.h"

namespace ktrunk::handshake {
namespace {

int option(int fd, int name) {
  int value = -1;
  socklen_t length = sizeof value;
  return ::getsockopt(fd, SOL_SOCKET, name, &value, &length) == 0 ? value : -1;
}

Status check_socket(int fd) {
  const int domain = option(fd, SO_DOMAIN);
  if ((domain != AF_INET && domain != AF_INET6) || option(fd, SO_PROTOCOL) != IPPROTO_TCP)
    return fail("the descriptor is not a TCP socket");
  sockaddr_storage peer{};
  socklen_t length = sizeof peer;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) != 0)
    return fail_errno(errno, "the TCP socket is not connected");
  return {};
}

handoff::AlertSeen seen(const std::optional<ktls::Alert>& alert) {
  if (!alert) return {};
  return {.seen = handoff::AlertSeen::Seen::kYes, .description = static_cast<std::uint8_t>(alert->description)};
}

void put_names(const PeerIdentity& peer, handoff::Answer& answer) {
  std::vector<std::string> names;
  for (const std::string& name : peer.sip_domains) names.push_back("sip:" + name);
  for (const std::string& name : peer.dns_names) names.push_back("dns:" + name);
  for (const std::string& name : peer.addresses) names.push_back("ip:" + name);
  if (!peer.common_name.empty()) names.push_back("cn:" + peer.common_name);
  answer.names_total = static_cast<std::uint16_t>(std::min<std::size_t>(names.size(), UINT16_MAX));
  for (std::size_t i = 0; i < std::min(names.size(), handoff::kMaxNames); ++i)
    answer.names[i] = Text<sizeof answer.names[i]>(names[i]);
}

handoff::Answer agreed(const handoff::Request& request, const Negotiated& negotiated) {
  handoff::Answer answer;
  answer.number = request.number;
  answer.outcome = handoff::Outcome::kDone;
  answer.version = negotiated.version == ktls::Version::kTls13 ? handoff::Version::kTls13 : handoff::Version::kTls12;
  answer.session = negotiated.resumed ? handoff::Session::kResumed : handoff::Session::kFull;
  answer.cipher = Text<sizeof answer.cipher>(negotiated.cipher);
  answer.alpn = Text<sizeof answer.alpn>(negotiated.alpn);
  if (negotiated.peer) put_names(*negotiated.peer, answer);
  return answer;
}

}  // namespace

handoff::Answer refusal(const handoff::Request& request, std::string_view why) {
  handoff::Answer answer;
  answer.number = request.number;
  answer.outcome = handoff::Outcome::kFailed;
  answer.what = Text<sizeof answer.what>(why);
  return answer;
}

HandoffHandshake::HandoffHandshake(const HandoffSettings& settings, const handoff::Request& request, TlsSession session,
                                   Done done)
    : settings_(settings), request_(request), session_(std::move(session)), done_(std::move(done)) {}

Result<std::unique_ptr<HandoffHandshake>> HandoffHandshake::begin(const HandoffSettings& settings,
                                                                  const TlsContext& context,
                                                                  const handoff::Request& request, Fd socket,
                                                                  Done done) {
  if (auto status = check_socket(socket.get()); !status) return std::unexpected(std::move(status.error()));
  if (auto status = set_blocking(socket.get(), Blocking::kNo); !status)
    return std::unexpected(std::move(status.error()));
  set_connection_options(socket.get(), settings.stalled_peer);
  const bool accepting = request.role == handoff::Role::kAccept;
  auto session = accepting ? TlsSession::accept(context, std::move(socket))
                           : TlsSession::connect(context, std::move(socket), request.host.view());
  if (!session) return std::unexpected(std::move(session.error()));
  std::unique_ptr<HandoffHandshake> made(new HandoffHandshake(settings, request, std::move(*session), std::move(done)));
  HandoffHandshake* self = made.get();
  // A client speaks first: as soon as the socket takes anything.
  auto watch = settings.loop.watch(self->session_.fd(), accepting ? Interest::kRead : Interest::kWrite,
                                   [self](Ready) { self->step(); });
  if (!watch) return std::unexpected(std::move(watch.error()));
  self->watch_ = std::move(*watch);
  self->deadline_ = settings.loop.after(settings.limit, [self] {
    self->give_up("not done in time: the peer is slow or does not speak TLS (limits.handshake)");
  });
  return made;
}

void HandoffHandshake::step() {
  switch (session_.step()) {
    case TlsSession::Step::kWantRead:
      return watch_.set(Interest::kRead);
    case TlsSession::Step::kWantWrite:
      return watch_.set(Interest::kWrite);
    case TlsSession::Step::kFailed:
      return give_up(session_.failure().error.what);
    case TlsSession::Step::kDone:
      return secured();
  }
}

void HandoffHandshake::secured() {
  watch_.reset();
  HandedBack result;
  result.answer = agreed(request_, session_.negotiated());
  auto choice = choose_record_layer(settings_.record_layer, session_);
  if (!choice) {
    (void)session_.shutdown();
    return give_up(choice.error().what);
  }
  if (choice->kernel) {
    result.answer.record_layer = handoff::RecordLayer::kKernel;
    if (auto status = set_blocking(choice->kernel->socket.get(), Blocking::kYes); !status)
      return give_up(status.error().what);
    result.kernel = std::move(*choice->kernel);
    return finish(std::move(result));
  }
  if (request_.relay == handoff::Relay::kRefused) {
    (void)session_.shutdown();
    return give_up(
        fmt::format("the kernel cannot take the connection, and the request allows no relay: {}", choice->note));
  }
  result.answer.record_layer = handoff::RecordLayer::kRelay;
  result.answer.what = Text<sizeof result.answer.what>(choice->note);
  result.relay = std::move(session_);
  finish(std::move(result));
}

void HandoffHandshake::give_up(const std::string& why) {
  HandedBack result;
  result.answer = refusal(request_, why);
  const HandshakeFailure& failure = session_.failure();
  result.answer.sent = seen(failure.sent);
  result.answer.received = seen(failure.received);
  // The alert that says why must reach the peer.
  watch_.reset();
  if (session_.fd() >= 0) settings_.closing.add_copy_of(session_.fd());
  finish(std::move(result));
}

void HandoffHandshake::finish(HandedBack result) {
  watch_.reset();
  deadline_.reset();
  const Done done = std::move(done_);
  done(std::move(result));  // `this` may be gone from here on
}

}  // namespace ktrunk::handshake
