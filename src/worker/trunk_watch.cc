#include "worker/trunk_watch.h"

#include <algorithm>
#include <cstring>

#include "base/log.h"

namespace ktrunk::worker {
namespace {

constexpr std::string_view kPing = "\r\n\r\n";

// To the millisecond, as answers are written down.
Clock::time_point rounded(Clock::time_point time) { return std::chrono::floor<std::chrono::milliseconds>(time); }

}  // namespace

TrunkWatch::TrunkWatch(const config::Config& config, const ipc::SharedRegion& region, WorkerIndex self,
                       const ConnectionTable& connections, Sender& sender, Datagrams& datagrams, Tracer& tracer)
    : config_(config),
      region_(region),
      self_(self),
      connections_(connections),
      sender_(sender),
      datagrams_(datagrams),
      tracer_(tracer),
      key_{region.secret().bytes},
      own_(config) {}

void TrunkWatch::tick(Clock::time_point now, const Fault& fault) {
  now_ = now;
  ++ticks_;
  for (std::uint16_t i = 0; i < config_.trunks.size(); ++i) {
    const config::Trunk& trunk = config_.trunks[i];
    const bool asks = trunk.options_interval.count() != 0;
    if (asks || trunk.keepalive.count() != 0) look_at_connections(TrunkId{i}, now, fault);
    if (asks && ipc::watcher_of(TrunkId{i}, region_.sizes().workers) == self_) look_at_targets(TrunkId{i}, now);
  }
  const auto is_gone = [this](const auto& each) { return each.second.seen != ticks_; };
  std::erase_if(connections_watched_, is_gone);
  std::erase_if(targets_watched_, is_gone);
}

void TrunkWatch::look_at_connections(TrunkId id, Clock::time_point now, const Fault& fault) {
  const config::Trunk& trunk = config_.trunks[id.value];
  const ipc::TrunkEntry& entry = region_.trunk(id);
  for (unsigned place = 0; place < entry.places.load(std::memory_order_acquire); ++place) {
    const ConnectionId connection_id = entry.connection(place);
    if (!connection_id.valid() || connection_id.slot.value >= connections_.size()) continue;
    Connection* connection = connections_[connection_id.slot.value].get();
    if (connection == nullptr || connection->id != connection_id || !connection->accepts_messages()) continue;
    if (connection->slot->state().home != self_ || connection->faulted) continue;
    auto [found, is_new] = connections_watched_.try_emplace(connection_id);
    Watched& watched = found->second;
    watched.seen = ticks_;
    if (is_new) {
      watched.next_options = now;
      watched.next_ping = now + trunk.keepalive;
      // What a predecessor has found.
      if (connection->slot->health.is_down()) watched.failures = trunk.options_failures;
    }
    keep_alive(trunk, *connection, watched, fault);
    if (trunk.options_interval.count() == 0 || connection->faulted) continue;
    const Judged judged = judge(trunk, connection->info().peer.text(), watched, connection->slot->health);
    if (judged == Judged::kNowDown && connection->info().others == ipc::ConnectionInfo::Others::kSome) {
      fault(*connection, ipc::FaultReason::kUnresponsive);
      continue;
    }
    if (!is_due(watched)) continue;
    const ipc::ConnectionInfo& info = connection->info();
    const sip::Flow flow{.transport = info.transport,
                         .connection = connection_id,
                         .trunk = id,
                         .listener = info.listener,
                         .remote = info.peer};
    const std::string octets = question({.trunk = id}, flow);
    if (!send(*connection, octets)) continue;
    asked(trunk, watched);
    if (tracer_.active()) tracer_.sent(flow, octets);
  }
}

void TrunkWatch::keep_alive(const config::Trunk& trunk, Connection& connection, Watched& watched, const Fault& fault) {
  if (trunk.keepalive.count() == 0 || connection.info().role != ipc::ConnectionInfo::Role::kConnected) return;
  if (connection.pong_awaited) {
    if (now_ - watched.ping_sent >= kPongLimit) fault(connection, ipc::FaultReason::kNoPong);
    return;
  }
  if (now_ < watched.next_ping || !send(connection, kPing)) return;
  connection.pong_awaited = true;
  watched.ping_sent = now_;
  watched.next_ping = now_ + trunk.keepalive;
}

void TrunkWatch::look_at_targets(TrunkId id, Clock::time_point now) {
  const config::Trunk& trunk = config_.trunks[id.value];
  const DatagramSocket* socket = datagrams_.socket(trunk.listener);
  if (socket == nullptr) return;
  ipc::TrunkEntry& entry = region_.trunk(id);
  for (std::uint16_t target = 0; target < ipc::kMaxTargets; ++target) {
    const Address address = entry.udp_address(target);
    if (address.empty()) continue;
    auto [found, is_new] = targets_watched_.try_emplace({id.value, target});
    Watched& watched = found->second;
    if (is_new || watched.address != address) watched = {.address = address, .next_options = now};
    watched.seen = ticks_;
    ipc::PeerHealth& health = entry.udp[target].health;
    if (is_new && health.is_down()) watched.failures = trunk.options_failures;
    (void)judge(trunk, address.text(), watched, health);
    if (!is_due(watched) || !datagrams_.has_room()) continue;
    const sip::Flow flow{.transport = config::Transport::kUdp,
                         .connection = {},
                         .trunk = id,
                         .listener = trunk.listener,
                         .remote = address};
    const std::string octets = question({.trunk = id, .target = target}, flow);
    std::memcpy(datagrams_.reserve(octets.size()), octets.data(), octets.size());
    datagrams_.commit(*socket, address, octets.size());
    asked(trunk, watched);
    if (tracer_.active()) tracer_.sent(flow, octets);
  }
}

TrunkWatch::Judged TrunkWatch::judge(const config::Trunk& trunk, const std::string& peer, Watched& watched,
                                     ipc::PeerHealth& health) const {
  if (!watched.options_open) return Judged::kAsBefore;
  const ipc::PeerHealth::Answer answer = health.last_answer();
  const bool answered = answer.status != 0 && answer.at >= rounded(watched.asked);
  if (!answered && now_ - watched.asked < trunk.options_timeout) return Judged::kAsBefore;
  watched.options_open = false;
  const ipc::Health before = health.health();
  if (answered && sip::is_alive(answer.status)) {
    watched.failures = 0;
    if (before == ipc::Health::kDegraded || before == ipc::Health::kDown)
      log::info("trunk '{}': {} answers OPTIONS again ({})", trunk.name, peer, answer.status);
    health.set(ipc::Health::kUp);
    return Judged::kAsBefore;
  }
  watched.failures = std::min(watched.failures + 1, trunk.options_failures);
  const ipc::Health now = watched.failures == trunk.options_failures ? ipc::Health::kDown : ipc::Health::kDegraded;
  health.set(now);
  if (now == before) return Judged::kAsBefore;
  log::warn("trunk '{}': {} {}: {}", trunk.name, peer,
            answered ? fmt::format("answers OPTIONS with {}", answer.status)
                     : fmt::format("has not answered OPTIONS within {} ms", trunk.options_timeout.count()),
            now == ipc::Health::kDown ? "down, it gets no new requests" : "degraded");
  return now == ipc::Health::kDown ? Judged::kNowDown : Judged::kAsBefore;
}

bool TrunkWatch::is_due(const Watched& watched) const { return !watched.options_open && now_ >= watched.next_options; }

void TrunkWatch::asked(const config::Trunk& trunk, Watched& watched) const {
  watched.options_open = true;
  watched.asked = now_;
  watched.next_options = now_ + trunk.options_interval;
}

std::string TrunkWatch::question(const sip::PingSubject& subject, const sip::Flow& flow) {
  // Another one each time, also after a restart.
  const auto clock = static_cast<std::uint64_t>(now_.time_since_epoch().count());
  return sip::options_ping(subject, flow, own_.sent_by(flow.listener), clock + ++number_, key_);
}

bool TrunkWatch::send(Connection& connection, std::string_view octets) {
  if (!sender_.has_room(connection, octets.size())) return false;
  std::memcpy(sender_.reserve(connection, octets.size()), octets.data(), octets.size());
  sender_.commit(connection, octets.size());
  return true;
}

}  // namespace ktrunk::worker
