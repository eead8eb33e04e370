#include "handshake/listener.h"

#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "base/log.h"
#include "handshake/tcp_socket.h"

namespace ktrunk::handshake {
namespace {

// Per turn of the loop, so that a flood of connections leaves time for those that are there.
constexpr int kAcceptsPerTurn = 64;
// After the process or the system has run out of descriptors or memory.
constexpr std::chrono::milliseconds kRest{200};
constexpr std::chrono::seconds kComplainEvery{10};

// Errors of one connection, gone before it was accepted, or of the network (accept(2)): the next may be well.
bool is_passing(int code) {
  switch (code) {
    case ECONNABORTED:
    case EINTR:
    case EPERM:
    case EPROTO:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENONET:
    case ENOPROTOOPT:
    case EOPNOTSUPP:
      return true;
    default:
      return false;
  }
}

}  // namespace

Listener::Listener(EventLoop& loop, Fd socket, std::string name, Accepted accepted, Exhausted exhausted)
    : loop_(loop),
      socket_(std::move(socket)),
      name_(std::move(name)),
      accepted_(std::move(accepted)),
      exhausted_(std::move(exhausted)) {}

Result<std::unique_ptr<Listener>> Listener::create(EventLoop& loop, Fd socket, std::string name, Accepted accepted,
                                                   Exhausted exhausted) {
  if (auto status = set_blocking(socket.get(), Blocking::kNo); !status) return std::unexpected(status.error());
  std::unique_ptr<Listener> listener(
      new Listener(loop, std::move(socket), std::move(name), std::move(accepted), std::move(exhausted)));
  auto watch = loop.watch(
      listener->socket_.get(), Interest::kRead, [self = listener.get()](Ready) { self->accept_some(); },
      EventLoop::Wakes::kOne);
  if (!watch) return std::unexpected(watch.error());
  listener->watch_ = std::move(*watch);
  return listener;
}

void Listener::pause() {
  paused_ = true;
  watch_.set(Interest::kNothing);
}

void Listener::resume() {
  paused_ = false;
  if (!retry_.pending()) watch_.set(Interest::kRead);
}

void Listener::accept_some() {
  const std::weak_ptr<int> alive = alive_;
  for (int i = 0; i < kAcceptsPerTurn && !alive.expired() && !paused_; ++i) {
    sockaddr_storage storage = {};
    socklen_t length = sizeof storage;
    Fd socket(::accept4(socket_.get(), reinterpret_cast<sockaddr*>(&storage), &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket.valid()) {
      accepted_(std::move(socket), Address::from_sockaddr(reinterpret_cast<const sockaddr*>(&storage), length));
      continue;
    }
    const int code = errno;
    if (code == EAGAIN || code == EWOULDBLOCK) return;  // or another process was faster
    if (is_passing(code)) continue;
    if (exhausted_ && exhausted_() == Room::kMade) continue;
    return rest(code);
  }
}

void Listener::rest(int code) {
  const Clock::time_point now = Clock::now();
  if (last_complaint_ == Clock::time_point{} || now - last_complaint_ >= kComplainEvery) {
    last_complaint_ = now;
    const char* remedy = code == EMFILE   ? "; raise the limit on open files (LimitNOFILE in the systemd unit)"
                         : code == ENFILE ? "; raise fs.file-max"
                                          : "";
    log::error("{}: accept: {}{}; new connections wait", name_, errno_text(code), remedy);
  }
  watch_.set(Interest::kNothing);
  retry_ = loop_.after(kRest, [this] {
    if (!paused_) watch_.set(Interest::kRead);
  });
}

}  // namespace ktrunk::handshake
