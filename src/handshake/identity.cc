#include "handshake/identity.h"

#include <algorithm>
#include <cstddef>

namespace ktrunk::handshake {
namespace {

bool is_peer(const config::Trunk& trunk, const PeerIdentity& peer) {
  if (trunk.known_by != config::KnownBy::kCertificate) return false;
  if (!trunk.verify_name.empty()) return peer.matches(trunk.verify_name);
  return std::ranges::any_of(trunk.targets, [&](const config::Target& target) {
    return target.transport == config::Transport::kTls && peer.matches(target.host);
  });
}

}  // namespace

Identified identify(const config::Config& config, const config::PeerAddresses& addresses, const Visitor& visitor) {
  Identified who;
  for (std::uint16_t i = 0; visitor.identity != nullptr && i < config.trunks.size(); ++i) {
    const config::Trunk& trunk = config.trunks[i];
    if (!is_peer(trunk, *visitor.identity)) continue;
    if (config::PeerAddresses::admits(trunk, visitor.address, visitor.listener))
      return {.trunk = TrunkId{i}, .elsewhere = {}};
    if (!who.elsewhere.valid()) who.elsewhere = TrunkId{i};
  }
  who.trunk = addresses.find(visitor.address, visitor.listener);
  return who;
}

}  // namespace ktrunk::handshake
