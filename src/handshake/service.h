// Service: all that the handshake process does between Ready and Stop: peers' connections (acceptor.h), trunks'
// (connector.h), what was handed over: its keys (key_keeper.h) or its relay; reloads, and UDP targets' addresses. It
// knows nothing of the channel: process.h carries its words to the supervisor.
#pragma once

#include <cstddef>
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
#include "handshake/acceptor.h"
#include "handshake/closing.h"
#include "handshake/connector.h"
#include "handshake/contexts_in_force.h"
#include "handshake/failure_log.h"
#include "handshake/handshake.h"
#include "handshake/key_keeper.h"
#include "handshake/relay.h"
#include "handshake/resolver.h"
#include "handshake/share.h"
#include "handshake/ticket_keys.h"
#include "handshake/udp_targets.h"
#include "ipc/messages.h"
#include "ipc/shared_region.h"
#include "ipc/vault.h"
#include "ktls/kernel.h"
#include "ktls/support.h"

namespace ktrunk::handshake {

class Service {
 public:
  struct Timing {
    Connector::Timing connector;
    UdpTargets::Timing udp_targets;
  };
  // Where its news go; called from the event loop and from within its own calls.
  struct Outlet {
    std::function<void(const ipc::Established&, Fd)> established;
    std::function<void(const ipc::Resolved&)> resolved;
    std::function<void(const ipc::SendControl&)> send_control;
    std::function<void(const ipc::Resume&)> resume;
    std::function<void(const ipc::Fault&)> fault;
    std::function<void(const ipc::Retire&)> retire;
    std::function<void(const ipc::Reloaded&)> reloaded;
  };
  using ListeningSockets = std::vector<std::pair<ListenerId, Fd>>;

  // All but the last three outlive it. Looks for kernel TLS, reads certificates and keys; a listener or trunk whose
  // files are no good is logged and does not serve, the others do.
  Service(EventLoop& loop, const config::Config& config, ipc::SharedRegion& region, ipc::Vault& vault,
          ktls::Kernel& kernel, TicketKeys tickets, const Share& share, const Timing& timing, Outlet outlet);
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  // Begins to accept and to connect.
  void start(ListeningSockets sockets);

  // Right before the Established of that reference goes to the supervisor.
  void hands_over(std::uint64_t reference);

  // The supervisor's words (ipc/messages.h). Those about connections that are not known do nothing.
  void admitted(const ipc::Admitted& message);
  void refused(const ipc::Refused& message);
  void gone(const ipc::Gone& message);
  void post_handshake(const ipc::PostHandshake& message, Fd socket);
  void install_transmit(const ipc::InstallTransmit& message, Fd socket);
  void renew(const ipc::Renew& message);
  void reload(const ipc::Reload& message);

  // A successor is going to take over: tickets' keys are its matter, and trunks.
  void leave();
  // No new connections; handshakes are finished within `time`, or given up. Relays go on.
  void drain(Clock::duration time);
  // Handshakes are in progress.
  [[nodiscard]] bool busy() const;

  // Ends every relay with what waits in it and close_notify.
  void close_relays();
  // Every relay has ended, and every peer has been let finish.
  [[nodiscard]] bool finished() const { return relays_.empty() && closing_.empty(); }

 private:
  // Handed over, and not gone.
  struct Connection {
    ConnectionRole role;
    TrunkId trunk;
    Address peer;
    std::string owner;                    // for log lines
    ConnectionId id;                      // once it is admitted
    std::optional<KernelSession> kernel;  // until it is admitted
  };
  void start_connectors();
  [[nodiscard]] Connector* connector(TrunkId trunk) const;
  [[nodiscard]] KeyKeeper::Outlet keeper_outlet();
  [[nodiscard]] std::vector<Connector::Living> living(TrunkId trunk) const;
  [[nodiscard]] std::optional<ipc::ConnectionInfo> info_of(ConnectionId id) const;
  [[nodiscard]] std::uint64_t hand_over(Secured secured, const std::string& host, ConnectionId replaces);
  void relay_ended(std::uint64_t reference, const std::string& host, ConnectionRole role, TrunkId trunk,
                   Relay::End end);
  [[nodiscard]] Result<Fd> make_relay(std::uint64_t reference, Secured& secured, const std::string& host);
  [[nodiscard]] std::string owner(const ipc::ConnectionInfo& info) const;
  void answered(std::uint64_t reference);
  void rotate_tickets();

  EventLoop& loop_;
  const config::Config& config_;
  ipc::SharedRegion& region_;
  Share share_;
  Timing timing_;
  Outlet outlet_;
  ktls::Support support_;
  Closing closing_;
  FailureLog failures_;
  config::PeerAddresses addresses_;
  HandshakeSettings settings_;
  TicketKeys tickets_;  // before what uses it: the contexts, and all that has sessions
  ContextsInForce contexts_;
  KeyKeeper keeper_;
  Acceptor acceptor_;
  Resolver resolver_;
  std::vector<std::unique_ptr<Connector>> connectors_;  // by trunk; null where there is nothing to connect to
  std::optional<UdpTargets> udp_targets_;
  std::unordered_map<std::uint64_t, Connection> connections_;  // by reference
  std::size_t unanswered_ = 0;                                 // of them: neither admitted nor refused yet
  std::unordered_map<std::uint64_t, std::unique_ptr<Relay>> relays_;
  EventLoop::Timer ticket_timer_;
  bool leaving_ = false;
};

}  // namespace ktrunk::handshake
