// Strong ids: numbers that must not be mixed up. They are trivially copyable and may lie in shared memory.
#pragma once

#include <compare>
#include <cstdint>
#include <limits>

namespace ktrunk {

// A number with a meaning. Tag is any type; two ids with different tags do not convert or compare.
template <typename Tag, typename Number>
struct Id {
  Number value = std::numeric_limits<Number>::max();  // the highest number means "none"

  [[nodiscard]] constexpr bool valid() const { return value != std::numeric_limits<Number>::max(); }
  friend constexpr auto operator<=>(Id, Id) = default;
};

using WorkerIndex = Id<struct WorkerTag, std::uint8_t>;        // 0 .. workers - 1
using HandshakeIndex = Id<struct HandshakeTag, std::uint8_t>;  // 0 .. handshake_processes - 1
using TrunkId = Id<struct TrunkTag, std::uint16_t>;            // place among the configuration's [[trunk]] tables
using ListenerId = Id<struct ListenerTag, std::uint16_t>;      // place among the configuration's [[listen]] tables
using SlotIndex = Id<struct SlotTag, std::uint32_t>;           // place in the connection table
using Generation = Id<struct GenerationTag, std::uint32_t>;    // counts the lives of a slot

// One connection, for ever: a slot is used again, the pair is not (until 2^32 lives of one slot have passed).
struct ConnectionId {
  SlotIndex slot;
  Generation generation;

  [[nodiscard]] constexpr bool valid() const { return slot.valid() && generation.valid(); }
  friend constexpr auto operator<=>(ConnectionId, ConnectionId) = default;
};

}  // namespace ktrunk
