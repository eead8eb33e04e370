// Spread: what a home worker remembers of a connection whose messages it spreads over all workers, or wants to, or did
// (fan_out.h). Most connections never have one.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/event_loop.h"
#include "worker/control_records.h"

namespace ktrunk::worker {

struct Spread {
  enum class Mode : std::uint8_t {
    kHome,     // messages are handled here
    kHeating,  // the same, but nothing is handled until what was handled before has been sent
    kSpread,   // messages go to the worker that their Call-ID says
    kMoving,   // another worker is to receive from it: no more is received
    kCooling,  // the same, but nothing is handled until what was handed over before has been handled and sent
  };
  Mode mode = Mode::kHome;
  bool held = false;          // what arrives is kept, and no more is received, until the others have room
  Clock::time_point since{};  // of the mode
  // ChunkStore::newest() at the beginning of kHeating; in kMoving when the last had been received, + 1.
  std::uint64_t mark = 0;
  std::uint32_t messages = 0;  // kSpread: since the last tick
  unsigned quiet_ticks = 0;
  // The stream has come to its end, which is told when what was handed over of it has been handled: when each worker
  // has got as far as here.
  std::optional<StreamFault> end;
  Clock::time_point end_since{};
  std::vector<std::uint32_t> handed;
};

// How busy a connection is: turns of the loop that brought many of its messages, lately.
struct Heat {
  Clock::time_point since{};
  std::uint32_t turn = 0;
  std::uint16_t messages = 0;  // in that turn
  std::uint8_t turns = 0;      // busy ones since then
};

}  // namespace ktrunk::worker
