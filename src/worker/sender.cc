#include "worker/sender.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace ktrunk::worker {
namespace {

constexpr std::size_t kIdleBlocksKept = 256;

// A send that is not one record needs the connection to itself; so does the last record under its keys.
bool needs_gate(const Connection& connection, const Block& block) {
  return connection.info().record_layer == ipc::RecordLayerKind::kNone || block.bytes > ipc::kRecordBytes ||
         block.holds_sends();
}

}  // namespace

Sender::Sender(Ring& ring, const ipc::SharedRegion& region, WorkerIndex self, std::size_t max_queue_bytes)
    : ring_(ring),
      region_(region),
      self_(self),
      stats_(region.worker(self)),
      max_queue_bytes_(max_queue_bytes),
      pool_(kIdleBlocksKept) {}

char* Sender::reserve(Connection& connection, std::size_t bytes) {
  BlockQueue& queue = connection.queue;
  // The block in flight is the kernel's; any other tail with room takes the message.
  const bool taken = connection.head_in_flight() && queue.back() == queue.front();
  if (queue.empty() || taken || queue.back()->room() < bytes) queue.push_back(pool_.take(bytes));
  Block& block = *queue.back();
  return block.data.get() + block.bytes;
}

void Sender::commit(Connection& connection, std::size_t bytes) {
  Block& block = *connection.queue.back();
  block.bytes += bytes;
  ++block.messages;
  connection.queued_bytes += bytes;
  mark_dirty(connection);
}

void Sender::put_control(Connection& connection, const ipc::SendControl& order) {
  auto block = std::make_unique<Block>();
  block->control = std::make_unique<ControlRecord>(order);
  block->bytes = block->capacity = block->control->message.bytes();
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
  }
  dirty_.clear();
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
  io_uring_sqe* sqe = ring_.prepare(Operation::on(OperationKind::kSend, connection.id));
  ++connection.operations;
  if (block.control != nullptr) {
    io_uring_prep_sendmsg(sqe, connection.fd.get(), block.control->message.header(), MSG_NOSIGNAL);
    return;
  }
  // One record or one relay packet at a time, also of a longer message.
  const std::size_t bytes = std::min(block.bytes - connection.sent_of_head, ipc::kRecordBytes);
  io_uring_prep_send(sqe, connection.fd.get(), block.data.get() + connection.sent_of_head, bytes, MSG_NOSIGNAL);
}

Sender::Sent Sender::completed(Connection& connection, int result, Clock::time_point now) {
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
  connection.queued_bytes -= sent;
  connection.sending_since = now;
  count_sent(connection, block, sent);
  if (connection.sent_of_head < block.bytes) {
    submit(connection);
    return Sent::kGoingOn;
  }
  BlockPtr gone = connection.queue.pop_front();
  connection.sent_of_head = 0;
  if (gone->holds_sends()) {
    stats_.key_updates_sent.add();
    connection.sending = Connection::Sending::kHolding;
    return Sent::kHolding;
  }
  let_go(connection);
  pool_.give_back(std::move(gone));
  if (connection.queue.empty()) return Sent::kAllGone;
  mark_dirty(connection);
  return Sent::kGoingOn;
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
  pool_.give_back(std::move(block));
}

void Sender::take_unsent(Connection& connection, BlockQueue& kept) {
  drop_control(connection);
  const bool begun = connection.head_in_flight() || connection.sent_of_head > 0;
  Block* head = begun ? connection.queue.front() : nullptr;
  while (BlockPtr block = connection.queue.pop_after(head)) {
    connection.queued_bytes -= block->bytes;
    kept.push_back(std::move(block));
  }
  if (connection.sending == Connection::Sending::kWaiting) stop_waiting(connection);
}

void Sender::put_unsent(Connection& connection, BlockQueue& kept) {
  for (const Block* block = kept.front(); block != nullptr; block = block->next.get())
    connection.queued_bytes += block->bytes;
  connection.queue.push_back_all(kept);
  mark_dirty(connection);
}

void Sender::abandon(Connection& connection) {
  // The block in flight is still the kernel's to read.
  Block* kept = connection.head_in_flight() ? connection.queue.front() : nullptr;
  while (BlockPtr block = connection.queue.pop_after(kept)) pool_.give_back(std::move(block));
  connection.queued_bytes = kept != nullptr ? kept->bytes - connection.sent_of_head : 0;
  if (connection.sending == Connection::Sending::kWaiting) stop_waiting(connection);
  if (connection.sending == Connection::Sending::kHolding) let_go(connection);
}

void Sender::drop_control(Connection& connection) {
  Block* before = connection.head_in_flight() ? connection.queue.front() : nullptr;
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
  std::erase(dirty_, &connection);
  std::erase(waiting_, &connection);
}

}  // namespace ktrunk::worker
