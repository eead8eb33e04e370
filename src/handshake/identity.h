// Identity: which trunk a peer that connected to us is, by the names in its verified certificate (RFC 5922, RFC 5923).
#pragma once

#include "base/id.h"
#include "config/config.h"
#include "handshake/peer_identity.h"

namespace ktrunk::handshake {

// The first trunk whose verify_name the certificate carries; a trunk without one goes by the hosts of its TLS targets,
// the names that it is verified by when we connect to it. None: an invalid id.
[[nodiscard]] TrunkId trunk_of(const config::Config& config, const PeerIdentity& peer);

}  // namespace ktrunk::handshake
