// UDP targets: keeps the addresses of the trunks' UDP targets up to date, and the MTU of the way to each, for the
// supervisor to publish (ipc::Resolved): of the trunks that this process keeps. A name is asked for at start and every
// minute; and so is the kernel, which learns MTUs from the network (RFC 1191, RFC 8201).
#pragma once

#include <cstdint>
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
#include "ipc/messages.h"

namespace ktrunk::handshake {

// What the kernel knows of the way to an address; 0: nothing.
[[nodiscard]] std::uint16_t path_mtu(const Address& to);

class UdpTargets {
 public:
  // An address that is new at its place, or whose MTU is; empty when there is none at this place any more. While no
  // server answers, what was told last stays.
  using Changed = std::function<void(const ipc::Resolved& resolved)>;

  struct Timing {
    Clock::duration refresh = std::chrono::seconds(60);
    Clock::duration first_retry = std::chrono::seconds(1);  // after a failure, then longer up to `refresh`
  };

  UdpTargets(EventLoop& loop, Resolver& resolver, const config::Config& config, const Share& share, Timing timing,
             Changed changed);
  UdpTargets(const UdpTargets&) = delete;
  UdpTargets& operator=(const UdpTargets&) = delete;

 private:
  struct Told {
    Address address;
    std::uint16_t path_mtu = 0;
  };
  struct Target {
    Target(TrunkId its_trunk, std::uint16_t its_number, std::size_t places, BackOff its_back_off)
        : trunk(its_trunk), number(its_number), back_off(its_back_off), told(places) {}
    TrunkId trunk;
    std::uint16_t number;  // among the trunk's targets
    BackOff back_off;
    std::vector<Told> told;  // by its places (ipc::udp_places()); those without address behind the others
    bool failing = false;    // the failure has been logged
    Resolver::Query query;
    EventLoop::Timer timer;
  };
  void ask(Target& target);
  void answered(Target& target, const Resolved& result);
  void tell(Target& target, const std::vector<Address>& now);

  EventLoop& loop_;
  Resolver& resolver_;
  const config::Config& config_;
  Timing timing_;
  Changed changed_;
  std::vector<Target> targets_;  // as long as the object: handlers point into it
};

}  // namespace ktrunk::handshake
