#include "handshake/udp_targets.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>

#include "base/fd.h"
#include "base/log.h"
#include "ipc/shared_region.h"

namespace ktrunk::handshake {
namespace {

// What the listener's socket can send to. Those that were told stay before others of their rank: servers turn the list
// round to spread the load.
std::vector<Address> in_order(const std::vector<ServerAddress>& answer, const std::vector<Address>& told, int family,
                              std::size_t most) {
  struct Listed {
    std::uint16_t rank;
    std::ptrdiff_t told;  // its place among those that were told; new ones behind them
    std::size_t answered;
    Address address;
  };
  std::vector<Listed> list;
  for (const ServerAddress& each : answer) {
    if (each.family() != family) continue;
    const auto before = std::ranges::find(told, static_cast<const Address&>(each));
    list.push_back({each.rank, before - told.begin(), list.size(), each});
  }
  std::ranges::sort(list, {}, [](const Listed& one) { return std::tuple(one.rank, one.told, one.answered); });
  std::vector<Address> now;
  for (const Listed& one : list) {
    if (now.size() < most) now.push_back(one.address);
  }
  return now;
}

}  // namespace

std::uint16_t path_mtu(const Address& to) {
  const Fd socket(::socket(to.family(), SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid() || ::connect(socket.get(), to.data(), to.size()) != 0) return 0;
  int mtu = 0;
  socklen_t size = sizeof mtu;
  const bool v6 = to.family() == AF_INET6;
  if (::getsockopt(socket.get(), v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_MTU : IP_MTU, &mtu, &size) != 0) return 0;
  return static_cast<std::uint16_t>(std::clamp(mtu, 0, int{std::numeric_limits<std::uint16_t>::max()}));
}

UdpTargets::UdpTargets(EventLoop& loop, Resolver& resolver, const config::Config& config, const Share& share,
                       Timing timing, Changed changed)
    : loop_(loop), resolver_(resolver), config_(config), timing_(timing), changed_(std::move(changed)) {
  for (std::size_t t = 0; t < config.trunks.size(); ++t) {
    if (!share.has(TrunkId{static_cast<std::uint16_t>(t)})) continue;
    const std::vector<config::Target>& targets = config.trunks[t].targets;
    for (std::size_t i = 0; i < targets.size(); ++i) {
      if (targets[i].transport != config::Transport::kUdp) continue;
      targets_.emplace_back(TrunkId{static_cast<std::uint16_t>(t)}, static_cast<std::uint16_t>(i),
                            ipc::udp_places(targets.size()), BackOff(timing.first_retry, timing.refresh));
    }
  }
  for (Target& target : targets_) ask(target);
}

void UdpTargets::ask(Target& target) {
  const config::Target& wanted = config_.trunks[target.trunk.value].targets[target.number];
  target.query = resolver_.resolve(wanted, [this, &target](const Resolved& result) { answered(target, result); });
}

void UdpTargets::answered(Target& target, const Resolved& result) {
  const config::Trunk& trunk = config_.trunks[target.trunk.value];
  const config::Target& wanted = trunk.targets[target.number];
  Clock::duration wait = timing_.refresh;
  std::vector<Address> told;
  for (const Told& each : target.told) {
    if (!each.address.empty()) told.push_back(each.address);
  }
  if (result) {
    target.back_off.reset();
    if (std::exchange(target.failing, false)) log::info("trunk '{}': '{}' resolves again", trunk.name, wanted.host);
    const int family = config_.listeners[trunk.listener.value].address.family();
    const std::vector<Address> now = in_order(*result, told, family, target.told.size());
    if (now.empty())
      log::warn("trunk '{}': '{}' has no address that listener '{}' could send to", trunk.name, wanted.host,
                config_.listeners[trunk.listener.value].name);
    tell(target, now);
  } else {
    wait = target.back_off.next();
    if (!std::exchange(target.failing, true)) log::warn("trunk '{}': {}", trunk.name, result.error().what);
    tell(target, result.error().kind == ResolveError::Kind::kNoSuchName ? std::vector<Address>{} : told);
  }
  target.timer = loop_.after(wait, [this, &target] { ask(target); });
}

void UdpTargets::tell(Target& target, const std::vector<Address>& now) {
  const config::Trunk& trunk = config_.trunks[target.trunk.value];
  for (std::size_t i = 0; i < target.told.size(); ++i) {
    const Address address = i < now.size() ? now[i] : Address();
    const Told next{.address = address, .path_mtu = address.empty() ? std::uint16_t{0} : path_mtu(address)};
    Told& before = target.told[i];
    if (next.address == before.address && next.path_mtu == before.path_mtu) continue;
    if (!(next.address == before.address) && !next.address.empty())
      log::info("trunk '{}': target udp:{} is {}", trunk.name, trunk.targets[target.number].host, next.address.text());
    before = next;
    changed_({.trunk = target.trunk,
              .target = static_cast<std::uint16_t>(target.number * target.told.size() + i),
              .path_mtu = next.path_mtu,
              .address = next.address});
  }
}

}  // namespace ktrunk::handshake
