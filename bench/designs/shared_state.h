// Shared state: what the processes of one design tell each other and the measuring program, in memory that all map.
#pragma once

#include <sys/mman.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <new>

#include "base/result.h"

namespace ktrunk::bench {

inline constexpr unsigned kMaxDesignWorkers = 32;

enum class Pace : std::uint32_t {
  kPause,  // nothing is sent
  kFull,   // as much as the connection takes
  kRate,   // what is due (open loop)
};

struct alignas(64) WorkerState {
  std::atomic<std::int32_t> pid{0};
  std::atomic<std::uint64_t> written{0};           // messages that the connection (or the owner) has taken
  std::atomic<std::uint64_t> longest_still_ns{0};  // between two turns of its loop: when it could do nothing else
};

struct SharedState {
  std::atomic<Pace> pace{Pace::kPause};
  std::atomic<std::uint64_t> rate_millihertz{0};  // of each worker
  std::atomic<std::uint64_t> rate_begin_ns{0};    // CLOCK_MONOTONIC; the first message is due then
  std::atomic<std::uint32_t> ready{0};            // workers that can send
  std::atomic<bool> failed{false};                // somebody said why on standard error
  std::array<WorkerState, kMaxDesignWorkers> workers;
};
static_assert(std::atomic<Pace>::is_always_lock_free && std::atomic<std::uint64_t>::is_always_lock_free);

struct UnmapSharedState {
  void operator()(SharedState* state) const { ::munmap(state, sizeof *state); }
};
using SharedStatePtr = std::unique_ptr<SharedState, UnmapSharedState>;

[[nodiscard]] inline Result<SharedStatePtr> make_shared_state() {
  void* memory = ::mmap(nullptr, sizeof(SharedState), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return fail_errno(errno, "map shared memory");
  return SharedStatePtr(new (memory) SharedState);
}

// One message on the wire: this, and padding up to the run's message length. Both ends are one program.
struct MessageHead {
  static constexpr std::uint32_t kMagic = 0x4b54424d;
  std::uint32_t magic = kMagic;
  std::uint32_t worker = 0;
  std::uint64_t number = 0;  // of this worker's messages, from 0
  std::uint64_t due_ns = 0;  // CLOCK_MONOTONIC
};

}  // namespace ktrunk::bench
