#include "worker/sender.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace ktrunk::worker {
namespace {

// A send that is not one record needs the connection to itself; so does the last record under its keys.
bool needs_gate(const Connection& connection, const Block& block) {
  return connection.info().record_layer == ipc::RecordLayerKind::kNone || block.bytes > ipc::kRecordBytes ||
         block.holds_sends();
}

}  // namespace

Sender::Sender(Ring& ring, const ipc::SharedRegion& region, BlockPool& pool, WorkerIndex self,
               std::size_t max_queue_bytes)
    : ring_(ring),
      region_(region),
      self_(self),
      stats_(region.worker(self)),
      max_queue_bytes_(max_queue_bytes),
      pool_(pool) {}

char* Sender::reserve(Connection& connection, std::size_t bytes) {
  BlockQueue& queue = connection.queue;
  // The block in flight is the kernel's; any other tail with room takes the message.
  const bool taken = connection.head_in_flight() && queue.back() == queue.front();
  if (queue.empty() || taken || queue.back()->room() < bytes)
    queue.push_back(pool_.take(ipc::Chunk::pack(connection.id), bytes));
  Block& block = *queue.back();
  return block.chunk.octets + block.bytes;
}

void Sender::commit(Connection& connection, std::size_t bytes) {
  connection.queue.back()->grow(bytes);
  connection.queued_bytes += bytes;
  mark_dirty(connection);
}

void Sender::put_control(Connection& connection, const ipc::SendControl& order) {
  if (order.after == ipc::SendControl::After::kHoldSends && std::exchange(connection.has_key_update, false)) return;
  BlockPtr block = pool_.take(order);
  if (block == nullptr) {
    connection.overflowed = true;
    return;
  }
  connection.queued_bytes += block->bytes;
  connection.queue.push_back(std::move(block));
  mark_dirty(connection);
}

void Sender::mark_dirty(Connection& connection) {
  if (std::exchange(connection.dirty, true)) return;
  dirty_.push_back(&connection);
}

void Sender::start_all(Clock::time_point now) {
  for (Connection* connection : dirty_) {
    connection->dirty = false;
    start(*connection, now);
    show_queue(*connection);
  }
  dirty_.clear();
}

void Sender::show_queue(const Connection& connection) {
  region_.sent(connection.id.slot, self_).queued.store(connection.queued_bytes, std::memory_order_relaxed);
}

void Sender::start(Connection& connection, Clock::time_point now) {
  if (connection.queue.empty() || connection.head_in_flight()) return;
  if (connection.sending == Connection::Sending::kHolding || connection.phase == Connection::Phase::kReleasing) return;
  const auto wait = [&] {
    if (connection.sending == Connection::Sending::kWaiting) return;
    connection.sending = Connection::Sending::kWaiting;
    connection.sending_since = now;
    waiting_.push_back(&connection);
  };
  ipc::SendGate& gate = connection.slot->gate;
  if (needs_gate(connection, *connection.queue.front())) {
    if (!connection.gate_held) {
      if (!gate.acquire(self_)) return wait();
      connection.gate_held = true;
    }
    if (!gate.quiescent(self_)) return wait();
    gate.start_writing(self_);
  } else {
    const auto [granted, ring] = gate.begin_record(self_);
    rings_ |= ring;
    if (!granted) return wait();
  }
  if (connection.sending == Connection::Sending::kWaiting) std::erase(waiting_, &connection);
  connection.sending = Connection::Sending::kInFlight;
  connection.sending_since = now;
  connection.sent_of_head = 0;
  submit(connection);
}

void Sender::submit(Connection& connection) {
  const Block& block = *connection.queue.front();
  block.chunk.head->submitted.store(1, std::memory_order_release);
  io_uring_sqe* sqe = ring_.prepare(Operation::on(OperationKind::kSend, connection.id));
  ++connection.operations;
  if (block.control != nullptr) {
    io_uring_prep_sendmsg(sqe, connection.fd.get(), block.control->header(), MSG_NOSIGNAL);
    return;
  }
  // One record or one relay packet at a time, also of a longer message.
  const std::size_t bytes = std::min(block.bytes - connection.sent_of_head, ipc::kRecordBytes);
  io_uring_prep_send(sqe, connection.fd.get(), block.chunk.octets + connection.sent_of_head, bytes, MSG_NOSIGNAL);
}

