#include "handshake/handshake.h"

#include <utility>

#include "base/log.h"
#include "handshake/identity.h"
#include "handshake/tcp_socket.h"

namespace ktrunk::handshake {
namespace {

ipc::TlsVersion tls_version(ktls::Version version) {
  return version == ktls::Version::kTls13 ? ipc::TlsVersion::kTls13 : ipc::TlsVersion::kTls12;
}

std::string_view direction(ConnectionRole role) { return role == ConnectionRole::kAccepted ? "from" : "to"; }

// What an operator can do about a connect that failed.
std::string_view connect_remedy(int code) {
  switch (code) {
    case ECONNREFUSED:
      return "; nothing listens there: is the peer up, and the port right?";
    case ENETUNREACH:
    case EHOSTUNREACH:
      return "; no route: look at the address and the routing table";
    case ETIMEDOUT:
      return "; no answer: a firewall on the way, or the host is down";
    case EADDRNOTAVAIL:
      return "; out of local ports or addresses";
    default:
      return "";
  }
}

// The session says whose it is and what it was doing; the log line says that with the peer's address.
std::string_view bare_reason(std::string_view what, std::string_view owner) {
  constexpr std::string_view kDoing = ": TLS handshake failed: ";
  if (what.starts_with(owner) && what.substr(owner.size()).starts_with(kDoing))
    what.remove_prefix(owner.size() + kDoing.size());
  return what;
}

}  // namespace

Handshake::Handshake(const HandshakeSettings& settings, Origin origin, const TlsContext* context, Done done)
    : settings_(settings), origin_(std::move(origin)), context_(context), done_(std::move(done)) {
  settings.stats.in_progress.add();
  set_deadline(Clock::now() + settings.config.limits.handshake);
}

Handshake::~Handshake() { settings_.stats.in_progress.subtract(); }

Result<std::unique_ptr<Handshake>> Handshake::accept(const HandshakeSettings& settings, Origin origin,
                                                     const TlsContext* context, Fd socket, Done done) {
  set_connection_options(socket.get(), settings.config.limits.stalled_peer);
  std::unique_ptr<Handshake> made(new Handshake(settings, std::move(origin), context, std::move(done)));
  Handshake* self = made.get();
  if (context == nullptr) {
    made->socket_ = std::move(socket);
    made->start_ = settings.loop.after({}, [self] { self->secured(); });
    return made;
  }
  auto session = TlsSession::accept(*context, std::move(socket));
  if (!session) return std::unexpected(std::move(session.error()));
  made->session_ = std::move(*session);
  if (auto status = made->watch(made->session_->fd(), Interest::kRead); !status)
    return std::unexpected(std::move(status.error()));
  return made;
}

Result<std::unique_ptr<Handshake>> Handshake::connect(const HandshakeSettings& settings, Origin origin,
                                                      const TlsContext* context, Resumption resumption, Done done) {
  auto socket = start_connect(origin.peer, settings.config.limits.stalled_peer);
  if (!socket) {
    settings.stats.failed.add();
    log::warn("{}: cannot connect to {} ({}): {}{}", origin.owner, origin.host, origin.peer.text(), socket.error().what,
              connect_remedy(socket.error().code));
    return std::unexpected(std::move(socket.error()));
  }
  std::unique_ptr<Handshake> made(new Handshake(settings, std::move(origin), context, std::move(done)));
  made->socket_ = std::move(*socket);
  made->resumption_ = std::move(resumption);
  made->stage_ = Stage::kConnecting;
  if (auto status = made->watch(made->socket_.get(), Interest::kWrite); !status)
    return std::unexpected(std::move(status.error()));
  return made;
}

Status Handshake::watch(int fd, Interest interest) {
  auto watch = settings_.loop.watch(fd, interest, [this](Ready) { proceed(); });
  if (!watch) return std::unexpected(std::move(watch.error()));
  watch_ = std::move(*watch);
  return {};
}

void Handshake::set_deadline(Clock::time_point deadline) {
  deadline_ = deadline;
  deadline_timer_ = settings_.loop.after(deadline - Clock::now(), [this] {
    give_up({stage_ == Stage::kConnecting
                 ? "no answer in time; a firewall on the way, or the host is down (limits.handshake)"
                 : "not done in time: the peer is slow or does not speak TLS (limits.handshake)",
             ETIMEDOUT});
  });
}

void Handshake::hurry(Clock::duration time) {
  if (const auto sooner = Clock::now() + time; sooner < deadline_) set_deadline(sooner);
}

void Handshake::proceed() {
  if (stage_ == Stage::kConnecting) return connected();
  if (stage_ == Stage::kHandshaking) return step();
}

void Handshake::connected() {
  if (const int code = connect_result(socket_.get()); code != 0)
    return give_up({fmt::format("{}{}", errno_text(code), connect_remedy(code)), code});
  stage_ = Stage::kHandshaking;
  if (context_ == nullptr) return secured();
  // Another descriptor's number is watched from here on only if the session moves it; it keeps the socket's.
  auto session = TlsSession::connect(*context_, std::move(socket_), origin_.host, std::move(resumption_));
  if (!session) {
    watch_.reset();
    return give_up(std::move(session.error()));
  }
  session_ = std::move(*session);
  step();
}

void Handshake::step() {
  switch (session_->step()) {
    case TlsSession::Step::kWantRead:
      return watch_.set(Interest::kRead);
    case TlsSession::Step::kWantWrite:
      return watch_.set(Interest::kWrite);
    case TlsSession::Step::kFailed:
      return give_up(session_->failure().error);
    case TlsSession::Step::kDone:
      return secured();
  }
}

void Handshake::identify_peer(const PeerIdentity* identity, ipc::ConnectionInfo& info) const {
  const config::Config& config = settings_.config;
  const Identified who =
      identify(config, settings_.addresses, {.identity = identity, .address = info.peer, .listener = info.listener});
  info.trunk = who.trunk;
  if (who.elsewhere.valid())
    log::warn("{}: {} shows the certificate of trunk '{}', which does not take it from there (sources, accept_on)",
              origin_.owner, info.peer.text(), config.trunks[who.elsewhere.value].name);
  // An address is no identity that would let us send our own requests that way (RFC 5923 7); where we never connect
  // there is no other way.
  if (who.trunk.valid() && config.trunks[who.trunk.value].known_by == config::KnownBy::kAddress &&
      !config.trunks[who.trunk.value].targets.empty())
    info.use = ipc::ConnectionInfo::Use::kTheirs;
}

void Handshake::secured() {
  const int fd = session_ ? session_->fd() : socket_.get();
  Secured result;
  ipc::ConnectionInfo& info = result.info;
  info.transport = origin_.transport;
  info.role = origin_.role;
  info.trunk = origin_.trunk;
  info.listener = origin_.listener;
  info.peer = origin_.peer;
  info.others = origin_.others;
  info.local = local_address(fd);
  if (info.local.empty()) return give_up({"the connection broke in the moment it was ready", ENOTCONN});
  watch_.reset();
  if (!session_) {
    if (origin_.role == ConnectionRole::kAccepted) identify_peer(nullptr, info);
    result.descriptor = std::move(socket_);
  } else {
    const Negotiated& agreed = session_->negotiated();
    info.tls_version = tls_version(agreed.version);
    info.cipher = ipc::Text<40>(agreed.cipher);
    if (origin_.role == ConnectionRole::kAccepted) identify_peer(agreed.peer ? &*agreed.peer : nullptr, info);
    if (agreed.resumed) settings_.stats.resumed.add();
    if (origin_.role == ConnectionRole::kConnected) result.resumption = session_->resumption();

    if (session_->socket_failed()) return give_up({"the peer ended the connection right after the handshake", EPIPE});
    auto choice = choose_record_layer(settings_.record_layer, *session_);
    if (!choice) {
      (void)session_->shutdown();
      return give_up(std::move(choice.error()), log::Level::kError);
    }
    if (choice->kernel) {
      info.record_layer = ipc::RecordLayerKind::kKernel;
      result.descriptor = std::move(choice->kernel->socket).release();
      const KernelSecrets& secrets =
          result.kernel.emplace(std::move(choice->kernel->secrets), std::nullopt, info.trunk, origin_.host).secrets;
      if (origin_.role == ConnectionRole::kConnected)
        result.kernel->tickets = TicketReader::create(std::move(*session_), secrets);
    } else {
      info.record_layer = ipc::RecordLayerKind::kRelay;
      info.record_layer_note = ipc::Text<120>(choice->note);
      result.session = std::move(*session_);
    }
    session_.reset();
  }
  if (result.descriptor.valid()) {
    if (auto status = set_blocking(result.descriptor.get(), Blocking::kYes); !status)
      return give_up(std::move(status.error()));
  }
  succeed(std::move(result));
}

void Handshake::succeed(Secured secured) {
  const ipc::ConnectionInfo& info = secured.info;
  const std::string trunk = origin_.role == ConnectionRole::kAccepted && info.trunk.valid()
                                ? fmt::format(", trunk '{}'", settings_.config.trunks[info.trunk.value].name)
                                : std::string();
  if (info.transport == config::Transport::kTcp) {
    log::info("{}: TCP connection {} {}{}", origin_.owner, direction(info.role), info.peer.text(), trunk);
  } else {
    const bool relay = info.record_layer == ipc::RecordLayerKind::kRelay;
    log::info("{}: TLS connection {} {}: {} {}, {}{}{}{}", origin_.owner, direction(info.role), info.peer.text(),
              info.tls_version == ipc::TlsVersion::kTls13 ? "TLS 1.3" : "TLS 1.2", info.cipher.view(),
              relay ? "relay (" : "kernel", relay ? info.record_layer_note.view() : "", relay ? ")" : "", trunk);
  }
  finish(std::move(secured));
}

void Handshake::give_up(Error error, log::Level level) {
  settings_.stats.failed.add();
  if (stage_ == Stage::kConnecting) {
    log::log(level, "{}: cannot connect to {} ({}): {}", origin_.owner, origin_.host, origin_.peer.text(), error.what);
  } else {
    // Our own tries are few, and each counts; strangers write no more lines than the log allows.
    std::optional<std::string> end = std::string();
    if (origin_.role == ConnectionRole::kAccepted) end = settings_.failures.line(origin_.peer, Clock::now());
    if (end)
      log::log(level, "{}: handshake {} {} failed: {}{}", origin_.owner, direction(origin_.role), origin_.peer.text(),
               bare_reason(error.what, origin_.owner), *end);
  }
  // The alert that says why must reach the peer.
  watch_.reset();
  if (session_ && session_->fd() >= 0) settings_.closing.add_copy_of(session_->fd());
  finish(std::unexpected(std::move(error)));
}

void Handshake::finish(Result<Secured> result) {
  stage_ = Stage::kDone;
  deadline_timer_.reset();
  start_.reset();
  watch_.reset();
  const Done done = std::move(done_);
  done(std::move(result));  // `this` may be gone from here on
}

}  // namespace ktrunk::handshake
