#include "handshake/identity.h"

#include <algorithm>
#include <cstddef>

namespace ktrunk::handshake {
namespace {

bool is_peer(const config::Trunk& trunk, const PeerIdentity& peer) {
  if (!trunk.verify_name.empty()) return peer.matches(trunk.verify_name);
  return std::ranges::any_of(trunk.targets, [&](const config::Target& target) {
    return target.transport == config::Transport::kTls && peer.matches(target.host);
  });
}

}  // namespace

TrunkId trunk_of(const config::Config& config, const PeerIdentity& peer) {
  for (std::size_t i = 0; i < config.trunks.size(); ++i) {
    if (is_peer(config.trunks[i], peer)) return TrunkId{static_cast<std::uint16_t>(i)};
  }
  return {};
}

}  // namespace ktrunk::handshake
