#include "ipc/estate.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace ktrunk::ipc {
namespace {

constexpr std::uint64_t kMagic = 0x6b74727565730002;  // layout 2

constexpr std::size_t kPage = 4096;
constexpr std::size_t page_aligned(std::size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

}  // namespace

struct Estate::Head {
  std::uint64_t magic;
  std::uint32_t first_number;
  Shared<std::uint32_t> inherited;  // how many there are
  Shared<std::uint32_t> small_used;
  Shared<std::uint32_t> records_used;
  io_uring_params ring;
  Hand hand;
};

namespace {

// Where each part begins; each on its own pages.
struct Offsets {
  std::size_t inherited, small_heads, record_heads, stream_buffers, datagram_buffers, small_data, record_data, end;
};
constexpr Offsets offsets() {
  Offsets at{};
  at.inherited = kPage;
  at.small_heads = page_aligned(at.inherited + Estate::kMostInherited * sizeof(Inherited));
  at.record_heads = page_aligned(at.small_heads + Estate::kSmallChunks * sizeof(Chunk));
  at.stream_buffers = page_aligned(at.record_heads + Estate::kRecordChunks * sizeof(Chunk));
  at.datagram_buffers = page_aligned(at.stream_buffers + Estate::kStreamBuffers * Estate::kStreamBufferBytes);
  at.small_data = page_aligned(at.datagram_buffers + Estate::kDatagramBuffers * Estate::kDatagramBufferBytes);
  at.record_data = page_aligned(at.small_data + Estate::kSmallChunks * Estate::kSmallBytes);
  at.end = page_aligned(at.record_data + Estate::kRecordChunks * kRecordBytes);
  return at;
}
constexpr Offsets kAt = offsets();

}  // namespace

std::string Estate::layout() {
  return fmt::format("{:x}/{}+{}+{}", kMagic & 0xffff, kAt.end, sizeof(Head), sizeof(Chunk));
}

Result<Fd> Estate::create() {
  Fd memory(::memfd_create("ktrunk-estate", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory.valid()) return fail_errno(errno, "create a worker's estate");
  if (::ftruncate(memory.get(), static_cast<off_t>(kAt.end)) != 0)
    return fail_errno(errno, fmt::format("size a worker's estate to {} octets", kAt.end));
  if (::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return fail_errno(errno, "seal the size of a worker's estate");
  return memory;
}

Result<Estate> Estate::map(Fd memory) {
  static_assert(sizeof(Head) <= kPage);
  struct stat status{};
  if (::fstat(memory.get(), &status) != 0) return fail_errno(errno, "look at the estate");
  if (static_cast<std::size_t>(status.st_size) != kAt.end)
    return fail("the estate has {} octets and not {}: programs of different versions?", status.st_size, kAt.end);
  void* base = ::mmap(nullptr, kAt.end, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  if (base == MAP_FAILED) return fail_errno(errno, "map the estate");
  Estate estate;
  estate.memory_ = std::move(memory);
  estate.base_ = static_cast<std::byte*>(base);
  // Zeroed memory is an empty estate.
  Head& head = estate.head();
  if (head.magic == 0) head.magic = kMagic;
  if (head.magic != kMagic) return fail("the estate has another layout: programs of different versions?");
  if (head.inherited.load() > kMostInherited || head.small_used.load() > kSmallChunks ||
      head.records_used.load() > kRecordChunks)
    return fail("the estate makes no sense");
  return estate;
}

Estate::Estate(Estate&& other) noexcept { *this = std::move(other); }

Estate& Estate::operator=(Estate&& other) noexcept {
  if (this == &other) return *this;
  if (base_ != nullptr) ::munmap(base_, kAt.end);
  memory_ = std::move(other.memory_);
  base_ = std::exchange(other.base_, nullptr);
  return *this;
}

Estate::~Estate() {
  if (base_ != nullptr) ::munmap(base_, kAt.end);
}

Estate::Head& Estate::head() const { return *reinterpret_cast<Head*>(base_); }
Hand& Estate::hand() const { return head().hand; }
std::uint32_t Estate::first_number() const { return head().first_number; }
io_uring_params& Estate::ring_parameters() const { return head().ring; }

ChunkArea Estate::small() const {
  return {.heads = {reinterpret_cast<Chunk*>(base_ + kAt.small_heads), kSmallChunks},
          .data = base_ + kAt.small_data,
          .unit = kSmallBytes,
          .used = &head().small_used};
}
ChunkArea Estate::records() const {
  return {.heads = {reinterpret_cast<Chunk*>(base_ + kAt.record_heads), kRecordChunks},
          .data = base_ + kAt.record_data,
          .unit = kRecordBytes,
          .used = &head().records_used};
}
std::span<std::byte> Estate::stream_buffers() const {
  return {base_ + kAt.stream_buffers, kStreamBuffers * kStreamBufferBytes};
}
std::span<std::byte> Estate::datagram_buffers() const {
  return {base_ + kAt.datagram_buffers, kDatagramBuffers * kDatagramBufferBytes};
}
std::span<Inherited> Estate::inherited() const {
  return {reinterpret_cast<Inherited*>(base_ + kAt.inherited), head().inherited.load(std::memory_order_acquire)};
}

std::optional<Estate::InHand> Estate::message_in_hand() const {
  const Hand& hand = head().hand;
  const std::uint64_t message = hand.message.load(std::memory_order_acquire);
  if (message == 0) return std::nullopt;
  const std::uint64_t end = message >> 32;
  const std::uint64_t length = message & 0xffff'ffff;
  const std::uint64_t place = hand.place.load(std::memory_order_acquire);
  InHand in_hand;
  if (const std::uint64_t id = hand.connection.load(std::memory_order_acquire); id != 0)
    in_hand.connection = {SlotIndex{static_cast<std::uint32_t>(id >> 32)}, Generation{static_cast<std::uint32_t>(id)}};
  if (length <= end && place < kAt.end && end <= kAt.end - place)
    in_hand.octets.assign(reinterpret_cast<const char*>(base_ + place + end - length), length);
  return in_hand;
}

// What the hand was about is behind it now: in the partial chunk, or as `skip` of the completion `number`.
void Estate::step_over_message(std::uint32_t& number, std::uint32_t& skip) {
  Hand& hand = head().hand;
  const std::uint64_t progress = hand.progress.load(std::memory_order_acquire);
  const std::uint64_t message = hand.message.load(std::memory_order_acquire);
  const auto done = static_cast<std::uint32_t>(message != 0 ? message >> 32 : progress);
  const std::uint32_t partial = hand.partial.load(std::memory_order_acquire);
  if (partial == 0) {
    number = static_cast<std::uint32_t>(progress >> 32);
    skip = done;
  } else if (message != 0 && partial <= kSmallChunks + kRecordChunks) {
    const std::uint32_t at = partial - 1;
    Chunk& chunk = at < kSmallChunks ? small().heads[at] : records().heads[at - kSmallChunks];
    if (chunk.owner.load() != 0 && chunk.use == ChunkUse::kPartial) chunk.set(Chunk::Progress{.octets = done});
  }
}

// One that another worker had received: behind it now, in that Handover.
std::optional<Estate::InHand> Estate::handed_over_in_hand(const Handovers& handovers, WorkerIndex self) {
  Hand& hand = head().hand;
  const std::uint64_t message = hand.message.load(std::memory_order_acquire);
  const std::uint32_t from = hand.partial.load(std::memory_order_acquire) & ~Hand::kHandedOver;
  hand.message.store(0);
  if (message == 0) return std::nullopt;
  const std::uint64_t id = hand.connection.load(std::memory_order_acquire);
  InHand in_hand{
      .connection = {SlotIndex{static_cast<std::uint32_t>(id >> 32)}, Generation{static_cast<std::uint32_t>(id)}},
      .octets = {}};
  if (from >= handovers.workers() || self.value >= handovers.workers()) return in_hand;
  Handover& handover = handovers.between(WorkerIndex{static_cast<std::uint8_t>(from)}, self);
  const std::uint32_t next = hand.next_head.load(std::memory_order_acquire);
  if (handover.head() == next) return std::nullopt;  // it was done with
  in_hand.octets = handover.octets(hand.place.load(std::memory_order_acquire), message & 0xffff'ffff);
  handover.move_head(next);
  return in_hand;
}

// The message was being given to another worker, who has it or has not; nobody died over it.
void Estate::settle_handing(const Handovers& handovers, WorkerIndex self, std::optional<InHand>& in_hand) {
  Hand& hand = head().hand;
  const std::uint64_t handing = hand.handing.load(std::memory_order_acquire);
  hand.handing.store(0);
  if (handing == 0 || !in_hand) return;
  in_hand.reset();
  const std::uint64_t to = (handing >> 32) - 1;
  const bool given =
      to < handovers.workers() && self.value < handovers.workers() &&
      handovers.between(self, WorkerIndex{static_cast<std::uint8_t>(to)}).tail() == static_cast<std::uint32_t>(handing);
  if (!given) hand.message.store(0);  // from its beginning once more
}

std::optional<Estate::InHand> Estate::repair(const UnseenCompletions* unseen, const Handovers& handovers,
                                             WorkerIndex self) {
  std::optional<InHand> in_hand;
  if ((head().hand.partial.load(std::memory_order_acquire) & Hand::kHandedOver) != 0) {
    in_hand = handed_over_in_hand(handovers, self);
    head().hand.handing.store(0);
  } else {
    in_hand = message_in_hand();
    settle_handing(handovers, self, in_hand);
  }
  std::uint32_t number = 0;
  std::uint32_t skip = 0;
  step_over_message(number, skip);
  // What an earlier predecessor left and this one had not come to, then what it left itself.
  auto* entries = reinterpret_cast<Inherited*>(base_ + kAt.inherited);
  std::uint32_t count = 0;
  const auto keep = [&](const Inherited& entry) {
    Inherited& to = entries[count++];
    to.user_data = entry.user_data;
    to.result = entry.result;
    to.flags = entry.flags;
    to.number = entry.number;
    to.skip = entry.skip;
    if (skip != 0 && entry.number == number) to.skip = skip;
    to.done.store(0);
  };
  for (const Inherited& entry : inherited()) {
    if (entry.done.load(std::memory_order_acquire) == 0) keep(entry);
  }
  if (unseen != nullptr) {
    for (std::uint32_t i = 0; i < unseen->count() && count < kMostInherited; ++i) {
      const io_uring_cqe& completion = unseen->at(i);
      Inherited entry;
      entry.user_data = completion.user_data;
      entry.result = completion.res;
      entry.flags = completion.flags;
      entry.number = head().first_number + unseen->first() + i;
      keep(entry);
    }
    head().first_number += unseen->first() + unseen->count();
  }
  head().inherited.store(count, std::memory_order_release);
  Hand& hand = head().hand;
  hand.message.store(0);
  hand.progress.store(0);
  hand.partial.store(0);
  return in_hand;
}

void Estate::clear() {
  for (const ChunkArea& area : {small(), records()}) {
    for (Chunk& chunk : area.heads.first(area.used->load())) chunk.owner.store(0);
  }
  head().inherited.store(0);
  head().hand.message.store(0);
  head().hand.progress.store(0);
  head().hand.partial.store(0);
}

}  // namespace ktrunk::ipc
