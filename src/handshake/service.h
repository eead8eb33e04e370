// Service: all that the handshake process does between Ready and Stop: listeners, trunks' connectors, handshakes,
// relays, and UDP targets' addresses. It knows nothing of the channel: process.h carries its words to the supervisor.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/id.h"
#include "config/config.h"
#include "handshake/closing.h"
#include "handshake/connector.h"
#include "handshake/failure_log.h"
#include "handshake/handshake.h"
#include "handshake/listener.h"
#include "handshake/relay.h"
#include "handshake/resolver.h"
#include "handshake/tls_context.h"
#include "handshake/udp_targets.h"
#include "ipc/messages.h"
#include "ipc/shared_region.h"
#include "ktls/kernel.h"
#include "ktls/support.h"

namespace ktrunk::handshake {

class Service {
 public:
  struct Timing {
    Connector::Timing connector;
    UdpTargets::Timing udp_targets;
  };
  // Where its news go; called from the event loop.
  struct Outlet {
    std::function<void(const ipc::Established&, Fd)> established;
    std::function<void(const ipc::Resolved&)> resolved;
  };
  using ListeningSockets = std::vector<std::pair<ListenerId, Fd>>;

  // loop, config, region and kernel outlive it. Looks for kernel TLS, reads certificates and keys; a listener or trunk
  // whose files are no good is logged and does not serve, the others do.
  Service(EventLoop& loop, const config::Config& config, ipc::SharedRegion& region, ktls::Kernel& kernel,
          const Timing& timing, Outlet outlet);
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  // Begins to accept and to connect.
  void start(ListeningSockets sockets);

  void admitted(const ipc::Admitted& message);
  void refused(const ipc::Refused& message);
  void gone(const ipc::Gone& message);

  // No new connections; handshakes are finished within `time`, or given up. Relays go on.
  void drain(Clock::duration time);
  // Handshakes are in progress.
  [[nodiscard]] bool busy() const;

  // Ends every relay with what waits in it and close_notify.
  void close_relays();
  // Every relay has ended, and every peer has been let finish.
  [[nodiscard]] bool finished() const { return relays_.empty() && closing_.empty(); }

 private:
  struct Connection {
    ConnectionId id;
    ConnectionRole role;
    TrunkId trunk;
  };
  void load_contexts();
  void start_connectors();
  [[nodiscard]] std::vector<ConnectionId> living(TrunkId trunk) const;
  void accepted(ListenerId listener, Fd socket, const Address& peer);
  void accept_done(std::uint64_t key, Result<Secured> result);
  [[nodiscard]] std::uint64_t hand_over(Secured secured, const std::string& host);
  [[nodiscard]] Result<Fd> make_relay(std::uint64_t reference, Secured& secured, const std::string& host);
  [[nodiscard]] std::string owner(const ipc::ConnectionInfo& info) const;

  EventLoop& loop_;
  const config::Config& config_;
  ipc::SharedRegion& region_;
  Timing timing_;
  Outlet outlet_;
  ktls::Support support_;
  Closing closing_;
  FailureLog failures_;
  HandshakeSettings settings_;
  std::vector<std::optional<TlsContext>> listener_contexts_;
  std::vector<std::optional<TlsContext>> trunk_contexts_;
  Resolver resolver_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::vector<std::unique_ptr<Connector>> connectors_;  // by trunk; null where there is nothing to connect to
  std::optional<UdpTargets> udp_targets_;
  std::uint64_t next_number_ = 1;  // references, and keys of handshakes
  std::unordered_map<std::uint64_t, std::unique_ptr<Handshake>> accepting_;
  std::unordered_map<std::uint64_t, Connection> connections_;  // handed over, by reference
  std::unordered_map<std::uint64_t, std::unique_ptr<Relay>> relays_;
  bool draining_ = false;
};

}  // namespace ktrunk::handshake