Sender::Sent Sender::completed(Connection& connection, int result, std::uint32_t number, Clock::time_point now) {
  --connection.operations;
  Block& block = *connection.queue.front();
  if (result == -EINTR || result == -EAGAIN) {  // nothing has gone
    if (connection.phase != Connection::Phase::kReleasing) {
      submit(connection);
      return Sent::kGoingOn;
    }
  }
  const std::size_t sent = result > 0 ? static_cast<std::size_t>(result) : 0;
  const std::size_t asked = std::min(block.bytes - connection.sent_of_head, ipc::kRecordBytes);
  // Without the gate a short count would mean a torn record, which the kernel has never been seen to do.
  const bool torn = sent < asked && !connection.gate_held;
  if (result <= 0 || torn || connection.phase == Connection::Phase::kReleasing) {
    connection.sent_of_head += sent;
    let_go(connection);
    return Sent::kFailed;
  }
  connection.sent_of_head += sent;
  block.chunk.head->set(
      ipc::Chunk::Progress{.octets = static_cast<std::uint32_t>(connection.sent_of_head), .number = number});
  connection.queued_bytes -= sent;
  show_queue(connection);
  connection.sending_since = now;
  count_sent(connection, block, sent);
  if (connection.sent_of_head < block.bytes) {
    submit(connection);
    return Sent::kGoingOn;
  }
  if (block.holds_sends()) {
    // It stays at the head, for a successor to see, until resume().
    stats_.key_updates_sent.add();
    connection.sending = Connection::Sending::kHolding;
    return Sent::kHolding;
  }
  pop(connection);
  let_go(connection);
  if (connection.queue.empty()) return Sent::kAllGone;
  mark_dirty(connection);
  return Sent::kGoingOn;
}

void Sender::pop(Connection& connection) {
  pool_.give_back(connection.queue.pop_front());
  connection.sent_of_head = 0;
}

