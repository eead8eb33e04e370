// Estate: what a worker leaves to its successor: octets received and not yet dealt with, parts of messages, and what is
// queued or on its way to be sent. Memory that the supervisor makes for each worker's place, and that one worker at a
// time maps; what is in it belongs to the place, not to the process.
//
// A worker may die at any instruction. What makes the estate sound after that:
//   - the kernel's log: every receive and every send that took effect has a completion in the worker's ring, which the
//     supervisor keeps (worker_ring.h). Completions are numbered through all lives of the place; one is marked as seen
//     after all that it led to is in the estate, and whatever it led to carries its number, so that doing it again
//     after a death changes nothing.
//   - one store publishes each step: a chunk exists by its `owner`, grows by its `extent`, shrinks by its `progress`.
//   - the message in hand is named before it is handled. If the worker dies over it, it is not handled again: the
//     supervisor keeps it in a file, and the successor goes on behind it.
// The order of stores matters to the compiler alone (memory_order_release): a dead process's stores have all happened.
//
//   worker, per completion                                         if it dies here, its successor
//     (completion is at the head of the ring's queue)                does it all
//     hand: number, where the octets lie                              "
//     per message: hand.message = its end and length                  does it all from the first message on
//       handled: what it leads to is appended to chunks               goes on behind the message (quarantined)
//       hand.progress = its end; hand.message = 0                      goes on behind the message
//     what is left: a partial chunk, extent = octets | number          finds the number: nothing more to do
//     seen                                                            looks at the next completion
#pragma once

#include <linux/io_uring.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/fd.h"
#include "base/id.h"
#include "base/result.h"
#include "ipc/handover.h"
#include "ipc/limits.h"
#include "ipc/shared.h"
#include "ipc/worker_ring.h"

namespace ktrunk::ipc {

// What a chunk holds. Queued messages and control records are sent in the order of `order`.
enum class ChunkUse : std::uint8_t { kMessages, kControl, kPartial };

// The head of a chunk: octets of one connection, at the same place of the chunk area's data. A free one has no owner;
// one that is longer than the area's unit takes up the `run` chunks that follow, whose heads are not used meanwhile.
// Writer: the worker; after its death the supervisor (EstateRepair), before a successor begins.
struct alignas(64) Chunk {
  // kMessages and kControl: octets written, and how many whole messages they are. kPartial: octets written, and the
  // number of the completion that brought the last of them.
  struct Extent {
    std::uint32_t octets = 0;
    std::uint32_t count = 0;
  };
  // kMessages and kControl: octets that are sent, and the number of the completion that said so. kPartial: octets at
  // the front that have been dealt with.
  struct Progress {
    std::uint32_t octets = 0;
    std::uint32_t number = 0;
  };

  // A connection, or a trunk for whose next connection it waits; 0: free. Stored when the rest of the head is in place.
  Shared<std::uint64_t> owner{0};
  std::uint64_t order = 0;  // counts the chunks taken in this estate
  Shared<std::uint64_t> extent_word{0};
  Shared<std::uint64_t> progress_word{0};
  Shared<std::uint8_t> submitted{0};  // its sending has been asked of the kernel
  ChunkUse use = ChunkUse::kMessages;
  std::uint16_t run = 1;
  // kControl: the record.
  std::uint8_t record_type = 0;
  std::uint8_t after = 0;  // SendControl::After
  std::array<std::byte, 8> record{};

  [[nodiscard]] Extent extent() const { return unpack<Extent>(extent_word.load(std::memory_order_acquire)); }
  [[nodiscard]] Progress progress() const { return unpack<Progress>(progress_word.load(std::memory_order_acquire)); }
  void set(Extent extent) {
    extent_word.store(std::uint64_t{extent.octets} << 32 | extent.count, std::memory_order_release);
  }
  void set(Progress progress) {
    progress_word.store(std::uint64_t{progress.octets} << 32 | progress.number, std::memory_order_release);
  }
  [[nodiscard]] static constexpr std::uint64_t pack(ConnectionId id) {
    return std::uint64_t{id.slot.value} << 32 | id.generation.value;
  }
  static constexpr std::uint64_t kTrunk = std::uint64_t{1} << 63;
  [[nodiscard]] static constexpr std::uint64_t pack(TrunkId trunk) { return kTrunk | trunk.value; }
  [[nodiscard]] TrunkId trunk() const {
    const std::uint64_t word = owner.load(std::memory_order_acquire);
    if ((word & kTrunk) == 0) return {};
    return TrunkId{static_cast<std::uint16_t>(word)};
  }
  // Not valid for a trunk's, or a free chunk: generations begin with 1.
  [[nodiscard]] ConnectionId connection() const {
    const std::uint64_t word = owner.load(std::memory_order_acquire);
    if (word == 0 || (word & kTrunk) != 0) return {};
    return {SlotIndex{static_cast<std::uint32_t>(word >> 32)}, Generation{static_cast<std::uint32_t>(word)}};
  }

