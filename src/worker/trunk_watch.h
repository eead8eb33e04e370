// TrunkWatch: asks the peers of trunks whether they are there, and writes down what comes of it (ipc/trunk_health.h):
// OPTIONS (RFC 3261 11) on each connection of a trunk and to each UDP target, by trunk.options_interval; CRLF pings
// (RFC 5626 3.5.1) on the connections that we made, by trunk.keepalive. A connection is looked after by its home
// worker, a trunk's UDP targets by one worker (ipc::watcher_of). All of it happens in the worker's tick: a time is kept
// to half a second.
//
//   OPTIONS answered (sip::is_alive)          up
//   not in options_timeout, or 408, 503, 504  degraded; after options_failures in a row: down, no new requests; if the
//                                             trunk has other targets, the connection is given up for one to those
//   no pong within kPongLimit                 the connection is dead
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "config/config.h"
#include "ipc/shared_region.h"
#include "sip/flow_token.h"
#include "sip/options_ping.h"
#include "sip/own_addresses.h"
#include "worker/connection_table.h"
#include "worker/datagrams.h"
#include "worker/sender.h"
#include "worker/tracer.h"

namespace ktrunk::worker {

class TrunkWatch {
 public:
  static constexpr std::chrono::seconds kPongLimit{10};  // RFC 5626 4.4.1
  // A connection that is to be ended.
  using Fault = std::function<void(Connection&, ipc::FaultReason)>;

  // All outlive it.
  TrunkWatch(const config::Config& config, const ipc::SharedRegion& region, WorkerIndex self,
             const ConnectionTable& connections, Sender& sender, Datagrams& datagrams, Tracer& tracer);

  // Asks those whose time has come, and judges those who were asked.
  void tick(Clock::time_point now, const Fault& fault);

 private:
  struct Watched {
    Address address;  // of a UDP target
    Clock::time_point next_options{};
    Clock::time_point asked{};
    bool options_open = false;
    unsigned failures = 0;  // in a row
    Clock::time_point next_ping{};
    Clock::time_point ping_sent{};
    std::uint64_t seen = 0;  // in this tick
  };
  enum class Judged : std::uint8_t { kAsBefore, kNowDown };
  void look_at_connections(TrunkId trunk, Clock::time_point now, const Fault& fault);
  void look_at_targets(TrunkId trunk, Clock::time_point now);
  void keep_alive(const config::Trunk& trunk, Connection& connection, Watched& watched, const Fault& fault);
  [[nodiscard]] Judged judge(const config::Trunk& trunk, const std::string& peer, Watched& watched,
                             ipc::PeerHealth& health) const;
  [[nodiscard]] bool is_due(const Watched& watched) const;
  void asked(const config::Trunk& trunk, Watched& watched) const;
  [[nodiscard]] std::string question(const sip::PingSubject& subject, const sip::Flow& flow);
  [[nodiscard]] bool send(Connection& connection, std::string_view octets);

  const config::Config& config_;
  const ipc::SharedRegion& region_;
  WorkerIndex self_;
  const ConnectionTable& connections_;
  Sender& sender_;
  Datagrams& datagrams_;
  Tracer& tracer_;
  sip::TokenKey key_;
  sip::OwnAddresses own_;
  Clock::time_point now_{};
  std::uint64_t ticks_ = 0;
  std::uint64_t number_ = 0;
  std::map<ConnectionId, Watched> connections_watched_;
  std::map<std::pair<std::uint16_t, std::uint16_t>, Watched> targets_watched_;  // trunk, place
};

}  // namespace ktrunk::worker
