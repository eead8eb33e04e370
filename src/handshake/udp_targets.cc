#include "handshake/udp_targets.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace ktrunk::handshake {

UdpTargets::UdpTargets(EventLoop& loop, Resolver& resolver, const config::Config& config, const Share& share,
                       Timing timing, Changed changed)
    : loop_(loop), resolver_(resolver), config_(config), timing_(timing), changed_(std::move(changed)) {
  for (std::size_t t = 0; t < config.trunks.size(); ++t) {
    if (!share.has(TrunkId{static_cast<std::uint16_t>(t)})) continue;
    const std::vector<config::Target>& targets = config.trunks[t].targets;
    for (std::size_t i = 0; i < targets.size(); ++i) {
      if (targets[i].transport != config::Transport::kUdp) continue;
      targets_.emplace_back(TrunkId{static_cast<std::uint16_t>(t)}, static_cast<std::uint16_t>(i),
                            BackOff(timing.first_retry, timing.refresh));
    }
  }
  for (Target& target : targets_) ask(target);
}

void UdpTargets::ask(Target& target) {
  const config::Target& wanted = config_.trunks[target.trunk.value].targets[target.place];
  target.query = resolver_.resolve(wanted, [this, &target](const Resolved& result) { answered(target, result); });
}

void UdpTargets::answered(Target& target, const Resolved& result) {
  const config::Trunk& trunk = config_.trunks[target.trunk.value];
  const config::Target& wanted = trunk.targets[target.place];
  Clock::duration wait = timing_.refresh;
  if (result) {
    target.back_off.reset();
    if (std::exchange(target.failing, false)) log::info("trunk '{}': '{}' resolves again", trunk.name, wanted.host);
    // An address that is still among them stays: servers turn the list round to spread the load.
    if (std::ranges::find(*result, target.told) == result->end()) {
      target.told = result->front();
      log::info("trunk '{}': target udp:{} is {}", trunk.name, wanted.host, target.told.text());
      changed_(target.trunk, target.place, target.told);
    }
  } else {
    wait = target.back_off.next();
    if (!std::exchange(target.failing, true)) log::warn("trunk '{}': {}", trunk.name, result.error().what);
    if (result.error().kind == ResolveError::Kind::kNoSuchName && !target.told.empty()) {
      target.told = {};
      changed_(target.trunk, target.place, target.told);
    }
  }
  if (!Resolver::is_literal(wanted.host)) target.timer = loop_.after(wait, [this, &target] { ask(target); });
}

}  // namespace ktrunk::handshake
