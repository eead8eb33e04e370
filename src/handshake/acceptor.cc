#include "handshake/acceptor.h"

#include <utility>

#include "base/log.h"
#include "handshake/tcp_socket.h"

namespace ktrunk::handshake {
namespace {

constexpr std::chrono::seconds kRefusalLinesEvery{10};  // by address

}  // namespace

Acceptor::Acceptor(const HandshakeSettings& settings, const ContextsInForce& contexts, const AdmissionLimits& limits,
                   Done done)
    : settings_(settings),
      contexts_(contexts),
      done_(std::move(done)),
      admission_(limits),
      refusals_(kRefusalLinesEvery) {}

std::string Acceptor::owner(ListenerId id) const {
  return fmt::format("listener '{}'", settings_.config.listeners[id.value].name);
}

void Acceptor::listen(ListenerId id, Fd socket) {
  auto made = Listener::create(
      settings_.loop, std::move(socket), owner(id),
      [this, id](Fd fd, const Address& peer) { accepted(id, std::move(fd), peer); }, [this] { return make_room(); });
  if (made) {
    listeners_.push_back(std::move(*made));
  } else {
    log::error("{} does not serve: {}", owner(id), made.error().what);
  }
}

void Acceptor::pause() {
  for (const auto& listener : listeners_) listener->pause();
}

void Acceptor::resume() {
  for (const auto& listener : listeners_) listener->resume();
}

void Acceptor::stop(Clock::duration time) {
  listeners_.clear();
  for (const auto& [key, each] : handshakes_) each.handshake->hurry(time);
}

void Acceptor::accepted(ListenerId id, Fd socket, const Address& peer) {
  const config::Listener& listener = settings_.config.listeners[id.value];
  const std::shared_ptr<const TlsContext>& context = contexts_.listener(id);
  const bool tls = listener.transport == config::Transport::kTls;
  if (tls && !context) return;  // its files are no good, as was logged: the peer learns at once that nobody is there
  const std::uint64_t key = next_key_++;
  const Clock::time_point now = Clock::now();
  const Admission::Answer answer =
      tls ? admission_.handshake(key, peer, now) : Admission::Answer{admission_.plain(peer, now), {}};
  if (answer.verdict != Admission::Verdict::kAdmitted) {
    reset_connection(std::move(socket));
    return refused(owner(id), peer, std::string(Admission::limit_of(answer.verdict)));
  }
  if (answer.give_up) give_up(*answer.give_up, "more in progress than limits.handshakes");
  auto handshake = Handshake::accept(settings_,
                                     {.role = ConnectionRole::kAccepted,
                                      .transport = listener.transport,
                                      .trunk = {},
                                      .listener = id,
                                      .peer = peer,
                                      .owner = owner(id),
                                      .host = {}},
                                     context.get(), std::move(socket),
                                     [this, key](Result<Secured> result) { ended(key, std::move(result)); });
  if (!handshake) {
    admission_.ended(key);
    settings_.stats.failed.add();
    if (const auto end = settings_.failures.line(peer, now))
      log::error("{}: connection from {}: {}{}", owner(id), peer.text(), handshake.error().what, *end);
    return;
  }
  handshakes_.emplace(key, InProgress{id, peer, context, std::move(*handshake)});
}

void Acceptor::ended(std::uint64_t key, Result<Secured> result) {
  const auto ended = handshakes_.extract(key);  // it is running: gone when this returns
  admission_.ended(key);
  if (result) done_(std::move(*result));
}

void Acceptor::give_up(std::uint64_t key, const std::string& why) {
  const auto found = handshakes_.extract(key);
  if (!found.empty()) refused(owner(found.mapped().listener), found.mapped().peer, why);
}

// Descriptors or memory have run out: to new peers the process is as full as by its limits.
Listener::Room Acceptor::make_room() {
  const auto victim = admission_.take_victim();
  if (!victim) return Listener::Room::kNone;
  give_up(*victim, "out of descriptors or memory");
  return Listener::Room::kMade;
}

void Acceptor::refused(const std::string& owner, const Address& peer, const std::string& why) {
  settings_.stats.refused.add();
  if (const auto end = refusals_.line(peer, Clock::now()))
    log::warn("{}: connection with {} refused: {}{}", owner, peer.text(), why, *end);
}

}  // namespace ktrunk::handshake
