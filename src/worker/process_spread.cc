// Busy connections in a worker: when what is held back goes on, and what other workers have handed over.
#include "worker/process.h"

namespace ktrunk::worker {
namespace {

sip::Flow flow_of(const ipc::HandoverSource& source) {
  return {.transport = source.transport,
          .connection = source.connection,
          .trunk = source.trunk,
          .listener = source.listener,
          .remote = source.remote};
}

}  // namespace

void Process::tend_spread() {
  if (!fan_out_.busy().empty()) {
    for (Connection* connection : std::exchange(fan_out_.busy(), {})) {
      if (connection->faulted || connection->phase != Connection::Phase::kServing) continue;
      fan_out_.begin_heating(*connection);
      stop_held();
    }
  }
  if (serving_) {
    fan_out_.take([this](const ipc::HandoverSource& source, std::string_view message) {
      handler_.handle(message, flow_of(source), sip::Carrier::kStream);
    });
  }
  if (fan_out_.waiting().empty()) return;
  const std::vector<Connection*> waiting = fan_out_.waiting();
  for (Connection* connection : waiting) go_on_with(*connection);
  fan_out_.end_round();
  receiver_->settle();
}

void Process::go_on_with(Connection& connection) {
  if (connection.spread->mode == Spread::Mode::kMoving) return go_on_moving(connection);
  if (connection.spread->held) {
    if (fan_out_.go_on(connection) == FanOut::Change::kUnderWay) return;
    fan_out_.release(connection);
    if (const auto bad = receiver_->release(connection, now_); bad) end_of_stream(connection, *bad);
  }
  if (!fan_out_.end_is_due(connection)) return;
  const StreamFault end = *connection.spread->end;
  fan_out_.forget(connection);
  fault(connection, end.reason, end.detail);
}

// Those that a change holds back: no more is received, and the change is looked after soon.
void Process::stop_held() {
  for (Connection* connection : fan_out_.waiting()) {
    if (connection->spread->held) receiver_->stop(*connection);
  }
  look_again_soon();
}

void Process::look_again_soon() {
  static constexpr __kernel_timespec kSoon{.tv_sec = 0, .tv_nsec = 60'000'000};
  io_uring_sqe* sqe = ring_->prepare({OperationKind::kSoon});
  io_uring_prep_timeout(sqe, const_cast<__kernel_timespec*>(&kSoon), 0, 0);
}

void Process::end_of_stream(Connection& connection, const StreamFault& end) {
  if (!fan_out_.put_off_end(connection, end)) fault(connection, end.reason, end.detail);
}

// It is being closed: what is held back is handled here and now, for there will be no later.
void Process::let_held_go(Connection& connection) {
  if (connection.spread == nullptr || !connection.spread->held) return;
  fan_out_.stop(connection);
  fan_out_.release(connection);
  (void)receiver_->release(connection, now_);
}

}  // namespace ktrunk::worker
