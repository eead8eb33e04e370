// What an upgrade hands over of the connections: of the supervisor to its successor in the same process, and of a
// handshake process to its own.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "supervisor/connections.h"

namespace ktrunk::supervisor {
namespace {

void save(StateWriter& state, const ConnectionExtras& extras) {
  state.put(extras.unanswered.size());
  for (const UnansweredOctets& each : extras.unanswered) {
    state.put(each.octets);
    state.put(each.place);
  }
  state.put(extras.unanswered_bytes);
  state.put(extras.key_update);
  state.put(extras.key_update_order);
  state.put(extras.transmit);
  state.put(extras.receive);
  state.put(extras.deaths);
  state.put(extras.worker_deaths);
  state.put(extras.replaces);
  state.put(extras.retirement);
}

std::unique_ptr<ConnectionExtras> restore_extras(StateReader& state) {
  auto extras = std::make_unique<ConnectionExtras>();
  const auto unanswered = state.get<std::size_t>();
  for (std::size_t i = 0; i < unanswered && state.good(); ++i) {
    UnansweredOctets each{.octets = state.octets()};
    state.get(each.place);
    extras->unanswered.push_back(std::move(each));
  }
  state.get(extras->unanswered_bytes);
  state.get(extras->key_update);
  state.get(extras->key_update_order);
  state.get(extras->transmit);
  state.get(extras->receive);
  state.get(extras->deaths);
  state.get(extras->worker_deaths);
  state.get(extras->replaces);
  state.get(extras->retirement);
  return extras;
}

}  // namespace

void Connections::save(StateWriter& state) const {
  state.put(in_use_);
  for (std::uint32_t slot = 0; slot < records_.size(); ++slot) {
    const Record& record = records_[slot];
    if (record.stage == Stage::kFree) continue;
    state.put(slot);
    state.put(record.stage);
    state.put(record.owner);
    state.put(record.alert);
    for (const bool each : {record.abort, record.tls, record.at_once, record.elsewhere, record.relay_broken})
      state.put(each);
    state.put(record.descriptor, StateWriter::What::kOfPeer);
    state.put(record.reference);
    state.put(record.awaited);
    state.put(record.holders);
    state.put(record.extras != nullptr);
    if (record.extras != nullptr) supervisor::save(state, *record.extras);
  }
  for (const WorkerState& worker : workers_) {
    state.put(worker.ready);
    state.put(worker.offers_in_flight);
    state.put(worker.first_offers);
    state.put(worker.serving);
    state.put(worker.offers_waiting.size());
    for (const ConnectionId id : worker.offers_waiting) state.put(id);
  }
  state.put(retired_.size());
  for (const ConnectionId id : retired_) state.put(id);
  state.put(lingering_.size());
  for (const Lingering& each : lingering_) {
    state.put(each.socket, StateWriter::What::kOfPeer);
    state.put(each.until);
  }
  state.put(move_.connection);
  state.put(move_.to);
  state.put(handshakes_ready_.to_ulong());
}

void Connections::restore(StateReader& state) {
  state.get(in_use_);
  for (std::size_t i = 0; i < in_use_ && state.good(); ++i) {
    const auto slot = state.get<std::uint32_t>();
    if (slot >= records_.size() || records_[slot].stage != Stage::kFree) return state.reject();
    Record& record = records_[slot];
    state.get(record.stage);
    state.get(record.owner);
    state.get(record.alert);
    record.abort = state.get<bool>();
    record.tls = state.get<bool>();
    record.at_once = state.get<bool>();
    record.elsewhere = state.get<bool>();
    record.relay_broken = state.get<bool>();
    record.descriptor = state.descriptor(StateWriter::What::kOfPeer);
    state.get(record.reference);
    state.get(record.awaited);
    state.get(record.holders);
    if (state.get<bool>()) record.extras = restore_extras(state);
    const ipc::ConnectionInfo& info = info_of(id_of(slot));
    if (info.role == ipc::ConnectionInfo::Role::kAccepted) (void)accepted_.add(info.peer, ~std::uint32_t{0});
    if (const WorkerIndex home = home_of(id_of(slot)); home.value < workers_.size()) ++workers_[home.value].homes;
  }
  std::erase_if(free_, [this](std::uint32_t slot) { return records_[slot].stage != Stage::kFree; });
  for (WorkerState& worker : workers_) {
    state.get(worker.ready);
    state.get(worker.offers_in_flight);
    state.get(worker.first_offers);
    state.get(worker.serving);
    const auto waiting = state.get<std::size_t>();
    for (std::size_t i = 0; i < waiting && state.good(); ++i)
      worker.offers_waiting.push_back(state.get<ConnectionId>());
  }
  const auto retired = state.get<std::size_t>();
  for (std::size_t i = 0; i < retired && state.good(); ++i) retired_.push_back(state.get<ConnectionId>());
  const auto lingering = state.get<std::size_t>();
  for (std::size_t i = 0; i < lingering && state.good(); ++i) {
    Fd socket = state.descriptor(StateWriter::What::kOfPeer);
    lingering_.push_back({.socket = std::move(socket), .until = state.get<Clock::time_point>()});
  }
  state.get(move_.connection);
  state.get(move_.to);
  handshakes_ready_ = decltype(handshakes_ready_)(state.get<unsigned long>());
}

bool Connections::is_relay_of(HandshakeIndex process, std::uint32_t slot) const {
  return process.valid() && relaying(id_of(slot)) == process;
}

std::size_t Connections::relays_of(HandshakeIndex process) const {
  std::size_t count = 0;
  for (std::uint32_t slot = 0; slot < records_.size(); ++slot) count += is_relay_of(process, slot) ? 1 : 0;
  return count;
}

HandshakeIndex Connections::relaying(ConnectionId id) const {
  const Record* record = find(id);
  const bool relayed = record != nullptr && info_of(id).record_layer == ipc::RecordLayerKind::kRelay;
  return relayed ? record->owner : HandshakeIndex{};
}

void Connections::handshake_left(HandshakeIndex process, HandshakeIndex keeps_relays) {
  for (std::uint32_t slot = 0; slot < records_.size(); ++slot) {
    Record& record = records_[slot];
    if (record.stage == Stage::kFree || record.owner != process) continue;
    if (keeps_relays.valid() && is_relay_of(process, slot)) {
      record.owner = keeps_relays;
    } else {
      record.reference = 0;
    }
  }
  handshakes_ready_.reset(process.value);
  if (keeps_relays.valid()) handshakes_ready_.set(keeps_relays.value);
}

void Connections::retire_relays(HandshakeIndex process) {
  for (std::uint32_t slot = 0; slot < records_.size(); ++slot) {
    if (is_relay_of(process, slot)) retire(id_of(slot), records_[slot]);
  }
}

}  // namespace ktrunk::supervisor
