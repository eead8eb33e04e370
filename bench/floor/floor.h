// Floor: the least that a forwarded message and a handshake can cost on this machine, as yardsticks for ktrunkd.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "bench/handshakes/handshakes.h"
#include "bench/load/load.h"

namespace ktrunk::bench {

struct FloorOptions {
  LoadOptions load;  // but for its endpoints
  HandshakeOptions handshakes;
  // Empty: thrown away after the run. certificate: also its own authority, unless load.tls.ca says another.
  std::string certificate;
  std::string key;
  std::string key_type = "ecdsa";  // of one made for the run: ecdsa, rsa
  bool mutual = false;             // client certificates in the handshakes
};

struct FloorResult {
  std::string how;  // who made the records of the forwarder, in a sentence
  bool plain_tcp = false;
  LoadResult forwarding;
  double forwarding_ns_per_message = 0;  // the forwarder's CPU time
  struct Handshakes {
    HandshakeOptions options;
    HandshakeResult result;
  };
  Handshakes full;
  Handshakes resumed;
};

[[nodiscard]] Result<FloorResult> run_floor(FloorOptions options);

}  // namespace ktrunk::bench
