// Acceptor: connections that peers open, from the listening sockets to the end of the handshake: who is let in
// (admission.h), and the handshakes in progress. Several handshake processes share the sockets; a connection wakes one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/address.h"
#include "base/fd.h"
#include "base/id.h"
#include "handshake/admission.h"
#include "handshake/contexts_in_force.h"
#include "handshake/failure_log.h"
#include "handshake/handshake.h"
#include "handshake/listener.h"

namespace ktrunk::handshake {

class Acceptor {
 public:
  // A handshake has been finished well. Called from the event loop.
  using Done = std::function<void(Secured secured)>;

  // settings and contexts outlive it.
  Acceptor(const HandshakeSettings& settings, const ContextsInForce& contexts, const AdmissionLimits& limits,
           Done done);
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  // Accepts on this socket from now on. A listener without context, while it has none, closes what it accepts.
  void listen(ListenerId id, Fd socket);
  // Connections wait in the sockets' backlogs meanwhile; handshakes go on.
  void pause();
  void resume();
  // No new connections. Handshakes in progress are finished within `time`, or given up.
  void stop(Clock::duration time);
  [[nodiscard]] bool busy() const { return !handshakes_.empty(); }

  // A connection that came from here is open, or is gone: in pairs.
  void opened(const Address& peer) { admission_.opened(peer, Clock::now()); }
  void closed(const Address& peer) { admission_.closed(peer); }

  // Somebody was refused: counts it, and logs at most a line per address and ten seconds. why: "the table is full".
  void refused(const std::string& owner, const Address& peer, const std::string& why);

 private:
  struct InProgress {
    ListenerId listener;
    Address peer;
    std::shared_ptr<const TlsContext> context;  // the one it began with, whatever is in force by now
    std::unique_ptr<Handshake> handshake;       // after what it uses
  };
  void accepted(ListenerId id, Fd socket, const Address& peer);
  void ended(std::uint64_t key, Result<Secured> result);
  void give_up(std::uint64_t key, const std::string& why);
  [[nodiscard]] Listener::Room make_room();
  [[nodiscard]] std::string owner(ListenerId id) const;

  const HandshakeSettings& settings_;
  const ContextsInForce& contexts_;
  Done done_;
  Admission admission_;
  FailureLog refusals_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::uint64_t next_key_ = 1;
  std::unordered_map<std::uint64_t, InProgress> handshakes_;
};

}  // namespace ktrunk::handshake
