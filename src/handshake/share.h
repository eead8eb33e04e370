// Share: which trunks a handshake process keeps up (ipc/trunk_keeper.h). Listeners belong to all of them.
#pragma once

#include "base/id.h"
#include "ipc/trunk_keeper.h"

namespace ktrunk::handshake {

struct Share {
  HandshakeIndex self{0};
  unsigned processes = 1;

  [[nodiscard]] bool has(TrunkId trunk) const { return ipc::keeper_of(trunk, processes) == self; }
};

}  // namespace ktrunk::handshake
