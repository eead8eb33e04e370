#include "worker/process.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bit>
#include <utility>

#include "base/log.h"

namespace ktrunk::worker {
namespace {

constexpr unsigned kRingEntries = 1024;
constexpr auto kTick = std::chrono::milliseconds(500);
// How long a connection that is being closed may take to send what is queued and its close_notify.
constexpr auto kFlushLimit = std::chrono::seconds(2);

}  // namespace

Result<std::unique_ptr<Process>> Process::create(Endowment endowment, ipc::Channel channel) {
  auto ring = Ring::create(kRingEntries);
  if (!ring) return std::unexpected(ring.error());
  std::unique_ptr<Process> process(new Process(std::move(endowment), std::move(channel), std::move(*ring)));
  if (auto status = process->start(); !status) return std::unexpected(status.error());
  return process;
}

Process::Process(Endowment endowment, ipc::Channel channel, std::unique_ptr<Ring> ring)
    : endowment_(std::move(endowment)),
      stats_(endowment_.region.worker(endowment_.self)),
      channel_(std::move(channel)),
      ring_(std::move(ring)),
      connections_(endowment_.region.sizes().max_connections),
      datagrams_(*ring_),
      sender_(*ring_, endowment_.region, endowment_.self, endowment_.config.limits.max_queue_bytes),
      handler_(endowment_.config, endowment_.region, endowment_.self, connections_, sender_, datagrams_) {}

Status Process::start() {
  auto receiver = Receiver::create(*ring_, stats_, *this);
  if (!receiver) return std::unexpected(receiver.error());
  receiver_ = std::move(*receiver);
  for (auto& [listener, fd] : endowment_.udp_sockets) {
    if (auto status = datagrams_.add(listener, std::move(fd)); !status) return status;
  }
  now_ = Clock::now();
  arm_channel();
  arm_doorbell();
  arm_tick();
  return {};
}

Status Process::run() {
  while (!stopping_) {
    if (auto status = ring_->submit_and_wait(); !status) return status;
    stats_.submits.add(ring_->submits() - std::exchange(submits_counted_, ring_->submits()));
    now_ = Clock::now();
    Status status;
    ring_->for_each_completion([&](Operation operation, int result, unsigned flags) {
      if (status) status = dispatch(operation, result, flags);
    });
    if (!status) return status;
    if (!channel_status_) return channel_status_;
    // Everything that this turn queued leaves together, in the next system call.
    sender_.start_all(now_);
    ring_doorbells();
    arm_channel_write();
  }
  return {};
}

Status Process::dispatch(Operation operation, int result, unsigned flags) {
  switch (operation.kind) {
    case OperationKind::kReceive: {
      Connection* connection = find(operation);
      if (connection == nullptr) {
        receiver_->discard(result, flags);
        return {};
      }
      if (const auto bad = receiver_->completed(*connection, result, flags, now_); bad)
        fault(*connection, bad->reason, bad->detail);
      release_if_done(*connection);
      return {};
    }
    case OperationKind::kSend:
      if (Connection* connection = find(operation); connection != nullptr) on_send(*connection, result);
      return {};
    case OperationKind::kAlert:
      if (Connection* connection = find(operation); connection != nullptr) on_alert_sent(*connection);
      return {};
    case OperationKind::kDatagrams:
      datagrams_.received(operation.index, result, flags,
                          [this](ListenerId listener, const Address& from, std::string_view octets) {
                            const sip::Flow source{.transport = config::Transport::kUdp,
                                                   .connection = {},
                                                   .trunk = {},
                                                   .listener = listener,
                                                   .remote = from};
                            handler_.handle(octets, source, sip::Carrier::kDatagram);
                          });
      return {};
    case OperationKind::kDatagramSend:
      datagrams_.sent(operation.index, result);
      return {};
    case OperationKind::kChannelReadable:
      if ((flags & IORING_CQE_F_MORE) == 0) arm_channel();
      return on_channel();
    case OperationKind::kChannelWritable:
      awaiting_channel_write_ = false;
      return channel_.flush();
    case OperationKind::kDoorbell: {
      std::uint64_t rings = 0;
      (void)!::read(endowment_.doorbells[endowment_.self.value].get(), &rings, sizeof rings);
      if ((flags & IORING_CQE_F_MORE) == 0) arm_doorbell();
      sender_.retry_waiting();
      return {};
    }
    case OperationKind::kTick:
      on_tick();
      arm_tick();
      return {};
    case OperationKind::kCancel:
      return {};
  }
  return {};
}

Connection* Process::find(Operation operation) {
  if (operation.index >= connections_.size()) return nullptr;
  Connection* connection = connections_[operation.index].get();
  return connection != nullptr && connection->id.generation.value == operation.generation ? connection : nullptr;
}

Status Process::on_channel() {
  ipc::Packet packet;
  for (;;) {
    auto outcome = channel_.receive(packet);
    if (!outcome) return std::unexpected(outcome.error());
    if (*outcome == ipc::Channel::Outcome::kWouldBlock) return {};
    if (*outcome == ipc::Channel::Outcome::kClosed) return fail("the supervisor has gone");
    if (auto status = on_packet(packet); !status) return status;
  }
}

Status Process::on_packet(ipc::Packet& packet) {
  switch (packet.kind()) {
    case ipc::Kind::kOffer:
      on_offer(packet.as<ipc::Offer>(), packet.take_descriptor());
      return {};
    case ipc::Kind::kStart:
      on_start(packet.as<ipc::Start>());
      return {};
    case ipc::Kind::kClose:
      on_close(packet.as<ipc::Close>());
      return {};
    case ipc::Kind::kStop:
      stopping_ = true;
      return {};
    default:
      return fail("message kind {} after the start", static_cast<unsigned>(packet.kind()));
  }
}

void Process::on_offer(const ipc::Offer& offer, Fd descriptor) {
  auto& place = connections_[offer.connection.slot.value];
  place = std::make_unique<Connection>(offer.connection, std::move(descriptor),
                                       endowment_.region.slot(offer.connection.slot),
                                       endowment_.config.limits.max_message_bytes);
  tell(ipc::Held{.connection = offer.connection});
}

void Process::on_start(const ipc::Start& start) {
  Connection* connection = find(Operation::on(OperationKind::kReceive, start.connection));
  if (connection != nullptr && connection->phase == Connection::Phase::kServing) receiver_->start(*connection);
}

template <ipc::Body T>
void Process::tell(const T& body) {
  if (auto status = channel_.send(body); !status) channel_status_ = status;
}

void Process::on_send(Connection& connection, int result) {
  const Sender::Sent sent = sender_.completed(connection, result, now_);
  if (sent == Sender::Sent::kFailed && connection.phase < Connection::Phase::kReleasing) {
    sender_.abandon(connection);
    fault(connection, ipc::FaultReason::kReset, result < 0 ? -result : EPIPE);
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
  connection.phase = phase;
  connection.phase_since = now_;
  connection.faulted = true;  // whatever still goes wrong, the supervisor knows that it ends
  receiver_->stop(connection);
  proceed_closing(connection);
}

void Process::proceed_closing(Connection& connection) {
  const bool sending = connection.sending == Connection::Sending::kInFlight || !connection.queue.empty();
  switch (connection.phase) {
    case Connection::Phase::kServing:
      return;
    case Connection::Phase::kFlushing:
      if (sending) return;
      connection.phase = Connection::Phase::kReleasing;
      break;
    case Connection::Phase::kFinishing:
      if (sending || connection.alert.has_value()) return;
      return end_stream(connection);
    case Connection::Phase::kReleasing:
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
void Process::end_stream(Connection& connection) {
  if (connection.info().record_layer != ipc::RecordLayerKind::kKernel) {
    ::shutdown(connection.fd.get(), SHUT_WR);
    connection.phase = Connection::Phase::kReleasing;
    return release_if_done(connection);
  }
  const bool orderly = connection.last_alert == 0;
  connection.alert.emplace(ktls::Alert{orderly ? ktls::AlertLevel::kWarning : ktls::AlertLevel::kFatal,
                                       static_cast<ktls::AlertDescription>(connection.last_alert)});
  io_uring_sqe* sqe = ring_->prepare(Operation::on(OperationKind::kAlert, connection.id));
  io_uring_prep_sendmsg(sqe, connection.fd.get(), connection.alert->header(), MSG_NOSIGNAL);
  ++connection.operations;
}

void Process::on_alert_sent(Connection& connection) {
  --connection.operations;
  ::shutdown(connection.fd.get(), SHUT_WR);
  connection.phase = Connection::Phase::kReleasing;
  release_if_done(connection);
}

void Process::release_if_done(Connection& connection) {
  if (connection.phase != Connection::Phase::kReleasing || connection.operations != 0) return;
  const ConnectionId id = connection.id;
  sender_.abandon(connection);
  sender_.forget(connection);
  connections_[id.slot.value].reset();
  tell(ipc::Released{.connection = id});
}

void Process::on_tick() {
  const config::Limits& limits = endowment_.config.limits;
  for (auto& place : connections_) {
    if (place == nullptr) continue;
    Connection& connection = *place;
    if (connection.phase != Connection::Phase::kServing) {
      if (now_ - connection.phase_since < kFlushLimit) continue;
      // Its time is up: what is left is given up, with the alert if that is what did not go.
      connection.phase_since = now_;
      connection.phase = Connection::Phase::kReleasing;
      if (connection.alert.has_value()) {
        io_uring_sqe* sqe = ring_->prepare({OperationKind::kCancel});
        io_uring_prep_cancel64(sqe, Operation::on(OperationKind::kAlert, connection.id).pack(), 0);
      }
      proceed_closing(connection);
      continue;
    }
    const bool stalled =
        connection.sending != Connection::Sending::kIdle && now_ - connection.sending_since > limits.stalled_peer;
    if (stalled || connection.overflowed) fault(connection, ipc::FaultReason::kStalled, 0);
    if (connection.framer.mid_message() && now_ - connection.partial_since > limits.partial_message)
      fault(connection, ipc::FaultReason::kPartialMessage, 0);
  }
}

void Process::on_message(Connection& connection, std::string_view message) {
  handler_.handle(message, MessageHandler::flow_of(connection), sip::Carrier::kStream);
}

void Process::on_ping(Connection& connection) { handler_.pong(connection); }

void Process::on_malformed(Connection& connection, std::string_view head, int status, const char* reason) {
  log::warn("{} {}: {}", config::transport_name(connection.info().transport), connection.info().peer.text(), reason);
  handler_.refuse(head, MessageHandler::flow_of(connection), status, "Bad Message Framing");
}

void Process::arm_channel() {
  io_uring_sqe* sqe = ring_->prepare({OperationKind::kChannelReadable});
  io_uring_prep_poll_multishot(sqe, channel_.descriptor(), POLLIN);
}

void Process::arm_channel_write() {
  if (!channel_.wants_write() || std::exchange(awaiting_channel_write_, true)) return;
  io_uring_sqe* sqe = ring_->prepare({OperationKind::kChannelWritable});
  io_uring_prep_poll_add(sqe, channel_.descriptor(), POLLOUT);
}

void Process::arm_doorbell() {
  io_uring_sqe* sqe = ring_->prepare({OperationKind::kDoorbell});
  io_uring_prep_poll_multishot(sqe, endowment_.doorbells[endowment_.self.value].get(), POLLIN);
}

void Process::arm_tick() {
  static constexpr __kernel_timespec kInterval{
      .tv_sec = 0, .tv_nsec = std::chrono::duration_cast<std::chrono::nanoseconds>(kTick).count()};
  io_uring_sqe* sqe = ring_->prepare({OperationKind::kTick});
  io_uring_prep_timeout(sqe, const_cast<__kernel_timespec*>(&kInterval), 0, 0);
}

void Process::ring_doorbells() {
  ipc::WorkerMask mask = sender_.take_rings();
  while (mask != 0) {
    const int worker = std::countr_zero(mask);
    mask &= mask - 1;
    const std::uint64_t one = 1;
    // A full counter means that the bell is ringing already.
    (void)!::write(endowment_.doorbells[static_cast<std::size_t>(worker)].get(), &one, sizeof one);
  }
}

}  // namespace ktrunk::worker
