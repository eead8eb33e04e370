// Connector: keeps one trunk's `connections` up to its TLS or TCP targets. Each of them is tried for by itself: the
// targets in their order, each with the addresses it resolves to, one after the other; when all have failed, again from
// the first after a wait that grows (back_off.h). Among targets of one priority each connection has an order of its
// own, so that all together are spread by the weights (target_order.h). A connection that is lost is made again in the
// same way; one whose keys are used up is replaced while it stays up (make before break), and so is one to a target
// that is not its first, or to a server that its SRV answer names after others: every trunk.failback those before it
// are tried. One whose peer answered no OPTIONS is made again to other servers and targets first, and the next failback
// takes twice as long.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/address.h"
#include "base/event_loop.h"
#include "base/id.h"
#include "config/config.h"
#include "handshake/back_off.h"
#include "handshake/contexts_in_force.h"
#include "handshake/handshake.h"
#include "handshake/resolver.h"

namespace ktrunk::handshake {

class Connector {
 public:
  struct Timing {
    Clock::duration first_wait = std::chrono::milliseconds(500);
    Clock::duration longest_wait = std::chrono::seconds(30);
    // When the trunk can do without: its targets are udp ones, and may take no TCP.
    Clock::duration longest_optional_wait = std::chrono::minutes(10);
    // A connection that lasted for so long has been a good one: the waits begin anew when it is lost.
    Clock::duration steady = std::chrono::seconds(10);
  };
  // Takes a connection that is ready and returns the reference under which lost() will tell of it; 0 if it could not
  // be handed over, and is closed. replaces: as in ipc::Established.
  using Connected = std::function<std::uint64_t(Secured secured, const std::string& host, ConnectionId replaces)>;

  // A connection of the trunk that an earlier handshake process made and that still lives.
  struct Living {
    ConnectionId id;
    Address peer;
  };
  // settings, resolver and contexts outlive it. The living count as up. While the trunk has TLS targets and no context,
  // nothing is tried.
  Connector(const HandshakeSettings& settings, Resolver& resolver, TrunkId trunk, const ContextsInForce& contexts,
            Timing timing, std::span<const Living> living, Connected connected);
  Connector(const Connector&) = delete;
  Connector& operator=(const Connector&) = delete;

  // What a connection is called from now on. Nothing happens when it is none of this trunk's.
  void admitted(std::uint64_t reference, ConnectionId connection);
  // A connection is gone from every process. Nothing happens when it is none of this trunk's, or another has its place.
  void lost(const ipc::Gone& gone);
  // There was no place for it.
  void refused(std::uint64_t reference);
  // Makes a connection that takes the place of this one, which stays up until then. kUnderWay: that has been asked for
  // before, or no connections are made any more; kUnknown: it has no place here.
  enum class Replacing : std::uint8_t { kBegun, kUnderWay, kUnknown };
  [[nodiscard]] Replacing replace(std::uint64_t reference, ConnectionId connection);
  // What the next TLS handshake with this host may use.
  void remember(const std::string& host, Resumption resumption);
  // The trunk's context is another: what waits is tried at once, and nothing learnt under the old one is used.
  void context_changed();

  // No new tries. Handshakes that have begun (TCP is connected) are finished within `time`, or given up.
  void stop(Clock::duration time);
  // A handshake is in progress.
  [[nodiscard]] bool busy() const;

 private:
  // A connection that has been handed over: by this process under a reference, or by an earlier one, known by its id.
  struct Up {
    std::uint64_t reference = 0;
    ConnectionId id;
    [[nodiscard]] bool is(std::uint64_t its_reference, ConnectionId its_id) const {
      return its_reference != 0 ? reference == its_reference : its_id.valid() && id == its_id;
    }
    [[nodiscard]] bool there() const { return reference != 0 || id.valid(); }
  };
  // The server that a connection is to.
  struct Server {
    std::size_t target = 0;  // its place in Place::order
    Address address;
    bool is_later = false;  // its target may have servers that are to be tried before it
  };
  // One of the connections that are to be up.
  struct Place {
    Place(BackOff its_back_off, std::vector<std::size_t> its_order)
        : back_off(its_back_off), order(std::move(its_order)) {}
    BackOff back_off;
    std::vector<std::size_t> order;  // the targets as this connection tries them
    std::size_t first = 0;  // of this round; the others follow in their order, the last one before it at the end
    std::size_t tried = 0;  // of this round, before the one that is being tried
    Address avoided;        // passed over in this round: it has just disappointed
    std::vector<ServerAddress> addresses;
    std::size_t address = 0;  // the next one to try
    Up up;
    Up old;                  // the one that `up` replaces, until it is gone
    bool replacing = false;  // what is being tried is to replace `up`
    bool hurried = false;    // it has been made again without a wait once
    bool returning = false;  // replacing: by one to a target or server before that of `up`, or not at all
    bool returned = false;   // `up` is such a one
    Server up_server;
    Server old_server;
    unsigned disappointments = 0;  // targets whose peers did not answer, in a row
    EventLoop::Timer failback;
    Clock::time_point up_since{};
    Resolver::Query query;
    std::shared_ptr<const TlsContext> context;  // of the handshake
    std::unique_ptr<Handshake> handshake;
    EventLoop::Timer timer;
  };
  [[nodiscard]] const config::Trunk& trunk() const { return settings_.config.trunks[trunk_.value]; }
  [[nodiscard]] bool usable() const;
  void begin(Place& place);
  void try_target(Place& place);
  void resolved(Place& place, const Resolved& result);
  void try_address(Place& place);
  void handshake_done(Place& place, Result<Secured> result);
  void try_later(Place& place);
  void drop(Place& place, ipc::Gone::Again again);
  [[nodiscard]] std::size_t place_of_target(const Place& place) const;
  [[nodiscard]] const config::Target& target_of(const Place& place) const;
  [[nodiscard]] static bool could_return(const Place& place);
  void await_failback(Place& place);
  void fail_back(Place& place);
  static void keep_better(Place& place);
  void stay(Place& place);
  void keep_old(Place& place);

  const HandshakeSettings& settings_;
  Resolver& resolver_;
  TrunkId trunk_;
  std::vector<config::Target> targets_;  // config::connection_targets(), with the places that trunk().targets has
  const ContextsInForce& contexts_;
  Timing timing_;
  Connected connected_;
  bool stopped_ = false;
  std::map<std::string, Resumption> resumptions_;  // by host
  std::vector<Place> places_;                      // as long as the object: handlers point into it
};

}  // namespace ktrunk::handshake
