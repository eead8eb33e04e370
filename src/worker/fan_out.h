// FanOut: the messages of a busy connection spread over all workers. Its home worker receives and frames in order; what
// is framed goes to the worker that its Call-ID says, by a ring of messages between each two workers (ipc/handover.h),
// so that the messages of a call keep their order.
//
// A connection is spread when several turns of the loop in a short time have brought many messages of it, and no more
// when it has been quiet for some ticks; never where there is one processor alone, for it costs (smaller batches) and
// nobody would be free to help. At either change its messages are held back for a moment, until all that came
// of the earlier ones has been sent: else a later message of a call could overtake an earlier one, by way of another
// worker's queue. When that takes long, because a peer takes nothing, the change is given up and tried again later.
//
// A ring that is full holds back the connection whose message does not fit: no more is received from it. Other
// connections go on. Everything here is a worker's own; it makes no system call. Bells are the caller's to ring.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "ipc/estate.h"
#include "ipc/shared_region.h"
#include "worker/chunk_store.h"
#include "worker/connection.h"

namespace ktrunk::worker {

class FanOut {
 public:
  FanOut(const ipc::SharedRegion& region, const ipc::Estate& estate, const ChunkStore& chunks, WorkerIndex self,
         std::size_t max_message_bytes);

  void begin_turn(Clock::time_point now) {
    now_ = now;
    ++turn_;
  }

  // ---- the home worker's side

  // One message more has been framed.
  void count(Connection& connection) {
    if (!enabled_) return;
    Heat& heat = connection.heat;
    if (heat.turn != turn_) {
      heat.turn = turn_;
      heat.messages = 0;
    }
    if (++heat.messages == kBusyTurn) [[unlikely]]
      busy_turn(connection);
  }
  // Where a message is to be handled: here; by `to`, whose ring's tail will be `tail`; or there is no room yet.
  struct Way {
    enum class Kind : std::uint8_t { kHere, kGive, kNoRoom } kind = Kind::kHere;
    WorkerIndex to;
    std::uint32_t tail = 0;
    // As it stands in ipc::Hand::handing.
    [[nodiscard]] std::uint64_t handing() const {
      return kind == Kind::kGive ? (std::uint64_t{to.value} + 1) << 32 | tail : 0;
    }
  };
  // index: of the message, complete or not.
  [[nodiscard]] Way way_of(const Connection& connection, std::string_view message, const sip::HeaderIndex& index) {
    if (connection.spread == nullptr || connection.spread->mode != Spread::Mode::kSpread) return {};
    ++connection.spread->messages;
    return way_by_call_id(message, index);
  }
  void give(const Way& way, const Connection& connection, std::string_view message);

  // Holds the connection back; it stays on the list of those that wait until release().
  void hold(Connection& connection);
  // Connections that wait for something; release() and forget() take one off.
  [[nodiscard]] const std::vector<Connection*>& waiting() const { return waiting_; }
  [[nodiscard]] std::vector<Connection*>& busy() { return busy_; }
  void release(Connection& connection);
  // All that wait have been looked at.
  void end_round();

  // Changes of mode, each step when the one before has been gone through.
  void begin_heating(Connection& connection);
  void begin_cooling(Connection& connection);
  enum class Change : std::uint8_t { kUnderWay, kOver };  // kOver: made, or given up
  [[nodiscard]] Change go_on(Connection& connection);
  // The connection is to be received from elsewhere. False: not now, it is spread or being so.
  [[nodiscard]] bool begin_moving(Connection& connection);
  enum class Move : std::uint8_t { kUnderWay, kDone, kGivenUp };
  [[nodiscard]] Move go_on_moving(Connection& connection);
  // A predecessor had spread it.
  void take_over(Connection& connection);
  // Its messages are handled here from now on, whatever is under way.
  void stop(Connection& connection);
  // On a tick: the connections that have become quiet begin to cool. Returns whether there are any.
  [[nodiscard]] bool tick();

