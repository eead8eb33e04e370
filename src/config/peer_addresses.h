// PeerAddresses: which trunk a peer is that comes to us, by its address (trunk.sources of those known by address), and
// whether an address is one that a trunk's peers may have. Of several networks that an address is in, the longest
// prefix counts; of trunks with the same network, the first in the file.
#pragma once

#include <cstdint>
#include <vector>

#include "base/address.h"
#include "base/id.h"
#include "base/ip_network.h"
#include "config/config.h"

namespace ktrunk::config {

class PeerAddresses {
 public:
  // config must outlive it.
  explicit PeerAddresses(const Config& config);

  // An invalid id: nobody's. Costs a look-up for each length of prefix that there is.
  [[nodiscard]] TrunkId find(const Address& peer, ListenerId listener) const;
  // Whether the trunk's peers may come by this listener.
  [[nodiscard]] static bool takes(const Trunk& trunk, ListenerId listener);
  // Whether a peer that is known otherwise may come from there and by that listener.
  [[nodiscard]] static bool admits(const Trunk& trunk, const Address& peer, ListenerId listener);

 private:
  struct Entry {
    unsigned prefix;
    IpNetwork::Bytes bytes;
    TrunkId trunk;
  };
  const Config& config_;
  std::vector<Entry> entries_;      // longest prefixes first, then by address and place in the file
  std::vector<unsigned> prefixes_;  // that occur, longest first
};

}  // namespace ktrunk::config
