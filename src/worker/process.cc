#include "worker/process.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "base/log.h"
#include "worker/confinement.h"

namespace ktrunk::worker {
namespace {

constexpr std::size_t kIdleBlocksKept = 256;
constexpr auto kTick = std::chrono::milliseconds(500);
constexpr auto kYieldTime = std::chrono::seconds(2);

}  // namespace

Result<std::unique_ptr<Process>> Process::create(Endowment endowment, ipc::Channel channel) {
  auto ring = Ring::attach(std::move(endowment.ring), endowment.estate.ring_parameters());
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
      datagrams_(*ring_, endowment_.estate),
      chunks_(endowment_.estate),
      blocks_(chunks_, kIdleBlocksKept),
      sender_(*ring_, endowment_.region, blocks_, endowment_.self, endowment_.config.limits.max_queue_bytes),
      waiting_(blocks_, endowment_.region.sizes().trunks, endowment_.config.limits.max_queue_bytes),
      inheritance_(endowment_.estate, chunks_, blocks_, sender_, waiting_),
      fan_out_(endowment_.region, endowment_.estate, chunks_, endowment_.self,
               endowment_.config.limits.max_message_bytes),
      tracer_(endowment_.config, endowment_.region, endowment_.self, std::move(endowment_.collector)),
      handler_(endowment_.config, endowment_.region, endowment_.self, connections_, sender_, waiting_, datagrams_,
               tracer_),
      watch_(endowment_.config, endowment_.region, endowment_.self, connections_, sender_, datagrams_, tracer_) {}

Status Process::start() {
  const auto in_use = [this](OperationKind kind) {
    return [this, kind](unsigned buffer) { return inheritance_.in_use(kind, buffer); };
  };
  auto receiver =
      Receiver::create(*ring_, endowment_.estate, chunks_, stats_, fan_out_, *this, in_use(OperationKind::kReceive));
  if (!receiver) return std::unexpected(receiver.error());
  receiver_ = std::move(*receiver);
  for (auto& [listener, fd] : endowment_.udp_sockets) {
    if (auto status = datagrams_.add(listener, std::move(fd), in_use(OperationKind::kDatagrams)); !status)
      return status;
  }
  now_ = Clock::now();
  arm_channel();
  arm_doorbell();
  arm_tick();
  return {};
}

Status Process::confine() {
  if (auto status = give_up_privileges(endowment_.config.user); !status) return status;
  // Registering restrictions is not among the system calls that are left afterwards.
  if (auto status = ring_->enable(kRingOperations); !status) return status;
  if (auto status = allow_only_needed_system_calls(); !status)
    log::warn("running without a system call filter: {}", status.error().what);
  return {};
}

Status Process::run() {
  while (!stopping_) {
    if (auto status = ring_->submit_and_wait(); !status) return status;
    stats_.submits.add(ring_->submits() - std::exchange(submits_counted_, ring_->submits()));
    now_ = Clock::now();
    fan_out_.begin_turn(now_);
    Status status;
    const std::uint32_t first = endowment_.estate.first_number();
    ring_->for_each_completion([&](Operation operation, int result, unsigned flags, std::uint32_t place) {
      if (status) status = dispatch(operation, result, flags, first + place);
    });
    receiver_->settle();
    if (!status) return status;
    if (!channel_status_) return channel_status_;
    tend_spread();
    if (!waiting_.empty()) handler_.serve_waiting(now_);
    // Everything that this turn queued leaves together, in the next system call.
    sender_.start_all(now_);
    ring_doorbells();
    arm_channel_write();
    if (tracer_.pending()) {
      // SIP first: those who watch cost a system call more, and no time before the send.
      ring_->submit();
      tracer_.flush();
    }
    if (yield_by_ && may_yield()) {
      // Datagrams go now or never; all else is in the estate. What it has told the supervisor must have gone.
      ring_->submit();
      if (!channel_.wants_write()) return {};
    }
  }
  return {};
}

// A successor goes on with all but connections that are being closed: those are waited for, though not for long.
bool Process::may_yield() const {
  const auto closes = [](const std::unique_ptr<Connection>& connection) {
    return connection != nullptr && connection->phase != Connection::Phase::kServing;
  };
  return now_ >= *yield_by_ || std::ranges::none_of(connections_, closes);
}

Status Process::dispatch(Operation operation, int result, unsigned flags, std::uint32_t number) {
  switch (operation.kind) {
    case OperationKind::kReceive: {
      Connection* connection = find(operation);
      if (connection == nullptr) {
        receiver_->discard(result, flags);
        return {};
      }
      if (const auto bad = receiver_->completed(*connection, result, flags, number, now_); bad)
        end_of_stream(*connection, *bad);
      release_if_done(*connection);
      return {};
    }
    case OperationKind::kSend:
      if (Connection* connection = find(operation); connection != nullptr) on_send(*connection, result, number);
      return {};
    case OperationKind::kAlert:
      if (Connection* connection = find(operation); connection != nullptr) on_alert_sent(*connection);
      return {};
    case OperationKind::kDatagrams:
      datagrams_.received(operation.index, result, flags, number,
                          [this](ListenerId listener, const Address& from, std::string_view octets) {
                            on_datagram(listener, from, octets);
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
      fan_out_.look();
      return {};
    }
    case OperationKind::kTick:
      on_tick();
      arm_tick();
      return {};
    case OperationKind::kCancel:
    case OperationKind::kSoon:
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
    case ipc::Kind::kServe:
      on_serve();
      return {};
    case ipc::Kind::kClose:
      on_close(packet.as<ipc::Close>());
      return {};
    case ipc::Kind::kSendControl:
      return on_send_control(packet.as<ipc::SendControl>());
    case ipc::Kind::kResume:
      on_resume(packet.as<ipc::Resume>());
      return {};
    case ipc::Kind::kYield:
      yield_by_ = now_ + kYieldTime;
      return {};
    case ipc::Kind::kDrain:
      handler_.drain();
      return {};
    case ipc::Kind::kMove:
      on_move(packet.as<ipc::Move>());
      return {};
    case ipc::Kind::kTrace:
      tracer_.begin(packet.as<ipc::Trace>(), packet.take_descriptor());
      return {};
    case ipc::Kind::kTraceEnd:
      tracer_.end(packet.as<ipc::TraceEnd>());
      return {};
    case ipc::Kind::kStop:
      stopping_ = true;
      return {};
    default:
      return fail("message kind {} after the start", static_cast<unsigned>(packet.kind()));
  }
}

void Process::on_message(Connection& connection, std::string_view message, const sip::HeaderIndex& index) {
  handler_.handle(message, MessageHandler::flow_of(connection), sip::Carrier::kStream, index);
}

void Process::on_datagram(ListenerId listener, const Address& from, std::string_view octets) {
  handler_.handle(octets, handler_.flow_of(listener, from), sip::Carrier::kDatagram);
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
  ipc::WorkerMask mask = sender_.take_rings() | fan_out_.take_rings();
  while (mask != 0) {
    const int worker = std::countr_zero(mask);
    mask &= mask - 1;
    const std::uint64_t one = 1;
    // A full counter means that the bell is ringing already.
    (void)!::write(endowment_.doorbells[static_cast<std::size_t>(worker)].get(), &one, sizeof one);
  }
}

}  // namespace ktrunk::worker