 private:
  template <typename Pair>
  static Pair unpack(std::uint64_t word) {
    return {static_cast<std::uint32_t>(word >> 32), static_cast<std::uint32_t>(word)};
  }
};
static_assert(sizeof(Chunk) == 64);

// Chunks of one size: heads and data.
struct ChunkArea {
  std::span<Chunk> heads;
  std::byte* data = nullptr;
  std::size_t unit = 0;  // octets of one chunk's data
  // Chunks from here on have never been used, and their memory never been touched; writer: the worker.
  Shared<std::uint32_t>* used = nullptr;

  [[nodiscard]] char* octets(std::uint32_t chunk) const { return reinterpret_cast<char*>(data + chunk * unit); }
};

// What the worker is doing at this moment.
struct alignas(64) Hand {
  Shared<std::uint64_t> connection{0};  // as Chunk::owner; 0: none (a datagram)
  Shared<std::uint64_t> place{0};       // of the octets that the message ends are counted from, in the estate
  Shared<std::uint64_t> progress{0};    // completion number << 32 | octets that are done with
  Shared<std::uint64_t> message{0};     // end of the message in hand << 32 | its length; 0: none
  // Where the octets are. 0: in a completion's buffer; kHandedOver | producer: in the Handover from that worker; else
  // in a partial chunk, small ones first, + 1.
  Shared<std::uint32_t> partial{0};
  Shared<std::uint32_t> next_head{0};  // of that Handover, behind the message
  // The message is not being handled but given to another worker: consumer + 1 << 32 | the tail of its Handover
  // afterwards; 0: it is being handled.
  Shared<std::uint64_t> handing{0};

  static constexpr std::uint32_t kHandedOver = 1u << 31;
};

// A completion that a predecessor had not dealt with.
struct Inherited {
  std::uint64_t user_data = 0;
  std::int32_t result = 0;
  std::uint32_t flags = 0;
  std::uint32_t number = 0;
  std::uint32_t skip = 0;  // octets of its data that have been dealt with
  Shared<std::uint32_t> done{0};
};

class Estate {
 public:
  // A record of a connection, behind what io_uring puts before it; one per buffer of the kernel's choice.
  static constexpr unsigned kStreamBuffers = 128;
  static constexpr std::size_t kStreamBufferBytes = 64 + kRecordBytes;
  static constexpr unsigned kDatagramBuffers = 64;
  static constexpr std::size_t kDatagramBufferBytes = 128 + 65'536;
  // Small chunks are for what a record left over; record chunks for what is sent, and for long messages.
  static constexpr std::uint32_t kSmallChunks = 16'384;
  static constexpr std::size_t kSmallBytes = 2048;
  static constexpr std::uint32_t kRecordChunks = 8192;
  // More than a dead worker can have unseen: its whole completion queue, twice.
  static constexpr std::uint32_t kMostInherited = 2 * 65'536;

  // Version and sizes, for layout.h.
  [[nodiscard]] static std::string layout();
  // Supervisor: makes the memory. What is never used never costs any.
  [[nodiscard]] static Result<Fd> create();
  [[nodiscard]] static Result<Estate> map(Fd memory);
  Estate(Estate&& other) noexcept;
  Estate& operator=(Estate&& other) noexcept;
  ~Estate();

  [[nodiscard]] int descriptor() const { return memory_.get(); }
  [[nodiscard]] ChunkArea small() const;
  [[nodiscard]] ChunkArea records() const;
  [[nodiscard]] std::span<std::byte> stream_buffers() const;
  [[nodiscard]] std::span<std::byte> datagram_buffers() const;
  [[nodiscard]] Hand& hand() const;
  [[nodiscard]] std::span<Inherited> inherited() const;  // the ones there are
  // The number of the first completion of the present ring.
  [[nodiscard]] std::uint32_t first_number() const;
  // The parameters of the present ring; writer: supervisor.
  [[nodiscard]] io_uring_params& ring_parameters() const;

  // Where something lies in the estate, for Hand::place.
  [[nodiscard]] std::uint64_t place_of(const void* octets) const {
    return static_cast<std::uint64_t>(static_cast<const std::byte*>(octets) - base_);
  }

  // The message that a dead worker had in hand.
  struct InHand {
    ConnectionId connection;  // not valid: it was a datagram
    std::string octets;
  };
  // Supervisor, after the worker has died and before its successor begins: takes over what the ring has that the
  // worker had not seen, steps over the message in hand, and returns that. unseen may be null: there is no ring.
  // Where there are other workers: handovers, and which place this is.
  [[nodiscard]] std::optional<InHand> repair(const UnseenCompletions* unseen, const Handovers& handovers = {},
                                             WorkerIndex self = {});
  // Supervisor: forgets all that is in it.
  void clear();

 private:
  struct Head;
  Estate() = default;
  [[nodiscard]] Head& head() const;
  [[nodiscard]] std::optional<InHand> message_in_hand() const;
  [[nodiscard]] std::optional<InHand> handed_over_in_hand(const Handovers& handovers, WorkerIndex self);
  void settle_handing(const Handovers& handovers, WorkerIndex self, std::optional<InHand>& in_hand);
  void step_over_message(std::uint32_t& number, std::uint32_t& skip);

  Fd memory_;
  std::byte* base_ = nullptr;
};

}  // namespace ktrunk::ipc
