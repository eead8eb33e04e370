#include "bench/io/reactor.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "ipc/limits.h"
#include "ktls/control_record.h"

namespace ktrunk::bench {
namespace {

constexpr unsigned kRingEntries = 2048;
constexpr std::uint16_t kBufferGroup = 1;
constexpr unsigned kBufferCount = 256;
constexpr std::size_t kBufferBytes = sizeof(io_uring_recvmsg_out) + ktls::kControlBytes + ipc::kRecordBytes;
constexpr unsigned kCompletionsPerTurn = 8192;  // then time is looked at again
constexpr std::uint64_t kNobody = ~std::uint64_t{0};

constexpr std::uint64_t pack(unsigned what, std::uint32_t place) { return std::uint64_t{what} << 32 | place; }

}  // namespace

Result<std::unique_ptr<Reactor>> Reactor::create() {
  auto ring = worker::Ring::create(kRingEntries);
  if (!ring) return std::unexpected(ring.error());
  std::unique_ptr<Reactor> reactor(new Reactor);
  reactor->ring_ = std::move(*ring);
  auto buffers = reactor->ring_->add_buffers(kBufferGroup, kBufferCount, kBufferBytes);
  if (!buffers) return std::unexpected(buffers.error());
  reactor->buffers_ = *buffers;
  reactor->shape_.msg_controllen = ktls::kControlBytes;
  return reactor;
}

Reactor::~Reactor() { ring_.reset(); }  // before what its operations point to

void Reactor::attach(Source& source) {
  if (source.place_ != Source::kNoPlace) return;
  if (free_places_.empty()) {
    source.place_ = static_cast<std::uint32_t>(places_.size());
    places_.push_back(&source);
  } else {
    source.place_ = free_places_.back();
    free_places_.pop_back();
    places_[source.place_] = &source;
  }
}

io_uring_sqe* Reactor::prepare(Source& source, unsigned what) {
  attach(source);
  io_uring_sqe* sqe = ring_->prepare({worker::OperationKind::kReceive});
  io_uring_sqe_set_data64(sqe, pack(what, source.place_));
  ++source.operations_;
  return sqe;
}

void Reactor::prepare_receive(Source& source, unsigned what, int fd) {
  io_uring_sqe* sqe = prepare(source, what);
  io_uring_prep_recvmsg_multishot(sqe, fd, &shape_, 0);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = kBufferGroup;
}

std::optional<Received> Reactor::received(int result, unsigned flags) {
  if (result < 0 || (flags & IORING_CQE_F_BUFFER) == 0) return std::nullopt;
  char* buffer = buffers_->data(flags >> IORING_CQE_BUFFER_SHIFT);
  io_uring_recvmsg_out* out = io_uring_recvmsg_validate(buffer, result, &shape_);
  if (out == nullptr) return std::nullopt;
  return Received{.octets = {static_cast<const char*>(io_uring_recvmsg_payload(out, &shape_)),
                             io_uring_recvmsg_payload_length(out, result, &shape_)},
                  .control = {static_cast<const std::byte*>(io_uring_recvmsg_name(out)), out->controllen},
                  .flags = static_cast<int>(out->flags)};
}

void Reactor::recycle(unsigned flags) {
  if ((flags & IORING_CQE_F_BUFFER) != 0) buffers_->recycle(flags >> IORING_CQE_BUFFER_SHIFT);
}

void Reactor::at_turn_end(Source& source) {
  if (std::exchange(source.wants_turn_end_, true)) return;
  turn_end_.push_back(&source);
}

void Reactor::retire(std::unique_ptr<Source> source, int fd) {
  std::erase(turn_end_, source.get());
  if (source->operations_ != 0) {
    io_uring_sqe* sqe = ring_->prepare({worker::OperationKind::kCancel});
    io_uring_prep_cancel_fd(sqe, fd, IORING_ASYNC_CANCEL_ALL);
    io_uring_sqe_set_data64(sqe, kNobody);
  }
  retired_.push_back(std::move(source));
}

void Reactor::drop_retired() {
  std::erase_if(retired_, [this](const std::unique_ptr<Source>& source) {
    if (source->operations_ != 0) return false;
    if (source->place_ != Source::kNoPlace) {
      places_[source->place_] = nullptr;
      free_places_.push_back(source->place_);
    }
    return true;
  });
}

void Reactor::end_turn() {
  // turn_ended() may ask for another one, for what it has just brought about.
  for (std::size_t i = 0; i < turn_end_.size(); ++i) {
    Source* source = turn_end_[i];
    source->wants_turn_end_ = false;
    source->turn_ended();
  }
  turn_end_.clear();
}

Status Reactor::turn(Clock::time_point deadline) {
  end_turn();
  const auto wait = std::max(Clock::duration::zero(), deadline - Clock::now());
  const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(wait).count();
  __kernel_timespec limit{.tv_sec = ns / 1'000'000'000, .tv_nsec = ns % 1'000'000'000};
  io_uring_cqe* cqe = nullptr;
  const int error = io_uring_submit_and_wait_timeout(ring_->raw(), &cqe, 1, &limit, nullptr);
  if (error < 0 && error != -ETIME && error != -EINTR && error != -EBUSY && error != -EAGAIN)
    return fail_errno(-error, "wait on the io_uring");
  ++turns_;
  for (unsigned count = 0; count < kCompletionsPerTurn && io_uring_peek_cqe(ring_->raw(), &cqe) == 0; ++count) {
    const std::uint64_t data = cqe->user_data;
    const int result = cqe->res;
    const unsigned flags = cqe->flags;
    io_uring_cqe_seen(ring_->raw(), cqe);
    if (data == kNobody) continue;
    Source* source = places_[data & 0xffffffff];
    if ((flags & IORING_CQE_F_MORE) == 0) --source->operations_;
    source->completed(static_cast<unsigned>(data >> 32), result, flags);
  }
  if (!retired_.empty()) drop_retired();
  return {};
}

}  // namespace ktrunk::bench
