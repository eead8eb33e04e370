// Identity: which trunk a peer that connected to us is: by the names in its verified certificate (RFC 5922, RFC 5923),
// or by its address, as trunk.known_by says.
#pragma once

#include "base/address.h"
#include "base/id.h"
#include "config/config.h"
#include "config/peer_addresses.h"
#include "handshake/peer_identity.h"

namespace ktrunk::handshake {

// Who came, and by which listener.
struct Visitor {
  const PeerIdentity* identity = nullptr;  // of its verified certificate; null: it has shown none
  Address address;
  ListenerId listener;
};

struct Identified {
  TrunkId trunk;      // invalid: none
  TrunkId elsewhere;  // its certificate is that trunk's, which does not take it from this address or by this listener
};

// Of those known by certificate the first trunk whose verify_name it carries; a trunk without one goes by the hosts of
// its TLS targets, the names that it is verified by when we connect to it. Else one that is known by address.
[[nodiscard]] Identified identify(const config::Config& config, const config::PeerAddresses& addresses,
                                  const Visitor& visitor);

}  // namespace ktrunk::handshake
