// Homes: which worker receives from a connection. A new one goes to the worker with the least to do; and where one
// worker has far more to do than another for a while, one of its connections moves (ipc/messages.h, Move). No more
// workers receive than there are processors: they would take turns on them, and each find fewer messages at a time,
// which go out in as many more records.
#include <algorithm>

#include "base/log.h"
#include "supervisor/connections.h"

namespace ktrunk::supervisor {
namespace {

using namespace std::chrono_literals;
// Rates are taken over at least so long.
constexpr Clock::duration kMeasure = 1s;
// Messages a second that one worker must have more than another, besides twice as many.
constexpr double kFarMore = 50;
// After a connection has moved, or could not: the next one.
constexpr Clock::duration kNextMove = 2s;

}  // namespace

// By the connections that it receives from, and by what it does, in connections that do as much as the average one.
WorkerIndex Connections::least_loaded() const {
  double messages = 0;
  double homes = 0;
  for (const WorkerState& state : workers_) {
    messages += state.rate;
    homes += state.homes;
  }
  const double of_a_message = messages > kFarMore ? homes / messages : 0;
  WorkerIndex best;
  double least = 0;
  unsigned there = 0;
  for (std::size_t worker = 0; worker < workers_.size() && there < receivers_; ++worker) {
    const WorkerState& state = workers_[worker];
    if (!state.ready) continue;
    ++there;
    const double load = state.homes + state.rate * of_a_message;
    if (best.valid() && load >= least) continue;
    best = WorkerIndex{static_cast<std::uint8_t>(worker)};
    least = load;
  }
  return best;
}

void Connections::look_at_homes(Clock::time_point now) {
  if (now - measured_at_ < kMeasure) return;
  const std::chrono::duration<double> seconds = now - std::exchange(measured_at_, now);
  for (std::size_t worker = 0; worker < workers_.size(); ++worker) {
    const ipc::WorkerStats& stats = region_.worker(WorkerIndex{static_cast<std::uint8_t>(worker)});
    const std::uint64_t handled = stats.messages_received.read() + stats.handed_over.read();
    WorkerState& state = workers_[worker];
    state.rate = static_cast<double>(handled - std::exchange(state.handled, handled)) / seconds.count();
  }
  if (move_.connection.valid()) {
    // Its answer comes, unless the connection ends first.
    const Record* record = find(move_.connection);
    if (record != nullptr && record->stage == Stage::kOpen) return;
    move_ = {.not_before = now + kNextMove};
  }
  if (now >= move_.not_before) plan_move(now);
}

// Twice in a row the same worker has far more to do than another: between the two looks its connections were counted.
void Connections::plan_move(Clock::time_point now) {
  WorkerIndex most;
  WorkerIndex least;
  unsigned there = 0;
  for (std::size_t worker = 0; worker < workers_.size(); ++worker) {
    if (!workers_[worker].serving) continue;
    const WorkerIndex index{static_cast<std::uint8_t>(worker)};
    if (!most.valid() || workers_[worker].rate > workers_[most.value].rate) most = index;
    if (there++ >= receivers_) continue;
    if (!least.valid() || workers_[worker].rate < workers_[least.value].rate) least = index;
  }
  if (!most.valid()) return;
  const double more = workers_[most.value].rate - workers_[least.value].rate;
  if (more < kFarMore || workers_[most.value].rate < 2 * workers_[least.value].rate) {
    move_.counts.clear();
    return;
  }
  const bool counted = move_.from == most && !move_.counts.empty();
  const auto before = std::exchange(move_.counts, {});
  move_.from = most;
  if (counted) return begin_move(now, most, least, more, before);
  for (std::uint32_t slot = 0; slot < records_.size(); ++slot) {
    if (records_[slot].stage != Stage::kOpen || home_of(id_of(slot)) != most) continue;
    move_.counts.push_back({.connection = id_of(slot),
                            .records = region_.slot(SlotIndex{slot}).records_received.load(std::memory_order_relaxed)});
  }
}

bool Connections::may_move(ConnectionId id) {
  const Record* record = find(id);
  if (record == nullptr || record->stage != Stage::kOpen || is_retired(*record)) return false;
  if (region_.slot(id.slot).spread.load(std::memory_order_relaxed) != 0) return false;
  const ConnectionExtras* extras = record->extras.get();
  return extras == nullptr || (extras->unanswered.empty() && extras->key_update == ConnectionExtras::KeyUpdate::kNone);
}

// The one whose going evens things out best, if any does.
void Connections::begin_move(Clock::time_point now, WorkerIndex from, WorkerIndex to, double more,
                             const std::vector<Counted>& before) {
  std::vector<double> came(before.size());
  double all = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (find(before[i].connection) == nullptr) continue;
    const std::uint64_t records =
        region_.slot(before[i].connection.slot).records_received.load(std::memory_order_relaxed);
    came[i] = static_cast<double>(records - before[i].records);
    all += came[i];
  }
  ConnectionId best;
  double least_left = more;  // of the difference; when nothing moves
  for (std::size_t i = 0; i < before.size() && all > 0; ++i) {
    const double left = std::abs(more - 2 * came[i] / all * workers_[from.value].rate);
    if (came[i] == 0 || left >= 0.9 * least_left || !may_move(before[i].connection)) continue;
    if (home_of(before[i].connection) != from) continue;
    best = before[i].connection;
    least_left = left;
  }
  move_.not_before = now + kNextMove;
  if (!best.valid()) return;
  move_.connection = best;
  move_.to = to;
  mail_.to_worker(from, ipc::Move{.connection = best});
}

bool Connections::moved(WorkerIndex worker, const ipc::Moved& message) {
  const ConnectionId id = message.connection;
  Record* record = find(id);
  if (record == nullptr || record->stage > Stage::kOpen) return true;
  if (move_.connection != id || home_of(id) != worker) return false;
  const WorkerIndex to = move_.to;
  move_.connection = {};
  if (message.outcome == ipc::Moved::Outcome::kKept) return true;
  // What has come up meanwhile is the old home's.
  if (!workers_[to.value].serving || !may_move(id)) {
    start(worker, id, *record);
    return true;
  }
  log::info("{}: received from by worker {} instead of {}, which has far more to do", name_of(id), to.value,
            worker.value);
  // The new home numbers them anew.
  region_.slot(id.slot).octets_number.store(0, std::memory_order_release);
  set_home(id, ipc::SlotState::kOpen, to);
  start(to, id, *record);
  return true;
}

}  // namespace ktrunk::supervisor
