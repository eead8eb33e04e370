// DatagramPeers: the peers that trunks have by UDP, as the shared region and the configuration know them: whose a
// datagram is, where a request to a trunk goes, and how large it may be.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/address.h"
#include "base/id.h"
#include "config/config.h"
#include "config/peer_addresses.h"
#include "ipc/shared_region.h"

namespace ktrunk::worker {

class DatagramPeers {
 public:
  // Both outlive it.
  DatagramPeers(const config::Config& config, const ipc::SharedRegion& region);

  // The trunk whose peer sent it: from where a UDP target is, or from one of the trunk's sources. Invalid: a stranger.
  [[nodiscard]] TrunkId trunk_of(const Address& from, ListenerId listener) const;

  // Where a transaction goes, by its hash: of the first targets by priority one of which is not down, shared out by
  // their weights, the first address that is not down. Empty: there is none.
  [[nodiscard]] Address choose(TrunkId trunk, std::uint64_t affinity) const;

  // A larger request is not to go in a datagram there (RFC 3261 18.1.1).
  [[nodiscard]] std::size_t most_request_bytes(TrunkId trunk, const Address& to) const;

 private:
  // The first of a target's addresses that is not down.
  [[nodiscard]] Address address_of(TrunkId trunk, std::size_t target) const;

  const config::Config& config_;
  const ipc::SharedRegion& region_;
  config::PeerAddresses addresses_;
  std::vector<TrunkId> trunks_;  // with UDP targets
};

}  // namespace ktrunk::worker
