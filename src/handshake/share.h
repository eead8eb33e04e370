// Share: which trunks a handshake process keeps up: trunk i belongs to process i modulo their number. Listeners belong
// to all of them.
#pragma once

#include "base/id.h"

namespace ktrunk::handshake {

struct Share {
  HandshakeIndex self{0};
  unsigned processes = 1;

  [[nodiscard]] bool has(TrunkId trunk) const { return trunk.value % processes == self.value; }
};

}  // namespace ktrunk::handshake
