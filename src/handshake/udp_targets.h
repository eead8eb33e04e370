// UDP targets: keeps the addresses of the trunks' UDP targets up to date, for the supervisor to publish
// (ipc::Resolved): of the trunks that this process keeps. A literal address is told once; a name is asked for at start
// and every minute.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/address.h"
#include "base/event_loop.h"
#include "base/id.h"
#include "config/config.h"
#include "handshake/back_off.h"
#include "handshake/resolver.h"
#include "handshake/share.h"

namespace ktrunk::handshake {

class UdpTargets {
 public:
  // An address that is new, or empty when the name has ceased to exist; target is the place among the trunk's targets.
  // While no server answers, what was told last stays.
  using Changed = std::function<void(TrunkId trunk, std::uint16_t target, const Address& address)>;

  struct Timing {
    Clock::duration refresh = std::chrono::seconds(60);
    Clock::duration first_retry = std::chrono::seconds(1);  // after a failure, then longer up to `refresh`
  };

  UdpTargets(EventLoop& loop, Resolver& resolver, const config::Config& config, const Share& share, Timing timing,
             Changed changed);
  UdpTargets(const UdpTargets&) = delete;
  UdpTargets& operator=(const UdpTargets&) = delete;

 private:
  struct Target {
    Target(TrunkId its_trunk, std::uint16_t its_place, BackOff its_back_off)
        : trunk(its_trunk), place(its_place), back_off(its_back_off) {}
    TrunkId trunk;
    std::uint16_t place;
    BackOff back_off;
    Address told;
    bool failing = false;  // the failure has been logged
    Resolver::Query query;
    EventLoop::Timer timer;
  };
  void ask(Target& target);
  void answered(Target& target, const Resolved& result);

  EventLoop& loop_;
  Resolver& resolver_;
  const config::Config& config_;
  Timing timing_;
  Changed changed_;
  std::vector<Target> targets_;  // as long as the object: handlers point into it
};

}  // namespace ktrunk::handshake
