#include "config/peer_addresses.h"

#include <algorithm>
#include <tuple>

namespace ktrunk::config {

bool PeerAddresses::takes(const Trunk& trunk, ListenerId listener) {
  return trunk.accept_on.empty() || std::ranges::find(trunk.accept_on, listener) != trunk.accept_on.end();
}

PeerAddresses::PeerAddresses(const Config& config) : config_(config) {
  for (std::uint16_t i = 0; i < config.trunks.size(); ++i) {
    if (config.trunks[i].known_by != KnownBy::kAddress) continue;
    for (const IpNetwork& source : config.trunks[i].sources)
      entries_.push_back({.prefix = source.prefix(), .bytes = source.bytes(), .trunk = TrunkId{i}});
  }
  std::ranges::sort(entries_, [](const Entry& a, const Entry& b) {
    return std::tuple(b.prefix, a.bytes, a.trunk.value) < std::tuple(a.prefix, b.bytes, b.trunk.value);
  });
  for (const Entry& entry : entries_) {
    if (prefixes_.empty() || prefixes_.back() != entry.prefix) prefixes_.push_back(entry.prefix);
  }
}

TrunkId PeerAddresses::find(const Address& peer, ListenerId listener) const {
  if (entries_.empty()) return {};
  const auto bytes = IpNetwork::bytes_of(peer);
  if (!bytes) return {};
  for (const unsigned prefix : prefixes_) {
    const IpNetwork::Bytes wanted = IpNetwork::masked(*bytes, prefix);
    const auto before = [](const Entry& entry, const std::pair<unsigned, IpNetwork::Bytes>& key) {
      return std::tuple(key.first, entry.bytes) < std::tuple(entry.prefix, key.second);
    };
    for (auto at = std::lower_bound(entries_.begin(), entries_.end(), std::pair(prefix, wanted), before);
         at != entries_.end() && at->prefix == prefix && at->bytes == wanted; ++at) {
      if (takes(config_.trunks[at->trunk.value], listener)) return at->trunk;
    }
  }
  return {};
}

bool PeerAddresses::admits(const Trunk& trunk, const Address& peer, ListenerId listener) {
  return takes(trunk, listener) &&
         (trunk.sources.empty() ||
          std::ranges::any_of(trunk.sources, [&](const auto& source) { return source.contains(peer); }));
}

}  // namespace ktrunk::config
