#include "worker/datagram_peers.h"

#include <algorithm>

#include "sip/proxy.h"
#include "worker/preference.h"

namespace ktrunk::worker {

DatagramPeers::DatagramPeers(const config::Config& config, const ipc::SharedRegion& region)
    : config_(config), region_(region), addresses_(config) {
  for (std::uint16_t i = 0; i < config.trunks.size(); ++i) {
    if (config::is_datagram(config.trunks[i])) trunks_.push_back(TrunkId{i});
  }
}

TrunkId DatagramPeers::trunk_of(const Address& from, ListenerId listener) const {
  for (const TrunkId trunk : trunks_) {
    const ipc::TrunkEntry& entry = region_.trunk(trunk);
    for (unsigned place = 0; place < ipc::kMaxTargets; ++place) {
      if (entry.udp_address(place) == from && config::PeerAddresses::takes(config_.trunks[trunk.value], listener))
        return trunk;
    }
  }
  return addresses_.find(from, listener);
}

Address DatagramPeers::address_of(TrunkId trunk, std::size_t target) const {
  const ipc::TrunkEntry& entry = region_.trunk(trunk);
  const unsigned places = ipc::udp_places(config_.trunks[trunk.value].targets.size());
  for (unsigned i = 0; i < places; ++i) {
    const unsigned place = static_cast<unsigned>(target) * places + i;
    const Address address = entry.udp_address(place);
    if (!address.empty() && !entry.udp[place].health.is_down()) return address;
  }
  return {};
}

Address DatagramPeers::choose(TrunkId trunk, std::uint64_t affinity) const {
  const std::vector<config::Target>& targets = config_.trunks[trunk.value].targets;
  Address best;
  double most = 0;
  for (std::uint32_t i = 0; i < targets.size() && i < ipc::kMaxTargets; ++i) {
    if (!best.empty() && targets[i].priority != targets[i - 1].priority) break;
    const Address address = address_of(trunk, i);
    if (address.empty()) continue;
    const double liked = weighted_preference(affinity, i, targets[i].weight);
    if (!best.empty() && liked <= most) continue;
    best = address;
    most = liked;
  }
  return best;
}

std::size_t DatagramPeers::most_request_bytes(TrunkId trunk, const Address& to) const {
  const ipc::TrunkEntry& entry = region_.trunk(trunk);
  for (unsigned place = 0; place < ipc::kMaxTargets; ++place) {
    if (entry.udp_address(place) == to)
      return sip::most_datagram_request_bytes(entry.udp[place].path_mtu.load(std::memory_order_relaxed));
  }
  return sip::most_datagram_request_bytes(0);
}

}  // namespace ktrunk::worker
