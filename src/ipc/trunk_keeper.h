// Trunk keeper: which of several handshake processes keeps a trunk's connections up and resolves its UDP targets. The
// processes take their trunks by it, and the supervisor tells that process when a connection of the trunk is gone.
#pragma once

#include <cstdint>

#include "base/id.h"

namespace ktrunk::ipc {

// processes: how many there are, at least 1.
[[nodiscard]] constexpr HandshakeIndex keeper_of(TrunkId trunk, unsigned processes) {
  return HandshakeIndex{static_cast<std::uint8_t>(trunk.value % processes)};
}

}  // namespace ktrunk::ipc
