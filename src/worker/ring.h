// Ring: a worker's io_uring, and BufferRing: the buffers that the kernel picks from for multishot receives.
// Needs Linux 6.1 (multishot recvmsg, DEFER_TASKRUN).
#pragma once

#include <liburing.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "ipc/crash_point.h"
#include "worker/operation.h"

namespace ktrunk::worker {

// A group of equal buffers registered with a ring, which owns them. The kernel takes one per receive; it is the
// worker's until recycle().
class BufferRing {
 public:
  ~BufferRing();
  BufferRing(const BufferRing&) = delete;
  BufferRing& operator=(const BufferRing&) = delete;

  [[nodiscard]] std::uint16_t group() const { return group_; }
  [[nodiscard]] char* data(unsigned buffer) { return memory_ + buffer * buffer_bytes_; }
  void recycle(unsigned buffer);

 private:
  friend class Ring;
  BufferRing() = default;
  io_uring_buf_ring* entries_ = nullptr;
  std::size_t mapped_bytes_ = 0;
  char* memory_ = nullptr;
  std::size_t buffer_bytes_ = 0;
  unsigned count_ = 0;
  std::uint16_t group_ = 0;
};

class Ring {
 public:
  enum class State : std::uint8_t {
    kEnabled,   // any operation may be submitted
    kDisabled,  // none, until enable()
  };
  // entries: submissions that may be prepared between two waits; more are submitted early, none is lost.
  [[nodiscard]] static Result<std::unique_ptr<Ring>> create(unsigned entries, State state = State::kEnabled);
  // One that the supervisor has made (ipc/worker_ring.h): disabled, and this process is its first user. Takes the
  // descriptor over.
  [[nodiscard]] static Result<std::unique_ptr<Ring>> attach(Fd fd, const io_uring_params& parameters);
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // A group of buffers for multishot receives; it lives as long as the ring. count is a power of two. Not after
  // enable(). memory: for all of them, longer-lived than the ring; the group's own when it is empty. The kernel gets
  // none of those for which `in_use` holds, before they are recycled.
  [[nodiscard]] Result<BufferRing*> add_buffers(
      std::uint16_t group, unsigned count, std::size_t buffer_bytes, std::span<std::byte> memory = {},
      const std::function<bool(unsigned buffer)>& in_use = [](unsigned) { return false; });

  // On a disabled ring: from now on these operations can be submitted, and no others for ever; nothing more can be
  // registered (IORING_REGISTER_RESTRICTIONS). The calling thread is the one that submits.
  [[nodiscard]] Status enable(std::span<const io_uring_op> operations);

  // A blank submission, marked with its operation. Fill it in with liburing's io_uring_prep_*, which keep user_data.
  [[nodiscard]] io_uring_sqe* prepare(Operation operation);

  // Submits what is prepared and waits for at least one completion, in one system call. Returns without error when a
  // signal interrupted the wait.
  [[nodiscard]] Status submit_and_wait();
  // Submits what is prepared, without waiting.
  void submit();

  // Calls handle(Operation, result, flags, place) for the completions that are there, without a system call. place
  // counts the ring's completions from 0. A completion is marked as seen when handle() is through with it: if the
  // process dies before that, it is still there for others to see.
  template <typename Handle>
  void for_each_completion(Handle&& handle) {
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
      handle(Operation::unpack(cqe->user_data), cqe->res, cqe->flags, *ring_.cq.khead);
      io_uring_cqe_seen(&ring_, cqe);
      ipc::crash_point();
    }
  }

  [[nodiscard]] io_uring* raw() { return &ring_; }
  [[nodiscard]] std::uint64_t submits() const { return submits_; }

 private:
  Ring() = default;
  io_uring ring_{};
  bool initialised_ = false;
  std::uint64_t submits_ = 0;
  std::vector<std::unique_ptr<BufferRing>> buffers_;  // the kernel may write there until the ring has gone
};

}  // namespace ktrunk::worker
