// Handshake: one connection on its way to the workers: TCP connect (when we make it), TLS handshake (unless it is plain
// TCP), choice of the record layer, and the socket put in the state in which it is handed over. Says in one log line
// how it went. The handshake process runs many at once.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/address.h"
#include "base/event_loop.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/result.h"
#include "config/config.h"
#include "config/peer_addresses.h"
#include "handshake/closing.h"
#include "handshake/failure_log.h"
#include "handshake/key_keeper.h"
#include "handshake/record_layer.h"
#include "handshake/tls_context.h"
#include "handshake/tls_session.h"
#include "ipc/messages.h"
#include "ipc/shared_region.h"

namespace ktrunk::handshake {

using ConnectionRole = ipc::ConnectionInfo::Role;

// What all handshakes of the process share; outlives them.
struct HandshakeSettings {
  EventLoop& loop;
  const config::Config& config;
  const config::PeerAddresses& addresses;
  RecordLayerPolicy record_layer;
  Closing& closing;
  ipc::HandshakeStats& stats;
  FailureLog& failures;  // of connections that peers made
};

// Whose connection it is.
struct Origin {
  ConnectionRole role = ConnectionRole::kAccepted;
  config::Transport transport = config::Transport::kTls;
  TrunkId trunk;        // connected: its trunk; accepted: none yet
  ListenerId listener;  // accepted on, or the trunk's `listen`
  Address peer;
  std::string owner;  // "listener 'x'", "trunk 'y'", for log lines
  std::string host;   // connected: the target's host
  ipc::ConnectionInfo::Others others = ipc::ConnectionInfo::Others::kNone;
};

// A connection that is ready.
struct Secured {
  ipc::ConnectionInfo info;
  Fd descriptor;                        // kTLS or plain TCP socket in blocking mode; none for a relay
  std::optional<TlsSession> session;    // relay: the session, socket still non-blocking
  std::optional<KernelSession> kernel;  // record layer kernel: for the key keeper, once the connection is admitted
  Resumption resumption;                // what the next connection to the same host may use; may be empty
};

class Handshake {
 public:
  // Called once, from the event loop. It may destroy the Handshake. An error has been logged and counted.
  using Done = std::function<void(Result<Secured>)>;

  // socket: accepted, non-blocking. context: null for plain TCP.
  [[nodiscard]] static Result<std::unique_ptr<Handshake>> accept(const HandshakeSettings& settings, Origin origin,
                                                                 const TlsContext* context, Fd socket, Done done);
  // Connects to origin.peer.
  [[nodiscard]] static Result<std::unique_ptr<Handshake>> connect(const HandshakeSettings& settings, Origin origin,
                                                                  const TlsContext* context, Resumption resumption,
                                                                  Done done);
  ~Handshake();  // of one that is not done: says nothing to the peer
  Handshake(const Handshake&) = delete;
  Handshake& operator=(const Handshake&) = delete;

  // It must be done within `time` now, or by its old deadline if that is sooner.
  void hurry(Clock::duration time);
  // TCP is not connected yet.
  [[nodiscard]] bool connecting() const { return stage_ == Stage::kConnecting; }

 private:
  enum class Stage { kConnecting, kHandshaking, kDone };

  Handshake(const HandshakeSettings& settings, Origin origin, const TlsContext* context, Done done);
  [[nodiscard]] Status watch(int fd, Interest interest);
  void set_deadline(Clock::time_point deadline);
  void proceed();
  void connected();
  void step();
  void secured();
  void identify_peer(const PeerIdentity* identity, ipc::ConnectionInfo& info) const;
  void succeed(Secured secured);
  void give_up(Error error, log::Level level = log::Level::kWarn);
  void finish(Result<Secured> result);

  const HandshakeSettings& settings_;
  Origin origin_;
  const TlsContext* context_;
  Done done_;
  Stage stage_ = Stage::kHandshaking;
  Resumption resumption_;
  Fd socket_;                          // until the session has it
  std::optional<TlsSession> session_;  // TLS, once TCP is connected
  EventLoop::Watch watch_;             // after the sockets: it must go first
  EventLoop::Timer deadline_timer_;
  EventLoop::Timer start_;
  Clock::time_point deadline_{};
};

}  // namespace ktrunk::handshake
