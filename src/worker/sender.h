// Sender: puts whole SIP messages on connections, in order, without a lock (../ipc/send_gate.h says why that is safe).
//
// Messages for one connection are gathered in blocks of at most one record. One send per connection is in flight at a
// time. Idle: what a turn of the loop queued goes out at its end. Busy: what piled up meanwhile goes out together.
// A message longer than a record, and everything on plain TCP, is sent under the connection's gate. So is a KeyUpdate,
// and after it the gate is kept: what comes next must be under the new keys, whoever sends it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "ipc/shared_region.h"
#include "worker/block.h"
#include "worker/connection.h"
#include "worker/ring.h"

namespace ktrunk::worker {

class Sender {
 public:
  Sender(Ring& ring, const ipc::SharedRegion& region, BlockPool& pool, WorkerIndex self, std::size_t max_queue_bytes);

  // True when `bytes` more may be queued for the connection.
  [[nodiscard]] bool has_room(const Connection& connection, std::size_t bytes) {
    return connection.queued_bytes + bytes <= max_queue_bytes_ && pool_.has_room(bytes);
  }
  // The same for a response. There is no one to be told that it did not fit, so it may go beyond the bound that holds
  // for requests, which keeps a peer whole that is only slow; the bound's double is the end.
  [[nodiscard]] bool has_room_for_response(const Connection& connection, std::size_t bytes) {
    return connection.queued_bytes + bytes <= 2 * max_queue_bytes_ && pool_.has_room(bytes);
  }
  // Where to write the next message of exactly `bytes` octets, for which there is room; then commit it. Nothing may
  // come between the two.
  [[nodiscard]] char* reserve(Connection& connection, std::size_t bytes);
  void commit(Connection& connection, std::size_t bytes);
  // Queues one control record behind what is queued.
  void put_control(Connection& connection, const ipc::SendControl& order);

  // At the end of a turn: starts a send on every connection that has something new, or that may have got its gate.
  void start_all(Clock::time_point now);

  enum class Sent {
    kGoingOn,  // more is on its way, or waiting
    kAllGone,  // the queue is empty
    kHolding,  // a record after which nobody may send has gone; resume() ends that
    kFailed,   // the connection is broken; nothing more is sent on it
  };
  // A send's completion. result: what the kernel said; number: the completion's (ipc/estate.h).
  [[nodiscard]] Sent completed(Connection& connection, int result, std::uint32_t number, Clock::time_point now);

  // What a predecessor left. First its completions that it had not seen, in their order; then every connection's
  // blocks, when the connection is there: kHolding, or kGoingOn. In the end what belongs to no connection any more.
  void inherit(ConnectionId connection, BlockPtr block);
  void inherited_completion(ConnectionId connection, int result, std::uint32_t number);
  [[nodiscard]] Sent adopt(Connection& connection, Clock::time_point now);
  void give_up_orphans();

  // The new transmit keys are in: the gate is given back. Nothing happens when it is not held for that.
  void resume(Connection& connection);

  // The doorbell has rung: connections that wait for a gate try again at the end of this turn.
  void retry_waiting();
  // Moves messages that have not begun to go to `kept`, behind what is there; and, where nothing is in flight, one that
  // has gone in part only.
  void take_unsent(Connection& connection, BlockQueue& kept);
  // Queues them again, on another connection.
  void put_unsent(Connection& connection, BlockQueue& kept);
  // Gives up everything that is queued: the connection is broken or its time is up. In-flight sends are the caller's.
  void abandon(Connection& connection);
  // Gives up the control records that are queued: the connection is being closed, and keeps the keys that it has.
  void drop_control(Connection& connection);
  // Workers to ring at the end of this turn; the mask is cleared by taking it.
  [[nodiscard]] ipc::WorkerMask take_rings() { return std::exchange(rings_, 0); }
  // Nobody may hold a pointer to a connection that goes away.
  void forget(const Connection& connection);

 private:
  void start(Connection& connection, Clock::time_point now);
  void submit(Connection& connection);
  void mark_dirty(Connection& connection);
  void let_go(Connection& connection);
  void stop_waiting(Connection& connection);
  void give_up(Connection& connection, BlockPtr block);
  static void begin_again(Connection& connection);
  void count_sent(const Connection& connection, const Block& block, std::size_t bytes);
  void pop(Connection& connection);
  void show_queue(const Connection& connection);

  Ring& ring_;
  const ipc::SharedRegion& region_;
  WorkerIndex self_;
  ipc::WorkerStats& stats_;
  std::size_t max_queue_bytes_;
  BlockPool& pool_;
  std::map<ConnectionId, std::deque<BlockPtr>> inherited_;  // not adopted yet
  std::vector<Connection*> dirty_;
  std::vector<Connection*> waiting_;
  ipc::WorkerMask rings_ = 0;
};

}  // namespace ktrunk::worker
