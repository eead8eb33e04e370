// Operation: what a completion belongs to, packed into io_uring's 64-bit user_data. It names things by number, never by
// pointer, so that a completion that outlives its connection finds nothing instead of freed memory.
#pragma once

#include <cstdint>

#include "base/id.h"

namespace ktrunk::worker {

enum class OperationKind : std::uint8_t {
  kChannelReadable = 1,
  kChannelWritable,
  kDoorbell,
  kTick,
  kReceive,       // of a connection
  kSend,          // of a connection: the block at the head of its queue
  kAlert,         // of a connection: its last record
  kDatagrams,     // index: place among the UDP sockets
  kDatagramSend,  // index: place among the datagrams in flight
  kCancel,        // nobody waits for its result
  kSoon,          // a turn of the loop is wanted then, nothing else
};

struct Operation {
  OperationKind kind;
  std::uint32_t index = 0;       // a slot of the connection table (24 bits), or as said above
  std::uint32_t generation = 0;  // of the slot

  [[nodiscard]] constexpr std::uint64_t pack() const {
    return std::uint64_t{static_cast<std::uint8_t>(kind)} << 56 | std::uint64_t{index & 0xffffff} << 32 | generation;
  }
  [[nodiscard]] static constexpr Operation unpack(std::uint64_t data) {
    return {static_cast<OperationKind>(data >> 56), static_cast<std::uint32_t>(data >> 32 & 0xffffff),
            static_cast<std::uint32_t>(data)};
  }
  [[nodiscard]] static constexpr Operation on(OperationKind kind, ConnectionId id) {
    return {kind, id.slot.value, id.generation.value};
  }
};

}  // namespace ktrunk::worker