void Sender::count_sent(const Connection& connection, const Block& block, std::size_t bytes) {
  stats_.bytes_sent.add(bytes);
  if (connection.info().record_layer == ipc::RecordLayerKind::kKernel) stats_.kernel_records_sent.add();
  if (connection.info().record_layer == ipc::RecordLayerKind::kRelay) stats_.relay_packets_sent.add();
  const auto add = [](std::atomic<std::uint64_t>& count, std::uint64_t n) {
    count.store(count.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  };
  ipc::SentCounts& counts = region_.sent(connection.id.slot, self_);
  add(counts.records, 1);
  if (connection.sent_of_head < block.bytes) return;
  stats_.messages_sent.add(block.messages);
  add(counts.messages, block.messages);
}

// The send is over: whoever waits for this connection may go.
void Sender::let_go(Connection& connection) {
  connection.sending = Connection::Sending::kIdle;
  ipc::SendGate& gate = connection.slot->gate;
  rings_ |= std::exchange(connection.gate_held, false) ? gate.release(self_) : gate.end_record(self_);
}

void Sender::resume(Connection& connection) {
  if (connection.sending != Connection::Sending::kHolding) return;
  pop(connection);
  let_go(connection);
  if (!connection.queue.empty()) mark_dirty(connection);
}

void Sender::retry_waiting() {
  for (Connection* connection : waiting_) mark_dirty(*connection);
}

// Not for the gate any more; nothing is in flight, so what was got of it can go back.
void Sender::stop_waiting(Connection& connection) {
  std::erase(waiting_, &connection);
  connection.sending = Connection::Sending::kIdle;
  if (std::exchange(connection.gate_held, false)) rings_ |= connection.slot->gate.release(self_);
}

void Sender::give_up(Connection& connection, BlockPtr block) {
  connection.queued_bytes -= block->bytes;
  show_queue(connection);
  pool_.give_back(std::move(block));
}

void Sender::take_unsent(Connection& connection, BlockQueue& kept) {
  drop_control(connection);
  if (!connection.head_in_flight() && connection.sent_of_head > 0) begin_again(connection);
  const bool begun = connection.head_in_flight() || connection.sent_of_head > 0;
  Block* head = begun ? connection.queue.front() : nullptr;
  while (BlockPtr block = connection.queue.pop_after(head)) {
    connection.queued_bytes -= block->bytes;
    kept.push_back(std::move(block));
  }
  show_queue(connection);
  if (connection.sending == Connection::Sending::kWaiting) stop_waiting(connection);
}

// A message longer than a record, of which the first records have gone and the others never will: to the peer it is
// none, so it can go whole by another connection. `submitted` first: its records' completions must not count for a
// successor.
void Sender::begin_again(Connection& connection) {
  const Block& head = *connection.queue.front();
  if (head.messages != 1) return;
  head.chunk.head->submitted.store(0, std::memory_order_release);
  head.chunk.head->set(ipc::Chunk::Progress{});
  connection.queued_bytes += std::exchange(connection.sent_of_head, 0);
}

void Sender::put_unsent(Connection& connection, BlockQueue& kept) {
  for (const Block* block = kept.front(); block != nullptr; block = block->next.get()) {
    block->chunk.head->owner.store(ipc::Chunk::pack(connection.id), std::memory_order_release);
    connection.queued_bytes += block->bytes;
  }
  connection.queue.push_back_all(kept);
  mark_dirty(connection);
}

void Sender::abandon(Connection& connection) {
  // The block in flight is still the kernel's to read.
  Block* kept = connection.head_in_flight() ? connection.queue.front() : nullptr;
  while (BlockPtr block = connection.queue.pop_after(kept)) pool_.give_back(std::move(block));
  connection.queued_bytes = kept != nullptr ? kept->bytes - connection.sent_of_head : 0;
  show_queue(connection);
  if (connection.sending == Connection::Sending::kWaiting) stop_waiting(connection);
  if (connection.sending == Connection::Sending::kHolding) let_go(connection);
}

void Sender::drop_control(Connection& connection) {
  const bool head_stays = connection.head_in_flight() || connection.sending == Connection::Sending::kHolding;
  Block* before = head_stays ? connection.queue.front() : nullptr;
  for (;;) {
    Block* block = before == nullptr ? connection.queue.front() : before->next.get();
    if (block == nullptr) return;
    if (block->control == nullptr) {
      before = block;
      continue;
    }
    if (before == nullptr && connection.sending == Connection::Sending::kWaiting) stop_waiting(connection);
    if (before == nullptr) connection.sent_of_head = 0;
    give_up(connection, connection.queue.pop_after(before));
    if (!connection.queue.empty()) mark_dirty(connection);
  }
}

void Sender::forget(const Connection& connection) {
  region_.sent(connection.id.slot, self_).queued.store(0, std::memory_order_relaxed);
  std::erase(dirty_, &connection);
  std::erase(waiting_, &connection);
}

void Sender::inherit(ConnectionId connection, BlockPtr block) { inherited_[connection].push_back(std::move(block)); }

// A send of which there is no completion has not happened (ipc/worker_ring.h).
void Sender::inherited_completion(ConnectionId connection, int result, std::uint32_t number) {
  const auto found = inherited_.find(connection);
  if (found == inherited_.end() || result <= 0) return;
  Block& block = *found->second.front();
  ipc::Chunk& head = *block.chunk.head;
  const ipc::Chunk::Progress before = head.progress();
  // The predecessor had come so far with it: the completion was this block's, or that of one which is gone since.
  if (head.submitted.load(std::memory_order_acquire) == 0 || (before.octets != 0 && before.number == number)) return;
  head.set(ipc::Chunk::Progress{.octets = before.octets + static_cast<std::uint32_t>(result), .number = number});
  if (head.progress().octets < block.bytes || block.holds_sends()) return;
  pool_.give_back(std::move(found->second.front()));
  found->second.pop_front();
  if (found->second.empty()) inherited_.erase(found);
}

Sender::Sent Sender::adopt(Connection& connection, Clock::time_point now) {
  ipc::SendGate& gate = connection.slot->gate;
  if (const auto found = inherited_.find(connection.id); found != inherited_.end()) {
    for (BlockPtr& block : found->second) {
      block->chunk.head->submitted.store(0, std::memory_order_release);
      if (block->holds_sends()) connection.has_key_update = true;
      connection.queued_bytes += block->bytes;
      connection.queue.push_back(std::move(block));
    }
    inherited_.erase(found);
  }
  const auto sent_of_first = [&] {
    return connection.queue.empty() ? 0 : std::size_t{connection.queue.front()->chunk.head->progress().octets};
  };
  // Gone, and the predecessor died before it could give the chunk back.
  while (!connection.queue.empty() && sent_of_first() >= connection.queue.front()->bytes &&
         !connection.queue.front()->holds_sends()) {
    connection.queued_bytes -= connection.queue.front()->bytes;
    pop(connection);
  }
  const std::size_t sent = sent_of_first();
  if (sent == 0) {
    rings_ |= gate.let_go(self_);
    if (!connection.queue.empty()) mark_dirty(connection);
    return Sent::kGoingOn;
  }
  // In the middle of something that nobody else may interrupt: the gate is still this place's.
  Block& head = *connection.queue.front();
  connection.queued_bytes -= sent;
  if (!gate.owned_by_worker(self_)) return Sent::kFailed;
  connection.gate_held = true;
  connection.sending_since = now;
  if (sent >= head.bytes) {
    connection.sending = Connection::Sending::kHolding;
    return Sent::kHolding;
  }
  connection.sending = Connection::Sending::kInFlight;
  connection.sent_of_head = sent;
  submit(connection);
  return Sent::kGoingOn;
}

void Sender::give_up_orphans() {
  for (auto& [connection, blocks] : inherited_) {
    for (BlockPtr& block : blocks) pool_.give_back(std::move(block));
  }
  inherited_.clear();
}

}  // namespace ktrunk::worker
