// Handover: whole messages of a busy connection on their way from its home worker, which receives and frames, to the
// workers that handle them. In the shared region there is one for each pair of workers: a ring of octets with one
// producer and one consumer, each of which may die at any instruction.
//
//   producer (home)                                             if it dies here, its successor
//     hand.handing = consumer and the tail to be, hand.message    frames the message again
//     the entry is written                                        "
//     tail = the tail to be                                       goes on behind the message
//     hand.progress (or the partial chunk's) = its end            "
//   consumer                                                    if it dies here, its successor
//     (entry at the head)                                         handles it
//     hand: where it lies, the head behind it; hand.message       goes on behind it (quarantined)
//       handled: what it leads to is appended to chunks           "
//     head = behind it                                            goes on behind it
//     hand.message = 0                                            "
//
// So a message is handled once, or it is in quarantine. The order of stores matters to the other process too: tail and
// head are released and acquired. Bells are rung for a batch, not for a message: the producer publishes, fences, looks
// at the head, and rings if the consumer may have seen the ring empty; the consumer moves its head, fences, looks at
// the tail again. Of the two at least one sees the other. The same holds for `waits`, the other way round.
//
// Positions count octets and wrap. Processes: workers; the supervisor repairs after a death (Estate::repair).
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/address.h"
#include "base/id.h"
#include "config/config.h"
#include "ipc/shared.h"

namespace ktrunk::ipc {

// Whose message it is: what its handler must know of the connection, which may have gone by then.
struct HandoverSource {
  ConnectionId connection;
  TrunkId trunk;
  ListenerId listener;
  config::Transport transport = config::Transport::kTls;
  Address remote;
};

class Handover {
 public:
  static constexpr std::uint32_t kBytes = 256u << 10;
  static constexpr std::uint32_t kUnit = 64;
  // A longer message cannot be sure of its place in an empty ring.
  static constexpr std::size_t kMostOctets = kBytes / 2 - 2 * kUnit;

  // Producer. The tail behind a message of so many octets; nothing when there is no room for it now. seen_head: what
  // the producer knows of the head, brought up to date when that is too little.
  [[nodiscard]] std::optional<std::uint32_t> plan(std::size_t octets, std::uint32_t& seen_head) const;
  // Writes and publishes a message that is planned.
  void put(std::uint32_t tail_after, const HandoverSource& source, std::string_view octets);
  [[nodiscard]] std::uint32_t tail() const { return tail_.load(std::memory_order_acquire); }
  [[nodiscard]] std::uint32_t head() const { return head_.load(std::memory_order_acquire); }
  [[nodiscard]] bool empty() const { return head() == tail(); }

  // Consumer. The message at the head; its octets live until the head is moved.
  struct Message {
    HandoverSource source;
    std::string_view octets;
    std::uint32_t place = 0;  // of the octets, among data
    std::uint32_t next = 0;   // the head behind it
  };
  enum class Look : std::uint8_t { kMessage, kEmpty, kNonsense };
  // kNonsense: the producer has written what is no entry; everything is skipped.
  [[nodiscard]] Look look(Message& message);
  void move_head(std::uint32_t next) { head_.store(next, std::memory_order_release); }

  // Supervisor: what a dead consumer had in hand; and: what is there is given up.
  [[nodiscard]] std::string_view octets(std::uint64_t place, std::uint64_t length) const;
  void clear() { head_.store(tail_.load()); }

  // The producer waits for room, or for the ring to be empty: it is to be rung when the head has moved. Writer: it.
  Shared<std::uint8_t> waits{0};
  // The producer asks, by one more, whether all that it has handed over has been handled and what came of it has been
  // sent; the consumer then says the same number. Writers: producer, consumer.
  Shared<std::uint32_t> asked{0};
  Shared<std::uint32_t> answered{0};

 private:
  struct Entry {
    std::uint32_t step = 0;    // to the next entry, a multiple of kUnit
    std::uint32_t octets = 0;  // of the message; kFiller: there is none, the next entry is at the front
    HandoverSource source;
  };
  static constexpr std::uint32_t kFiller = 0xffff'ffff;
  static_assert(sizeof(Entry) <= kUnit);
  [[nodiscard]] static constexpr std::uint32_t step_of(std::size_t octets) {
    return static_cast<std::uint32_t>((kUnit + octets + kUnit - 1) / kUnit * kUnit);
  }
  [[nodiscard]] std::byte* at(std::uint32_t position) { return data_.data() + position % kBytes; }

  alignas(64) Shared<std::uint32_t> tail_{0};  // writer: producer
  alignas(64) Shared<std::uint32_t> head_{0};  // writer: consumer
  alignas(64) std::array<std::byte, kBytes> data_{};
};
static_assert(sizeof(Handover) % 64 == 0);

// All of them; a view of the shared region.
class Handovers {
 public:
  Handovers() = default;
  Handovers(Handover* first, std::uint32_t workers) : first_(first), workers_(workers) {}
  [[nodiscard]] std::uint32_t workers() const { return workers_; }
  [[nodiscard]] Handover& between(WorkerIndex from, WorkerIndex to) const {
    return first_[std::size_t{to.value} * workers_ + from.value];
  }
  // A worker's place is given up, with what others have handed to it.
  void clear(WorkerIndex to) const {
    for (std::uint32_t from = 0; from < workers_; ++from)
      between(WorkerIndex{static_cast<std::uint8_t>(from)}, to).clear();
  }

 private:
  Handover* first_ = nullptr;
  std::uint32_t workers_ = 0;
};

}  // namespace ktrunk::ipc
