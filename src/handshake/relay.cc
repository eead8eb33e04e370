#include "handshake/relay.h"

#include <array>
#include <cerrno>
#include <span>

#include "base/log.h"
#include "ipc/limits.h"

namespace ktrunk::handshake {
namespace {

// Packets per direction and turn of the loop, so that a busy relay leaves time for the others.
constexpr int kPacketsPerTurn = 16;

// Where a packet lies while it is carried; what cannot be carried at once is copied out. The process has one thread.
std::span<std::byte> scratch() {
  static std::array<std::byte, ipc::kRecordBytes> bytes;
  return bytes;
}

bool is_blocked(TlsSession::Io outcome) {
  return outcome == TlsSession::Io::kWantRead || outcome == TlsSession::Io::kWantWrite;
}

}  // namespace

Relay::Relay(EventLoop& loop, Closing& closing, TlsSession session, Fd end, std::string name,
             std::chrono::milliseconds stalled_peer, Ended ended)
    : loop_(loop),
      closing_(closing),
      session_(std::move(session)),
      end_(std::move(end)),
      name_(std::move(name)),
      stalled_peer_(stalled_peer),
      ended_(std::move(ended)) {}

Result<Relay::Made> Relay::create(EventLoop& loop, Closing& closing, TlsSession session, std::string name,
                                  std::chrono::milliseconds stalled_peer, Ended ended) {
  // Our own calls say MSG_DONTWAIT: O_NONBLOCK stays off, and with it nothing has to be changed on either end.
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return fail_errno(errno, "socketpair for a relay");
  Made made{nullptr, Fd(ends[1])};
  made.relay.reset(
      new Relay(loop, closing, std::move(session), Fd(ends[0]), std::move(name), stalled_peer, std::move(ended)));
  Relay* self = made.relay.get();
  const auto on_event = [self](Ready) { self->run(); };
  auto socket_watch = loop.watch(self->session_.fd(), Interest::kNothing, on_event);
  if (!socket_watch) return std::unexpected(std::move(socket_watch.error()));
  auto end_watch = loop.watch(self->end_.get(), Interest::kNothing, on_event);
  if (!end_watch) return std::unexpected(std::move(end_watch.error()));
  self->socket_watch_ = std::move(*socket_watch);
  self->end_watch_ = std::move(*end_watch);
  // The handshake may have left octets in the session that no descriptor will tell of.
  self->again_ = loop.after({}, [self] { self->run(); });
  return made;
}

KeyRenewal Relay::renew(ipc::Renew::Which which) {
  if (session_.negotiated().version != ktls::Version::kTls13) return KeyRenewal::kCannot;
  if (workers_done_) return KeyRenewal::kBegun;  // it ends before it needs them
  if (which == ipc::Renew::Which::kReceive) {
    update_ = KeyUpdateRequest::kRequested;
  } else if (!update_) {
    update_ = KeyUpdateRequest::kNotRequested;
  }
  again_ = loop_.after({}, [this] { run(); });
  return KeyRenewal::kBegun;
}

void Relay::close() {
  workers_done_ = true;
  down_ = {};
  again_ = loop_.after({}, [this] { run(); });
}

void Relay::run() {
  again_.reset();
  bool sent = false;
  int round = 0;
  for (; round < kPacketsPerTurn; ++round) {
    const Progress up = carry_up();
    if (up == Progress::kOver) return;
    const Progress down = carry_down();
    if (down == Progress::kOver) return;
    sent = sent || up == Progress::kSome;
    if (up == Progress::kBlocked && down == Progress::kBlocked) break;
  }
  if (round == kPacketsPerTurn) again_ = loop_.after({}, [this] { run(); });
  mind_the_stall(sent);
  watch_what_is_wanted();
}

Relay::Progress Relay::carry_up() {
  up_wants_ = Interest::kNothing;
  std::span<const std::byte> packet = up_;
  if (packet.empty()) {
    if (update_) return say_key_update();
    if (workers_done_) return say_close_notify();
    ssize_t got = 0;
    // ECONNRESET says once that an end was closed with packets unread; what was sent before is still to be had.
    for (int attempt = 0; attempt < 4; ++attempt) {
      got = ::recv(end_.get(), scratch().data(), scratch().size(), MSG_DONTWAIT | MSG_TRUNC);
      if (got >= 0 || (errno != EINTR && errno != ECONNRESET)) break;
    }
    if (got < 0) return errno == EAGAIN ? Progress::kBlocked : broken(errno_text(errno));
    if (got == 0) {
      workers_done_ = true;
      return Progress::kSome;
    }
    const auto bytes = static_cast<std::size_t>(got);
    if (bytes > scratch().size()) return broken(fmt::format("a worker sent a packet of {} octets", bytes));
    packet = scratch().first(bytes);
  }
  const TlsSession::IoResult result = session_.write(packet);
  if (result.outcome == TlsSession::Io::kBytes) {
    up_ = {};
    return Progress::kSome;
  }
  if (is_blocked(result.outcome) && up_.empty()) up_.assign(packet.begin(), packet.end());
  return not_sent(result.outcome);
}

Relay::Progress Relay::say_key_update() {
  const TlsSession::Io outcome = session_.update_keys(*update_).outcome;
  if (outcome != TlsSession::Io::kBytes) return not_sent(outcome);
  update_.reset();
  return Progress::kSome;
}

Relay::Progress Relay::say_close_notify() {
  const TlsSession::Io outcome = session_.shutdown().outcome;
  if (is_blocked(outcome)) return not_sent(outcome);
  return over({End::How::kInOrder, session_.resumption()});  // said, or nobody is there to hear it
}

// What the session could not send it sends when the socket lets it, or never.
Relay::Progress Relay::not_sent(TlsSession::Io why) {
  if (is_blocked(why)) {
    up_wants_ = why == TlsSession::Io::kWantRead ? Interest::kRead : Interest::kWrite;
    return Progress::kBlocked;
  }
  return broken(why == TlsSession::Io::kFailed ? session_.io_error().what
                                               : "the peer ended the stream while it was sent to");
}

Relay::Progress Relay::carry_down() {
  down_wants_ = Interest::kNothing;
  if (workers_done_ || workers_deaf_) return Progress::kBlocked;
  if (!down_.empty()) return deliver(down_);
  if (peer_done_) {
    if (!std::exchange(down_ended_, true)) (void)::shutdown(end_.get(), SHUT_WR);
    return Progress::kBlocked;
  }
  const TlsSession::IoResult result = session_.read(scratch());
  switch (result.outcome) {
    case TlsSession::Io::kBytes:
      return deliver(scratch().first(result.bytes));
    case TlsSession::Io::kWantRead:
      down_wants_ = Interest::kRead;
      return Progress::kBlocked;
    case TlsSession::Io::kWantWrite:
      down_wants_ = Interest::kWrite;
      return Progress::kBlocked;
    case TlsSession::Io::kClosed:
      peer_done_ = true;
      return Progress::kSome;
    case TlsSession::Io::kEof:
      return broken("the peer ended the stream without close_notify");
    case TlsSession::Io::kFailed:
      break;
  }
  return broken(session_.io_error().what);
}

Relay::Progress Relay::deliver(std::span<const std::byte> packet) {
  ssize_t sent = 0;
  do {
    sent = ::send(end_.get(), packet.data(), packet.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM)) {
    if (down_.empty()) down_.assign(packet.begin(), packet.end());
    return Progress::kBlocked;
  }
  // Any other failure: the workers have closed their ends, and what they have sent before is still to be carried.
  workers_deaf_ = sent < 0;
  down_ = {};
  return workers_deaf_ ? Progress::kBlocked : Progress::kSome;
}

void Relay::mind_the_stall(bool sent) {
  const bool waiting = !up_.empty() || update_.has_value() || workers_done_;
  if (!waiting || sent) stall_.reset();
  if (waiting && !stall_.pending()) {
    stall_ = loop_.after(stalled_peer_, [this] {
      (void)broken(fmt::format("the peer took nothing for {} ms (limits.stalled_peer)", stalled_peer_.count()));
    });
  }
}

void Relay::watch_what_is_wanted() {
  const auto wants = [this](Interest one) { return up_wants_ == one || down_wants_ == one; };
  socket_watch_.set(interest(wants(Interest::kRead), wants(Interest::kWrite)));
  // A descriptor that has hung up and is watched for anything would wake the loop for ever: deaf workers are only read.
  end_watch_.set(interest(up_.empty() && !update_ && !workers_done_, !down_.empty()));
}

Relay::Progress Relay::broken(std::string_view why) {
  constexpr std::string_view kDoing = "TLS connection broken: ";  // the session's words, after whose it is
  if (const std::size_t at = why.find(kDoing); at != std::string_view::npos) why.remove_prefix(at + kDoing.size());
  log::warn("{}: TLS connection broken: {}", name_, why);
  return over({End::How::kBroken, {}});
}

Relay::Progress Relay::over(End end) {
  socket_watch_.reset();
  end_watch_.reset();
  again_.reset();
  stall_.reset();
  closing_.add_copy_of(session_.fd());
  const Ended ended = std::move(ended_);
  ended(std::move(end));  // `this` may be gone from here on
  return Progress::kOver;
}

}  // namespace ktrunk::handshake
