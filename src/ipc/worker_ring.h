// Worker ring: the io_uring of a worker, made by the supervisor, which keeps a descriptor of it. So the ring's
// completion queue outlives the worker: what the kernel received for it or sent for it, and the worker had not looked
// at when it died, is still there to be read. (A request that was under way is cancelled without effect; the kernel
// posts a completion for every one that took effect. Seen on 6.1, 6.12 and 7.3.)
//
// The worker inherits the descriptor by fork and exec: the kernel does not pass rings over Unix sockets.
#pragma once

#include <linux/io_uring.h>

#include <cstddef>
#include <cstdint>

#include "base/fd.h"
#include "base/result.h"

namespace ktrunk::ipc {

// Where the supervisor puts a worker's ring.
inline constexpr int kRingDescriptor = 4;

struct WorkerRing {
  Fd fd;
  io_uring_params parameters;  // as the kernel filled them in: what maps the ring needs them
};

// A ring that is disabled until the worker has restricted it; the worker's thread will be the only one to submit.
// completions: how many the worker may have in its queue at once; none may be lost to the kernel's overflow list.
[[nodiscard]] Result<WorkerRing> make_worker_ring(unsigned submissions, unsigned completions);

// What a dead worker had not looked at. Maps the ring's completion queue; read only.
class UnseenCompletions {
 public:
  [[nodiscard]] static Result<UnseenCompletions> look(const WorkerRing& ring);
  UnseenCompletions(UnseenCompletions&& other) noexcept;
  UnseenCompletions& operator=(UnseenCompletions&&) = delete;
  ~UnseenCompletions();

  // How many completions the worker had done with since the ring was made, modulo 2^32; those from here on are unseen.
  [[nodiscard]] std::uint32_t first() const { return first_; }
  [[nodiscard]] std::uint32_t count() const { return count_; }
  [[nodiscard]] const io_uring_cqe& at(std::uint32_t place) const;
  // Some went to the kernel's overflow list, which nobody can read.
  [[nodiscard]] bool overflowed() const { return overflowed_; }

 private:
  UnseenCompletions() = default;
  std::byte* base_ = nullptr;
  std::size_t bytes_ = 0;
  const io_uring_cqe* entries_ = nullptr;
  std::uint32_t mask_ = 0;
  std::uint32_t first_ = 0;
  std::uint32_t count_ = 0;
  bool overflowed_ = false;
};

}  // namespace ktrunk::ipc
