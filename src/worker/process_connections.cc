// The life of a connection in a worker, as the supervisor orders it: offered, started, its keys renewed, closed.
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "worker/process.h"

namespace ktrunk::worker {
namespace {

// How long a connection that is being closed may take to send what is queued and its close_notify.
constexpr auto kFlushLimit = std::chrono::seconds(2);

constexpr std::uint8_t kMostErrorsOfReceiving = 8;  // in a row, before a send is given up

bool is_of_receiving(const Connection& connection, int result) {
  return connection.info().record_layer == ipc::RecordLayerKind::kKernel &&
         (result == -EBADMSG || result == -EMSGSIZE || result == -EINVAL);
}

}  // namespace

void Process::on_offer(const ipc::Offer& offer, Fd descriptor) {
  auto& place = connections_[offer.connection.slot.value];
  place = std::make_unique<Connection>(offer.connection, std::move(descriptor),
                                       endowment_.region.slot(offer.connection.slot),
                                       endowment_.config.limits.max_message_bytes);
  tell(ipc::Held{.connection = offer.connection});
  after_send(*place, sender_.adopt(*place, now_), EPIPE);
}

// A predecessor may have left something of it.
void Process::on_start(const ipc::Start& start) {
  Connection* connection = find(Operation::on(OperationKind::kReceive, start.connection));
  if (connection == nullptr || connection->phase != Connection::Phase::kServing) return;
  if (std::exchange(connection->started, true)) return;
  connection->partial = inheritance_.take_partial(connection->id);
  connection->partial_since = now_;
  connection->control.take_over(start.unanswered, now_);
  connection->inheriting = true;
  fan_out_.take_over(*connection);
  std::optional<StreamFault> bad;
  for (ipc::Inherited* completion : inheritance_.take_receives(connection->id)) {
    if (!bad) bad = receiver_->inherited(*connection, *completion, now_);
    completion->done.store(1, std::memory_order_release);
    receiver_->discard(completion->result, completion->flags);
  }
  if (!bad) bad = receiver_->inherited_partial(*connection, now_);
  connection->inheriting = false;
  receiver_->settle();
  if (bad) return end_of_stream(*connection, *bad);
  receiver_->start_if_idle(*connection);
}

void Process::on_serve() {
  serving_ = true;
  fan_out_.look();
  for (const ipc::Inherited* completion : inheritance_.take_orphans())
    receiver_->discard(completion->result, completion->flags);
  sender_.give_up_orphans();
  for (ipc::Inherited* completion : inheritance_.take_datagrams()) {
    datagrams_.inherited(Operation::unpack(completion->user_data).index, *completion,
                         [this](ListenerId listener, const Address& from, std::string_view octets) {
                           on_datagram(listener, from, octets);
                         });
    completion->done.store(1, std::memory_order_release);
  }
  datagrams_.begin();
}

Status Process::on_send_control(const ipc::SendControl& order) {
  if (order.bytes > order.octets.size()) return fail("a control record of {} octets", order.bytes);
  Connection* connection = find(Operation::on(OperationKind::kSend, order.connection));
  // A connection that is being closed keeps the keys that it has.
  if (connection == nullptr || connection->phase != Connection::Phase::kServing) return {};
  if (connection->info().record_layer != ipc::RecordLayerKind::kKernel)
    return fail("a control record for a connection whose records the kernel does not make");
  sender_.put_control(*connection, order);
  return {};
}

void Process::on_resume(const ipc::Resume& resume) {
  Connection* connection = find(Operation::on(OperationKind::kReceive, resume.connection));
  if (connection == nullptr) return;
  if (resume.what == ipc::Resume::What::kSendRekeyed) {
    sender_.resume(*connection);
    return proceed_closing(*connection);
  }
  if (const auto bad = receiver_->answered(*connection, now_); bad) end_of_stream(*connection, *bad);
}

// In pieces; each says by its number whether the supervisor has it from a predecessor already.
void Process::on_handshake(Connection& connection, std::string_view octets, ControlRecords::Place place,
                           std::uint32_t number) {
  const std::uint64_t told = connection.inheriting ? connection.slot->octets_number.load(std::memory_order_acquire) : 0;
  ipc::HandshakeOctets message{.connection = connection.id, .octets = {}};
  message.number = ipc::HandshakeOctets::first_piece(number);
  do {
    const std::size_t bytes = std::min(octets.size(), message.octets.size());
    std::memcpy(message.octets.data(), octets.data(), bytes);
    octets.remove_prefix(bytes);
    message.bytes = static_cast<std::uint16_t>(bytes);
    message.place = octets.empty() ? place : ControlRecords::Place::kMore;
    if (message.number > told) tell(message);
    ++message.number;
  } while (!octets.empty());
}

void Process::on_send(Connection& connection, int result, std::uint32_t number) {
  if (is_of_receiving(connection, result) && connection.errors_of_receiving++ < kMostErrorsOfReceiving) {
    read_error(connection);
    // A record that does not decrypt stays where it is: its home worker meets it too, and judges, for it may stand
    // behind a KeyUpdate. Of a header that is none it may not be told again.
    if (result != -EBADMSG && !connection.control.unanswered())
      fault(connection, ipc::FaultReason::kBadRecord, -result);
    result = -EAGAIN;  // nothing has gone: once more
  }
  if (result > 0) connection.errors_of_receiving = 0;
  after_send(connection, sender_.completed(connection, result, number, now_), result < 0 ? -result : EPIPE);
}

void Process::after_send(Connection& connection, Sender::Sent sent, int error) {
  if (sent == Sender::Sent::kHolding) tell(ipc::ControlSent{.connection = connection.id});
  if (sent == Sender::Sent::kFailed && connection.phase < Connection::Phase::kReleasing) {
    keep_unsent(connection);
    sender_.abandon(connection);
    fault(connection, ipc::FaultReason::kReset, error);
  }
  proceed_closing(connection);
}

void Process::fault(Connection& connection, ipc::FaultReason reason, int detail) {
  if (std::exchange(connection.faulted, true)) return;
  tell(ipc::Fault{.connection = connection.id, .reason = reason, .detail = detail});
}

void Process::on_close(const ipc::Close& close) {
  Connection* connection = find(Operation::on(OperationKind::kReceive, close.connection));
  if (connection == nullptr) return tell(ipc::Released{.connection = close.connection});
  connection->last_alert = close.alert;
  connection->keeps_unsent = close.unsent == ipc::Close::Unsent::kKeep;
  switch (close.how) {
    case ipc::Close::How::kFlush:
      return close_down(*connection, Connection::Phase::kFlushing);
    case ipc::Close::How::kFinish:
      return close_down(*connection, Connection::Phase::kFinishing);
    case ipc::Close::How::kAbort:
      return close_down(*connection, Connection::Phase::kReleasing);
  }
}

void Process::close_down(Connection& connection, Connection::Phase phase) {
  if (connection.phase >= phase) return;
  let_held_go(connection);
  connection.phase = phase;
  connection.phase_since = now_;
  connection.faulted = true;  // whatever still goes wrong, the supervisor knows that it ends
  receiver_->stop(connection);
  sender_.drop_control(connection);
  keep_unsent(connection);
  proceed_closing(connection);
}

// Whole messages that have not begun to go: also one whose send comes to nothing in the end.
void Process::keep_unsent(Connection& connection) {
  if (!connection.keeps_unsent) return;
  BlockQueue unsent;
  sender_.take_unsent(connection, unsent);
  if (!unsent.empty()) waiting_.put_in_front(connection.info().trunk, unsent);
}

void Process::proceed_closing(Connection& connection) {
  // While the gate is kept for new keys, a record would go out under the old ones: the peer could not read an alert.
  const bool sending =
      connection.head_in_flight() || connection.sending == Connection::Sending::kHolding || !connection.queue.empty();
  switch (connection.phase) {
    case Connection::Phase::kServing:
      return;
    case Connection::Phase::kFlushing:
      if (sending) return;
      connection.phase = Connection::Phase::kReleasing;
      break;
    case Connection::Phase::kFinishing:
      if (sending || connection.alert != nullptr) return;
      return end_stream(connection);
    case Connection::Phase::kReleasing:
      keep_unsent(connection);
      sender_.abandon(connection);
      if (connection.sending == Connection::Sending::kInFlight) {
        io_uring_sqe* sqe = ring_->prepare({OperationKind::kCancel});
        io_uring_prep_cancel64(sqe, Operation::on(OperationKind::kSend, connection.id).pack(), 0);
      }
      break;
  }
  release_if_done(connection);
}

// Nothing is queued and no other process holds the connection any more: the last record, then the end of the stream.
// The latter is the supervisor's with kernel TLS, as part of what the kernel took may not have got to TCP yet.
void Process::end_stream(Connection& connection) {
  if (connection.info().record_layer != ipc::RecordLayerKind::kKernel) {
    ::shutdown(connection.fd.get(), SHUT_WR);
    connection.phase = Connection::Phase::kReleasing;
    return release_if_done(connection);
  }
  const bool orderly = connection.last_alert == 0;
  if (!orderly) read_error(connection);
  connection.alert =
      std::make_unique<ktls::AlertMessage>(ktls::Alert{orderly ? ktls::AlertLevel::kWarning : ktls::AlertLevel::kFatal,
                                                       static_cast<ktls::AlertDescription>(connection.last_alert)});
  io_uring_sqe* sqe = ring_->prepare(Operation::on(OperationKind::kAlert, connection.id));
  io_uring_prep_sendmsg(sqe, connection.fd.get(), connection.alert->header(), MSG_NOSIGNAL);
  ++connection.operations;
}

void Process::on_alert_sent(Connection& connection) {
  --connection.operations;
  connection.phase = Connection::Phase::kReleasing;
  release_if_done(connection);
}

void Process::release_if_done(Connection& connection) {
  if (connection.phase != Connection::Phase::kReleasing || connection.operations != 0) return;
  const ConnectionId id = connection.id;
  keep_unsent(connection);
  sender_.abandon(connection);
  sender_.forget(connection);
  receiver_->forget(connection);
  fan_out_.forget(connection);
  connections_[id.slot.value].reset();
  spare_.freed();
  tell(ipc::Released{.connection = id});
}

void Process::on_tick() {
  spare_.look();
  watch_.tick(now_, [this](Connection& connection, ipc::FaultReason reason) { fault(connection, reason, 0); });
  handler_.tick(now_);
  if (fan_out_.tick()) stop_held();
  const config::Limits& limits = endowment_.config.limits;
  for (auto& place : connections_) {
    if (place == nullptr) continue;
    Connection& connection = *place;
    if (connection.phase != Connection::Phase::kServing) {
      if (now_ - connection.phase_since < kFlushLimit) continue;
      // Its time is up: what is left is given up, with the alert if that is what did not go.
      connection.phase_since = now_;
      connection.phase = Connection::Phase::kReleasing;
      if (connection.alert != nullptr) {
        io_uring_sqe* sqe = ring_->prepare({OperationKind::kCancel});
        io_uring_prep_cancel64(sqe, Operation::on(OperationKind::kAlert, connection.id).pack(), 0);
      }
      proceed_closing(connection);
      continue;
    }
    const bool holding = connection.sending == Connection::Sending::kHolding;
    const auto waited = now_ - connection.sending_since;
    // Whose keys are to be changed waits for the handshake process, not for the peer.
    if (connection.control.overdue(now_) || (holding && waited > ControlRecords::kAnswerLimit))
      fault(connection, ipc::FaultReason::kKeysFailed, ETIMEDOUT);
    const bool stalled = connection.sending != Connection::Sending::kIdle && !holding && waited > limits.stalled_peer;
    if (stalled || connection.overflowed) fault(connection, ipc::FaultReason::kStalled, 0);
    if (connection.framer.mid_message() && now_ - connection.partial_since > limits.partial_message)
      fault(connection, ipc::FaultReason::kPartialMessage, 0);
  }
}

}  // namespace ktrunk::worker
