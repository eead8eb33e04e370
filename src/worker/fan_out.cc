#include "worker/fan_out.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>

#include "base/log.h"
#include "base/processors.h"
#include "sip/call_id.h"

namespace ktrunk::worker {
namespace {

using namespace std::chrono_literals;
// So many busy turns within that time, and a connection is spread.
constexpr unsigned kBusyTurns = 4;
constexpr Clock::duration kBusyWithin = 200ms;
// Fewer messages than that between two ticks, so many times in a row, and it is no more.
constexpr std::uint32_t kQuietTick = 200;
constexpr unsigned kQuietTicks = 4;
// How long a change may hold a connection back, and when it is tried again.
constexpr Clock::duration kChangeLimit = 50ms;
constexpr Clock::duration kNextChange = 2s;
constexpr Clock::duration kEndLimit = 2s;

std::uint64_t hash(std::string_view text, std::uint64_t seed) {
  std::uint64_t hash = seed ^ 0xcbf29ce484222325u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93u;
  return hash ^ hash >> 32;
}

}  // namespace

FanOut::FanOut(const ipc::SharedRegion& region, const ipc::Estate& estate, const ChunkStore& chunks, WorkerIndex self,
               std::size_t max_message_bytes)
    : region_(region),
      estate_(estate),
      chunks_(chunks),
      handovers_(region.handovers()),
      self_(self),
      stats_(region.worker(self)),
      enabled_(region.sizes().workers > 1 && processors() > 1 && max_message_bytes <= ipc::Handover::kMostOctets) {
  std::memcpy(&seed_, region.secret().bytes.data(), sizeof seed_);
  for (unsigned worker = 0; worker < handovers_.workers(); ++worker) {
    seen_head_[worker] = to(worker).head();
    tail_before_[worker] = to(worker).tail();
    to(worker).waits.store(0);
    // A predecessor may have published and not rung.
    if (worker != self_.value && !to(worker).empty()) rings_ |= ipc::WorkerMask{1} << worker;
  }
}

void FanOut::busy_turn(Connection& connection) {
  Heat& heat = connection.heat;
  if (connection.spread != nullptr) {
    const Spread& spread = *connection.spread;
    if (spread.mode != Spread::Mode::kHome || spread.end || now_ - spread.since < kNextChange) return;
  }
  if (now_ - heat.since > kBusyWithin) {
    heat.since = now_;
    heat.turns = 0;
  }
  if (++heat.turns < kBusyTurns) return;
  heat.turns = 0;
  busy_.push_back(&connection);
}

FanOut::Way FanOut::way_by_call_id(std::string_view message, const sip::HeaderIndex& index) {
  const auto worker = static_cast<unsigned>(hash(sip::find_call_id(message, index), seed_) % handovers_.workers());
  if (worker == self_.value) return {};
  const WorkerIndex other{static_cast<std::uint8_t>(worker)};
  const auto tail = to(worker).plan(message.size(), seen_head_[worker]);
  if (!tail) return {.kind = Way::Kind::kNoRoom, .to = other};
  return {.kind = Way::Kind::kGive, .to = other, .tail = *tail};
}

void FanOut::give(const Way& way, const Connection& connection, std::string_view message) {
  const ipc::ConnectionInfo& info = connection.info();
  to(way.to.value)
      .put(way.tail,
           {.connection = connection.id,
            .trunk = info.trunk,
            .listener = info.listener,
            .transport = info.transport,
            .remote = info.peer},
           message);
  given_ |= ipc::mask_of(way.to);
  stats_.handed_over.add();
}

void FanOut::wait_for(Connection& connection) {
  if (std::ranges::find(waiting_, &connection) == waiting_.end()) waiting_.push_back(&connection);
  for (unsigned worker = 0; worker < handovers_.workers(); ++worker) to(worker).waits.store(1);
  std::atomic_thread_fence(std::memory_order_seq_cst);  // before the heads are looked at
}

void FanOut::hold(Connection& connection) {
  connection.spread->held = true;
  wait_for(connection);
}

void FanOut::release(Connection& connection) {
  connection.spread->held = false;
  if (connection.spread->end) return;
  std::erase(waiting_, &connection);
}

// Not by release(): who looks for room once more, and waits again, must have asked for the ring before it looked.
void FanOut::end_round() {
  if (!waiting_.empty()) return;
  for (unsigned worker = 0; worker < handovers_.workers(); ++worker) to(worker).waits.store(0);
}

void FanOut::set_mode(Connection& connection, Spread::Mode mode) {
  Spread& spread = *connection.spread;
  spread.mode = mode;
  spread.since = now_;
  spread.quiet_ticks = 0;
  spread.messages = 0;
  const bool listed = std::ranges::find(spread_, &connection) != spread_.end();
  const bool is_spread = mode == Spread::Mode::kSpread || mode == Spread::Mode::kCooling;
  if (is_spread && !listed) spread_.push_back(&connection);
  if (!is_spread && listed) std::erase(spread_, &connection);
  connection.slot->spread.store(is_spread ? 1 : 0, std::memory_order_release);
}

void FanOut::begin_heating(Connection& connection) {
  if (connection.spread == nullptr) connection.spread = std::make_unique<Spread>();
  set_mode(connection, Spread::Mode::kHeating);
  connection.spread->mark = chunks_.newest();
  hold(connection);
}

void FanOut::begin_cooling(Connection& connection) {
  set_mode(connection, Spread::Mode::kCooling);
  hold(connection);
  for (unsigned worker = 0; worker < handovers_.workers(); ++worker) {
    if (worker == self_.value) continue;
    ipc::Handover& handover = to(worker);
    handover.asked.store(handover.asked.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    rings_ |= ipc::WorkerMask{1} << worker;
  }
}

bool FanOut::all_answered() const {
  for (unsigned worker = 0; worker < handovers_.workers(); ++worker) {
    const ipc::Handover& handover = to(worker);
    if (worker != self_.value && handover.answered.load(std::memory_order_acquire) != handover.asked.load())
      return false;
  }
  return true;
}

FanOut::Change FanOut::go_on(Connection& connection) {
  const Spread& spread = *connection.spread;
  const bool late = now_ - spread.since > kChangeLimit;
  if (spread.mode == Spread::Mode::kHeating) {
    if (chunks_.gone(spread.mark)) {
      set_mode(connection, Spread::Mode::kSpread);
      log::debug("{}: busy, its messages are spread over all workers", connection.info().peer.text());
    } else if (late) {
      set_mode(connection, Spread::Mode::kHome);
    } else {
      return Change::kUnderWay;
    }
  } else if (spread.mode == Spread::Mode::kCooling) {
    if (all_answered()) {
      set_mode(connection, Spread::Mode::kHome);
      log::debug("{}: quiet, its messages are handled where they are received", connection.info().peer.text());
    } else if (late) {
      set_mode(connection, Spread::Mode::kSpread);
    } else {
      return Change::kUnderWay;
    }
  }
  return Change::kOver;
}

bool FanOut::begin_moving(Connection& connection) {
  if (connection.spread == nullptr) connection.spread = std::make_unique<Spread>();
  Spread& spread = *connection.spread;
  if (spread.mode != Spread::Mode::kHome || spread.held || spread.end) return false;
  set_mode(connection, Spread::Mode::kMoving);
  spread.mark = 0;
  std::erase(busy_, &connection);
  wait_for(connection);
  return true;
}

// Step by step: the kernel has stopped receiving; no part of a message is here; all that came of it has been sent.
FanOut::Move FanOut::go_on_moving(Connection& connection) {
  Spread& spread = *connection.spread;
  const bool received = !connection.receiving && !connection.control.unanswered();
  const bool whole = !connection.partial.valid() && !connection.pong_awaited;
  if (received && whole && spread.mark == 0) spread.mark = chunks_.newest() + 1;
  if (received && whole && chunks_.gone(spread.mark - 1)) {
    forget(connection);
    connection.heat = {};
    return Move::kDone;
  }
  const bool in_time = now_ - spread.since <= kChangeLimit;
  if (in_time && (!received || whole)) return Move::kUnderWay;
  std::erase(waiting_, &connection);
  set_mode(connection, Spread::Mode::kHome);
  return Move::kGivenUp;
}

void FanOut::take_over(Connection& connection) {
  if (connection.slot->spread.load(std::memory_order_acquire) == 0 || !enabled_) return;
  connection.spread = std::make_unique<Spread>();
  set_mode(connection, Spread::Mode::kSpread);
}

void FanOut::stop(Connection& connection) { set_mode(connection, Spread::Mode::kHome); }

bool FanOut::tick() {
  bool cooling = false;
  for (Connection* connection : spread_) {
    Spread& spread = *connection->spread;
    const bool quiet = std::exchange(spread.messages, 0) < kQuietTick;
    spread.quiet_ticks = quiet ? spread.quiet_ticks + 1 : 0;
    const bool settled = spread.mode == Spread::Mode::kSpread && !spread.held && !spread.end;
    if (!settled || spread.quiet_ticks < kQuietTicks || now_ - spread.since < kNextChange) continue;
    begin_cooling(*connection);
    cooling = true;
  }
  return cooling;
}

bool FanOut::put_off_end(Connection& connection, const StreamFault& end) {
  if (connection.spread == nullptr || connection.spread->mode == Spread::Mode::kHome) return false;
  Spread& spread = *connection.spread;
  if (spread.end) return true;
  bool outstanding = spread.held;
  for (unsigned worker = 0; worker < handovers_.workers(); ++worker) outstanding |= !to(worker).empty();
  if (!outstanding) return false;
  spread.end = end;
  spread.end_since = now_;
  wait_for(connection);
  return true;
}

bool FanOut::end_is_due(const Connection& connection) const {
  Spread& spread = *connection.spread;
  if (!spread.end) return false;
  if (now_ - spread.end_since > kEndLimit) return true;
  if (spread.held) return false;
  if (spread.handed.empty()) {
    for (unsigned worker = 0; worker < handovers_.workers(); ++worker) spread.handed.push_back(to(worker).tail());
  }
  for (unsigned worker = 0; worker < handovers_.workers(); ++worker) {
    if (static_cast<std::int32_t>(to(worker).head() - spread.handed[worker]) < 0) return false;
  }
  return true;
}

void FanOut::forget(const Connection& connection) {
  std::erase(busy_, &connection);
  std::erase(waiting_, &connection);
  std::erase(spread_, &connection);
}

// The head has been moved: the producer may be waiting for that; or it may have published meanwhile.
void FanOut::answer(WorkerIndex from, ipc::Handover& handover) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (handover.waits.load(std::memory_order_acquire) != 0) rings_ |= ipc::mask_of(from);
  if (!handover.empty()) {
    look_ = true;
    rings_ |= ipc::mask_of(self_);
    return;
  }
  const std::uint32_t asked = handover.asked.load(std::memory_order_acquire);
  if (handover.answered.load(std::memory_order_relaxed) == asked) return;
  if (asked_[from.value] != asked || mark_[from.value] == 0) {
    asked_[from.value] = asked;
    mark_[from.value] = chunks_.newest() + 1;
  }
  if (chunks_.gone(mark_[from.value] - 1)) {
    mark_[from.value] = 0;
    handover.answered.store(asked, std::memory_order_release);
    rings_ |= ipc::mask_of(from);
  } else {
    look_ = true;  // when something has been sent
  }
}

void FanOut::nonsense(WorkerIndex from) {
  log::error("worker {} has handed over what is no message: all that it had handed over is given up", from.value);
}

ipc::WorkerMask FanOut::take_rings() {
  if (given_ != 0) {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    for (ipc::WorkerMask left = given_; left != 0; left &= left - 1) {
      const auto worker = static_cast<unsigned>(std::countr_zero(left));
      const std::uint32_t tail = to(worker).tail();
      const std::uint32_t unread = tail - to(worker).head();
      // Of what was there before this turn the consumer has left nothing: it may have seen the ring empty.
      if (unread != 0 && unread <= tail - tail_before_[worker]) rings_ |= ipc::WorkerMask{1} << worker;
      tail_before_[worker] = tail;
    }
    given_ = 0;
  }
  return std::exchange(rings_, 0);
}

}  // namespace ktrunk::worker
