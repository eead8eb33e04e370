// An upgrade after the take-over: the children, one after another.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/log.h"
#include "supervisor/process.h"

namespace ktrunk::supervisor {
namespace {

using namespace std::chrono_literals;
// For a child to leave its place, after which it is killed, and for its successor to come up.
constexpr auto kLeaveLimit = 10s;
constexpr auto kUpLimit = 30s;
constexpr auto kLookAgain = 5ms;
// Relayed connections end at last, when the process that has their sessions is as old as that.
constexpr auto kFormerLimit = 1h;

}  // namespace

void Process::replace_foreign() {
  upgrade_.replacing.reset();
  if (phase_ != Phase::kRunning) return finish_upgrade();
  const auto end = children_.begin() + static_cast<std::ptrdiff_t>(places());
  const auto next = std::find_if(children_.begin(), end, [](const ChildProcess& each) { return each.foreign(); });
  if (next == end) return finish_upgrade();
  replace(static_cast<std::size_t>(next - children_.begin()));
}

void Process::replace(std::size_t index) {
  ChildProcess& child = children_[index];
  upgrade_.replacing = index;
  restart_timers_[index].reset();
  if (!child.running()) return start_successor(index);
  upgrade_.limit = loop_->after(kLeaveLimit, [this, index] { children_[index].kill(); });
  if (!child.ready()) return child.kill();  // it has only just been started
  if (child.leaving()) return;
  tell(index, ipc::Yield{});
  child.set_leaving();
}

// A handshake process has no handshake left. What it relays is bound to it: then it goes on, out of its place.
void Process::handshake_left(std::size_t index) {
  if (upgrade_.replacing != index || !children_[index].leaving()) return;
  const HandshakeIndex self = handshake_of(index);
  const auto room = connections_.relays_of(self) == 0 ? std::nullopt : room_for_former();
  if (!room) {
    connections_.handshake_left(self, {});
    return tell(index, ipc::Stop{});  // when it has ended, its successor is started
  }
  upgrade_.limit.reset();
  channel_watches_[index].reset();
  children_[*room].take(children_[index], Clock::now());
  connections_.handshake_left(self, handshake_of(*room));
  log::info("{} (pid {}) goes on as {}: it relays {} connections", children_[index].name(), children_[*room].pid(),
            children_[*room].name(), connections_.relays_of(handshake_of(*room)));
  if (auto status = listen_to(*room); !status) end_child(*room, status.error());
  start_successor(index);
}

std::optional<std::size_t> Process::room_for_former() const {
  for (std::size_t index = places(); index < children_.size(); ++index) {
    if (!children_[index].running()) return index;
  }
  log::warn("{} former handshake processes still relay: the connections of the next one are closed",
            kMostFormerHandshakes);
  return std::nullopt;
}

void Process::start_successor(std::size_t index) {
  if (auto status = start_child(index); !status) return successor_failed(status.error().what);
  upgrade_.limit = loop_->after(kUpLimit, [this, index] {
    children_[index].kill();
    successor_failed(fmt::format("{} did not come up in time", children_[index].name()));
  });
}

void Process::successor_up(std::size_t index) {
  if (upgrade_.replacing != index || !children_[index].up()) return;
  // A worker that does not hold every connection yet is of no use to the others.
  if (const WorkerIndex worker = worker_of(index); worker.valid() && !connections_.serves(worker)) {
    upgrade_.next = loop_->after(kLookAgain, [this, index] { successor_up(index); });
    return;
  }
  upgrade_.limit.reset();
  upgrade_.next = loop_->after(0ms, [this] { replace_foreign(); });
}

void Process::successor_failed(const std::string& why) {
  log::error("upgrade: {}", why);
  upgrade_.limit.reset();
  if (upgrade_.former && phase_ == Phase::kRunning) {
    log::error("upgrade: going back to {}", upgrade_.version_before);
    const Error error = become(upgrade_.former->daemon, why);
    log::critical("upgrade: there is no way back: {}", error.what);
    upgrade_.former.reset();
    upgrade_.why_back = why;
  }
  // It is tried again as after any death; the others get their turn.
  if (upgrade_.replacing && !children_[*upgrade_.replacing].running() &&
      !restart_timers_[*upgrade_.replacing].pending())
    start_again(*upgrade_.replacing);
  upgrade_.next = loop_->after(0ms, [this] { replace_foreign(); });
}

void Process::finish_upgrade() {
  const auto reply = upgrade_.reply;
  const bool failed = !upgrade_.why_back.empty();
  if (failed) {
    log::error("upgrade rolled back, ktrunkd {} goes on: {}", version_, upgrade_.why_back);
  } else {
    log::info("upgrade done: ktrunkd {} in the place of {}", version_, upgrade_.version_before);
  }
  const std::string what = failed ? upgrade_.why_back : fmt::format("{} -> {}", upgrade_.version_before, version_);
  upgrade_ = {};
  if (reply) (*reply)(nlohmann::json{{"upgrade", failed ? "rolled back" : "done"}, {"what", {what}}}.dump());
}

void Process::look_at_former_handshakes(Clock::time_point now) {
  for (std::size_t index = places(); index < children_.size(); ++index) {
    ChildProcess& child = children_[index];
    if (!child.running()) continue;
    if (connections_.relays_of(handshake_of(index)) == 0) {
      tell(index, ipc::Stop{});
    } else if (now - child.since() >= kFormerLimit) {
      connections_.retire_relays(handshake_of(index));
    }
  }
}

}  // namespace ktrunk::supervisor
