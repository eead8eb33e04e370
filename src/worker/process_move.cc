// A connection that another worker is to receive from: this one stops receiving, deals with what has come, and waits
// until what came of that has been sent, so that no later message of a call overtakes an earlier one.
#include "worker/process.h"

namespace ktrunk::worker {

void Process::on_move(const ipc::Move& move) {
  Connection* connection = find(Operation::on(OperationKind::kReceive, move.connection));
  const bool can = connection != nullptr && connection->phase == Connection::Phase::kServing && connection->started &&
                   !connection->faulted && !connection->control.unanswered() && !connection->pong_awaited &&
                   fan_out_.begin_moving(*connection);
  if (!can) return tell(ipc::Moved{.connection = move.connection, .outcome = ipc::Moved::Outcome::kKept});
  receiver_->stop(*connection);
  look_again_soon();
}

void Process::go_on_moving(Connection& connection) {
  auto step = FanOut::Move::kGivenUp;
  if (connection.phase == Connection::Phase::kServing && !connection.faulted && !connection.at_end()) {
    step = fan_out_.go_on_moving(connection);
  } else {
    fan_out_.stop(connection);
    fan_out_.release(connection);
  }
  if (step == FanOut::Move::kUnderWay) return;
  const bool moved = step == FanOut::Move::kDone;
  if (moved) {
    connection.started = false;
    connection.spread.reset();
  } else {
    receiver_->start_if_idle(connection);
  }
  tell(ipc::Moved{.connection = connection.id,
                  .outcome = moved ? ipc::Moved::Outcome::kMoved : ipc::Moved::Outcome::kKept});
}

}  // namespace ktrunk::worker
