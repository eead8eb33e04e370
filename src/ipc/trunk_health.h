// Trunk health: whether the peer at the other end of a trunk's connection, or at a UDP target, answers OPTIONS (RFC
// 3261 11), as all processes see it in the shared region. A worker asks (worker/trunk_watch.h), whichever worker gets
// the answer writes it down, all of them leave out who is down, and the supervisor shows it.
#pragma once

#include <chrono>
#include <cstdint>

#include "ipc/shared.h"

namespace ktrunk::ipc {

enum class Health : std::uint8_t {
  kUnknown,   // nobody has asked yet, or nobody asks: taken for up
  kUp,        // the last question was answered
  kDegraded,  // one or more in a row were not, fewer than options_failures
  kDown,      // so many were not: no new requests
};

struct PeerHealth {
  using Clock = std::chrono::steady_clock;  // one clock for all processes
  // The last answer to a question of ours.
  struct Answer {
    int status = 0;  // 0: none yet
    Clock::time_point at{};
  };

  Shared<std::uint8_t> state{0};  // a Health; writer: the worker that asks
  // Milliseconds << 16 | status. Writers: the workers that an answer comes to. Each store is true by itself, and what
  // the last one says is the newest.
  Shared<std::uint64_t> answer{0};

  [[nodiscard]] Health health() const { return static_cast<Health>(state.load(std::memory_order_acquire)); }
  [[nodiscard]] bool is_down() const { return health() == Health::kDown; }
  void set(Health health) { state.store(static_cast<std::uint8_t>(health), std::memory_order_release); }

  [[nodiscard]] Answer last_answer() const {
    const std::uint64_t word = answer.load(std::memory_order_acquire);
    return {.status = static_cast<int>(word & 0xffff), .at = Clock::time_point(std::chrono::milliseconds(word >> 16))};
  }
  void answered(int status, Clock::time_point now) {
    const auto at = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count();
    answer.store(static_cast<std::uint64_t>(at) << 16 | static_cast<std::uint16_t>(status), std::memory_order_release);
  }
  // Before another peer has its place.
  void clear() {
    set(Health::kUnknown);
    answer.store(0, std::memory_order_release);
  }
};

}  // namespace ktrunk::ipc
