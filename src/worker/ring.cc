#include "worker/ring.h"

#include <sys/mman.h>

#include <cerrno>

namespace ktrunk::worker {
Result<std::unique_ptr<Ring>> Ring::create(unsigned entries, State state) {
  auto ring = std::unique_ptr<Ring>(new Ring);
  io_uring_params parameters{};
  // One thread submits and reaps; completions are run when it waits, so that they arrive in batches.
  parameters.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE;
  if (state == State::kDisabled) parameters.flags |= IORING_SETUP_R_DISABLED;
  parameters.cq_entries = entries * 8;
  const int error = io_uring_queue_init_params(entries, &ring->ring_, &parameters);
  if (error == -EPERM)
    return fail("io_uring is refused: set sysctl kernel.io_uring_disabled=0, or allow it in the container's seccomp");
  if (error == -EINVAL || error == -ENOSYS) return fail("this kernel's io_uring is too old: Linux 6.1 is needed");
  if (error < 0) return fail_errno(-error, "create an io_uring");
  ring->initialised_ = true;
  return ring;
}

Result<std::unique_ptr<Ring>> Ring::attach(Fd fd, const io_uring_params& parameters) {
  auto ring = std::unique_ptr<Ring>(new Ring);
  io_uring_params copy = parameters;
  if (const int error = io_uring_queue_mmap(fd.get(), &copy, &ring->ring_); error < 0)
    return fail_errno(-error, "map the io_uring that the supervisor made");
  (void)fd.release();
  ring->initialised_ = true;
  ring->ring_.features = parameters.features;
  for (unsigned i = 0; i < parameters.sq_entries; ++i) ring->ring_.sq.array[i] = i;  // newer liburings expect it so
  return ring;
}

Ring::~Ring() {
  if (initialised_) io_uring_queue_exit(&ring_);
}

Status Ring::enable(std::span<const io_uring_op> operations) {
  std::vector<io_uring_restriction> restrictions(operations.size() + 1);
  for (std::size_t i = 0; i < operations.size(); ++i) {
    restrictions[i].opcode = IORING_RESTRICTION_SQE_OP;
    restrictions[i].sqe_op = static_cast<std::uint8_t>(operations[i]);
  }
  restrictions.back().opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
  restrictions.back().sqe_flags = IOSQE_BUFFER_SELECT;
  // Debian's liburing 2.3 declares functions for these two and does not export them.
  if (const int error = io_uring_register(static_cast<unsigned>(ring_.ring_fd), IORING_REGISTER_RESTRICTIONS,
                                          restrictions.data(), static_cast<unsigned>(restrictions.size()));
      error < 0)
    return fail_errno(-error, "restrict the io_uring");
  if (const int error =
          io_uring_register(static_cast<unsigned>(ring_.ring_fd), IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
      error < 0)
    return fail_errno(-error, "enable the io_uring");
  return {};
}

io_uring_sqe* Ring::prepare(Operation operation) {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  while (sqe == nullptr) {
    ++submits_;
    (void)io_uring_submit(&ring_);
    ipc::crash_point();
    sqe = io_uring_get_sqe(&ring_);
  }
  io_uring_sqe_set_data64(sqe, operation.pack());
  return sqe;
}

void Ring::submit() {
  ++submits_;
  (void)io_uring_submit(&ring_);
}

Status Ring::submit_and_wait() {
  ++submits_;
  const int result = io_uring_submit_and_wait(&ring_, 1);
  ipc::crash_point();
  // EBUSY: the completion queue has overflowed into the kernel's list; reaping makes room.
  if (result >= 0 || result == -EINTR || result == -EBUSY || result == -EAGAIN) return {};
  return fail_errno(-result, "wait on the io_uring");
}

Result<BufferRing*> Ring::add_buffers(std::uint16_t group, unsigned count, std::size_t buffer_bytes,
                                      std::span<std::byte> memory, const std::function<bool(unsigned)>& in_use) {
  auto buffers = std::unique_ptr<BufferRing>(new BufferRing);
  const std::size_t entries_bytes = (count * sizeof(io_uring_buf) + 4095) / 4096 * 4096;
  buffers->mapped_bytes_ = entries_bytes + (memory.empty() ? count * buffer_bytes : 0);
  void* base = ::mmap(nullptr, buffers->mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) return fail_errno(errno, "map receive buffers");
  buffers->entries_ = static_cast<io_uring_buf_ring*>(base);
  buffers->memory_ = memory.empty() ? static_cast<char*>(base) + entries_bytes : reinterpret_cast<char*>(memory.data());
  buffers->buffer_bytes_ = buffer_bytes;
  buffers->count_ = count;
  buffers->group_ = group;
  io_uring_buf_reg registration{};
  registration.ring_addr = reinterpret_cast<std::uintptr_t>(base);
  registration.ring_entries = count;
  registration.bgid = group;
  if (const int error = io_uring_register_buf_ring(&ring_, &registration, 0); error < 0)
    return fail_errno(-error, "register receive buffers");
  io_uring_buf_ring_init(buffers->entries_);
  for (unsigned buffer = 0; buffer < count; ++buffer) {
    if (!in_use(buffer)) buffers->recycle(buffer);
  }
  buffers_.push_back(std::move(buffers));
  return buffers_.back().get();
}

BufferRing::~BufferRing() {
  if (entries_ != nullptr) ::munmap(entries_, mapped_bytes_);
}

void BufferRing::recycle(unsigned buffer) {
  io_uring_buf_ring_add(entries_, data(buffer), static_cast<unsigned>(buffer_bytes_),
                        static_cast<unsigned short>(buffer), io_uring_buf_ring_mask(count_), 0);
  io_uring_buf_ring_advance(entries_, 1);
}

}  // namespace ktrunk::worker
