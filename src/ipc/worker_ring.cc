#include "ipc/worker_ring.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <utility>

namespace ktrunk::ipc {
namespace {

constexpr unsigned kMostCompletions = 65'536;  // IORING_MAX_CQ_ENTRIES

std::uint32_t read_word(const std::byte* at) {
  return std::atomic_ref(*reinterpret_cast<std::uint32_t*>(const_cast<std::byte*>(at))).load(std::memory_order_acquire);
}

}  // namespace

Result<WorkerRing> make_worker_ring(unsigned submissions, unsigned completions) {
  WorkerRing ring{.fd = {}, .parameters = {}};
  // One thread submits and reaps; completions are run when it waits, so that they arrive in batches.
  ring.parameters.flags =
      IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE | IORING_SETUP_R_DISABLED;
  ring.parameters.cq_entries = std::min(std::bit_ceil(completions), kMostCompletions);
  ring.fd = Fd(static_cast<int>(::syscall(SYS_io_uring_setup, submissions, &ring.parameters)));
  if (ring.fd.valid()) return ring;
  if (errno == EPERM)
    return fail("io_uring is refused: set sysctl kernel.io_uring_disabled=0, or allow it in the container's seccomp");
  if (errno == EINVAL || errno == ENOSYS) return fail("this kernel's io_uring is too old: Linux 6.1 is needed");
  return fail_errno(errno, "create an io_uring");
}

Result<UnseenCompletions> UnseenCompletions::look(const WorkerRing& ring) {
  const io_uring_params& parameters = ring.parameters;
  UnseenCompletions unseen;
  // Both rings lie in one mapping (IORING_FEAT_SINGLE_MMAP, Linux 5.4).
  unseen.bytes_ = std::max(parameters.cq_off.cqes + parameters.cq_entries * sizeof(io_uring_cqe),
                           parameters.sq_off.array + parameters.sq_entries * sizeof(std::uint32_t));
  void* base = ::mmap(nullptr, unseen.bytes_, PROT_READ, MAP_SHARED, ring.fd.get(), IORING_OFF_CQ_RING);
  if (base == MAP_FAILED) return fail_errno(errno, "map the completions of a dead worker");
  unseen.base_ = static_cast<std::byte*>(base);
  unseen.entries_ = reinterpret_cast<const io_uring_cqe*>(unseen.base_ + parameters.cq_off.cqes);
  unseen.mask_ = parameters.cq_entries - 1;
  unseen.first_ = read_word(unseen.base_ + parameters.cq_off.head);
  unseen.count_ = read_word(unseen.base_ + parameters.cq_off.tail) - unseen.first_;
  unseen.overflowed_ = (read_word(unseen.base_ + parameters.sq_off.flags) & IORING_SQ_CQ_OVERFLOW) != 0;
  if (unseen.count_ > parameters.cq_entries) return fail("a dead worker's completion queue makes no sense");
  return unseen;
}

UnseenCompletions::UnseenCompletions(UnseenCompletions&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)),
      bytes_(other.bytes_),
      entries_(other.entries_),
      mask_(other.mask_),
      first_(other.first_),
      count_(other.count_),
      overflowed_(other.overflowed_) {}

UnseenCompletions::~UnseenCompletions() {
  if (base_ != nullptr) ::munmap(base_, bytes_);
}

const io_uring_cqe& UnseenCompletions::at(std::uint32_t place) const { return entries_[(first_ + place) & mask_]; }

}  // namespace ktrunk::ipc