  // The end of a stream waits for what was handed over of it; false: there is nothing to wait for.
  [[nodiscard]] bool put_off_end(Connection& connection, const StreamFault& end);
  [[nodiscard]] bool end_is_due(const Connection& connection) const;

  void forget(const Connection& connection);

  // ---- the other workers' side

  // The bell has rung: there may be messages.
  void look() { look_ = true; }
  // Hands each message to handle(source, octets); some at a time, so that others get their turn. The hand names each.
  template <typename Handle>
  void take(Handle&& handle) {
    if (!std::exchange(look_, false)) return;
    for (unsigned from = 0; from < handovers_.workers(); ++from) {
      if (from != self_.value) take_from(WorkerIndex{static_cast<std::uint8_t>(from)}, handle);
    }
  }

  // Whom to ring at the end of a turn; cleared by taking it.
  [[nodiscard]] ipc::WorkerMask take_rings();

 private:
  static constexpr std::uint16_t kBusyTurn = 32;
  static constexpr unsigned kMostInATurn = 256;  // from one worker

  void busy_turn(Connection& connection);
  [[nodiscard]] Way way_by_call_id(std::string_view message, const sip::HeaderIndex& index);
  [[nodiscard]] ipc::Handover& to(unsigned worker) const {
    return handovers_.between(self_, WorkerIndex{static_cast<std::uint8_t>(worker)});
  }
  void wait_for(Connection& connection);
  void set_mode(Connection& connection, Spread::Mode mode);
  [[nodiscard]] bool all_answered() const;
  void answer(WorkerIndex from, ipc::Handover& handover);
  void nonsense(WorkerIndex from);

  template <typename Handle>
  void take_from(WorkerIndex from, Handle&& handle) {
    ipc::Handover& handover = handovers_.between(from, self_);
    ipc::Hand& hand = estate_.hand();
    ipc::Handover::Message message;
    auto looked = ipc::Handover::Look::kEmpty;
    unsigned taken = 0;
    while (taken < kMostInATurn && (looked = handover.look(message)) == ipc::Handover::Look::kMessage) {
      ++taken;
      hand.connection.store(ipc::Chunk::pack(message.source.connection), std::memory_order_release);
      hand.place.store(message.place, std::memory_order_release);
      hand.next_head.store(message.next, std::memory_order_release);
      hand.partial.store(ipc::Hand::kHandedOver | from.value, std::memory_order_release);
      const std::uint64_t length = message.octets.size();
      hand.message.store(length << 32 | length, std::memory_order_release);
      handle(message.source, message.octets);
      handover.move_head(message.next);
      hand.message.store(0, std::memory_order_release);
    }
    if (looked == ipc::Handover::Look::kNonsense) nonsense(from);
    answer(from, handover);
  }

  const ipc::SharedRegion& region_;
  const ipc::Estate& estate_;
  const ChunkStore& chunks_;
  ipc::Handovers handovers_;
  WorkerIndex self_;
  ipc::WorkerStats& stats_;
  bool enabled_;
  std::uint64_t seed_;
  Clock::time_point now_{};
  std::uint32_t turn_ = 0;
  std::vector<Connection*> busy_;
  std::vector<Connection*> waiting_;
  std::vector<Connection*> spread_;
  // By consumer: the head as it was seen last, and the tail before this turn.
  std::array<std::uint32_t, ipc::kMaxWorkers> seen_head_{};
  std::array<std::uint32_t, ipc::kMaxWorkers> tail_before_{};
  ipc::WorkerMask given_ = 0;  // in this turn
  // By producer: what it asked, and ChunkStore::newest() when all that it had handed over had been handled.
  std::array<std::uint32_t, ipc::kMaxWorkers> asked_{};
  std::array<std::uint64_t, ipc::kMaxWorkers> mark_{};
  bool look_ = false;
  ipc::WorkerMask rings_ = 0;
};

}  // namespace ktrunk::worker
