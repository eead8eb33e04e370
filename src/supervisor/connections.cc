#include "supervisor/connections.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/log.h"

namespace ktrunk::supervisor {
namespace {

constexpr unsigned kMostWorkerDeaths = 5;

}  // namespace

Connections::Connections(const config::Config& config, const ipc::SharedRegion& region, ChildMail& mail,
                         unsigned receivers)
    : config_(config),
      region_(region),
      mail_(mail),
      records_(region.sizes().max_connections),
      workers_(region.sizes().workers),
      receivers_(receivers) {
  // The lowest slots are used first, so that what the workers scan and what memory is touched stays small.
  free_.reserve(records_.size());
  for (std::size_t slot = records_.size(); slot-- > 0;) free_.push_back(static_cast<std::uint32_t>(slot));
}

ConnectionId Connections::id_of(std::uint32_t slot) const {
  return {SlotIndex{slot}, region_.slot(SlotIndex{slot}).state().generation};
}

const Connections::Record* Connections::find(ConnectionId id) const {
  if (!id.valid() || id.slot.value >= records_.size() || id_of(id.slot.value) != id) return nullptr;
  const Record& record = records_[id.slot.value];
  return record.stage == Stage::kFree ? nullptr : &record;
}

void Connections::set_state(ConnectionId id, ipc::SlotState state, WorkerIndex home) {
  region_.slot(id.slot).word.store(ipc::SlotWord{id.generation, state, home}.pack(), std::memory_order_release);
}

WorkerIndex Connections::home_of(ConnectionId id) const { return region_.slot(id.slot).state().home; }

void Connections::set_home(ConnectionId id, ipc::SlotState state, WorkerIndex home) {
  const WorkerIndex before = home_of(id);
  if (before.value < workers_.size()) --workers_[before.value].homes;
  if (home.value < workers_.size()) ++workers_[home.value].homes;
  set_state(id, state, home);
}

bool Connections::refuse(HandshakeIndex process, const ipc::Established& message) {
  using Why = ipc::Refused::Why;
  const auto say = [&](Why why) {
    mail_.to_handshake(process, ipc::Refused{.reference = message.reference, .why = why});
    return true;
  };
  const ipc::ConnectionInfo& info = message.info;
  if (free_.empty()) {
    log::warn("{}: refused, all {} places for connections are taken; raise limits.max_connections",
              connection_name(config_, info), records_.size());
    return say(Why::kTableFull);
  }
  if (info.role != ipc::ConnectionInfo::Role::kAccepted) return false;
  const std::uint32_t most = config_.limits.connections_per_address;
  if (accepted_.add(info.peer, most) == AddressCounts::Outcome::kCounted) return false;
  if (const auto refusals = accepted_.refused(info.peer, Clock::now()))
    log::warn("{}: refused, {} has {} connections open; the most is limits.connections_per_address ({} refused)",
              connection_name(config_, info), info.peer.ip(), most, *refusals);
  return say(Why::kAddressFull);
}

// A slot's next life: what the workers will read is written before the word that lets them.
void Connections::clear_slot(SlotIndex slot, HandshakeIndex made_by, const ipc::Established& message) {
  ipc::ConnectionSlot& shared = region_.slot(slot);
  shared.info = message.info;
  shared.made_by = made_by;
  shared.reference = message.reference;
  shared.gate.reset();
  shared.health.clear();
  shared.records_received.store(0, std::memory_order_relaxed);
  shared.octets_number.store(0, std::memory_order_relaxed);
  shared.spread.store(0, std::memory_order_relaxed);
  for (std::size_t worker = 0; worker < workers_.size(); ++worker) {
    ipc::SentCounts& sent = region_.sent(slot, WorkerIndex{static_cast<std::uint8_t>(worker)});
    sent.messages.store(0, std::memory_order_relaxed);
    sent.records.store(0, std::memory_order_relaxed);
    sent.queued.store(0, std::memory_order_relaxed);
  }
}

bool Connections::established(HandshakeIndex process, const ipc::Established& message, Fd descriptor) {
  if (find(message.replaces) != nullptr) {
    const bool same_trunk = message.info.trunk.valid() && info_of(message.replaces).trunk == message.info.trunk;
    if (!same_trunk) return false;
  }
  if (refuse(process, message)) return true;
  const SlotIndex slot{free_.back()};
  free_.pop_back();
  ++in_use_;
  const ConnectionId id{slot, region_.next_generation(slot)};
  clear_slot(slot, process, message);
  set_state(id, ipc::SlotState::kOffered, {});
  set_home(id, ipc::SlotState::kOffered, least_loaded());

  Record& record = records_[slot.value];
  record = Record{};
  record.stage = Stage::kOffered;
  record.owner = process;
  record.tls = message.info.record_layer != ipc::RecordLayerKind::kNone;
  record.descriptor = std::move(descriptor);
  record.reference = message.reference;
  if (message.replaces.valid()) record.more().replaces = message.replaces;
  mail_.to_handshake(process, ipc::Admitted{.reference = message.reference, .connection = id});
  for (std::size_t worker = 0; worker < workers_.size(); ++worker) {
    if (!workers_[worker].ready) continue;
    const WorkerIndex index{static_cast<std::uint8_t>(worker)};
    record.awaited |= ipc::mask_of(index);
    offer(index, id);
  }
  return true;
}

void Connections::offer(WorkerIndex worker, ConnectionId id) {
  workers_[worker.value].offers_waiting.push_back(id);
  send_waiting_offers(worker);
}

void Connections::send_waiting_offers(WorkerIndex worker) {
  WorkerState& state = workers_[worker.value];
  while (state.offers_in_flight < ipc::kMaxDescriptorsInFlight && !state.offers_waiting.empty()) {
    const ConnectionId id = state.offers_waiting.front();
    state.offers_waiting.pop_front();
    Record* record = find(id);
    auto copy = record != nullptr && record->stage <= Stage::kOpen ? duplicate(id, *record) : std::nullopt;
    if (!copy) {
      if (state.first_offers != 0) --state.first_offers;
      continue;
    }
    ++state.offers_in_flight;
    record->holders |= ipc::mask_of(worker);
    mail_.to_worker(worker, ipc::Offer{.connection = id}, std::move(*copy));
  }
  if (state.first_offers == 0 && !state.serving) begin_service(worker);
}

std::optional<Fd> Connections::duplicate(ConnectionId id, Record& record) {
  Fd copy(::fcntl(record.descriptor.get(), F_DUPFD_CLOEXEC, 0));
  if (copy.valid()) return copy;
  log::error("{}: closing: no descriptor for it: {}; raise the limit on open files", name_of(id), errno_text(errno));
  record.abort = true;
  begin_close(id, record);
  return std::nullopt;
}

bool Connections::held(WorkerIndex worker, ConnectionId id) {
  WorkerState& state = workers_[worker.value];
  if (state.offers_in_flight == 0) return false;
  --state.offers_in_flight;
  if (state.first_offers != 0) --state.first_offers;
  if (Record* record = find(id); record != nullptr && record->stage == Stage::kOffered) {
    record->awaited &= ~ipc::mask_of(worker);
    open_if_held(id, *record);
  }
  send_waiting_offers(worker);
  return true;
}

void Connections::open_if_held(ConnectionId id, Record& record) {
  const WorkerIndex home = home_of(id);
  if (record.awaited != 0 || !home.valid()) return;
  record.stage = Stage::kOpen;
  set_state(id, ipc::SlotState::kOpen, home);
  list_on_trunk(id, record);
  // One that is not serving yet starts it with the others.
  if (workers_[home.value].serving) start(home, id, record);
}

// In the place of the connection that it replaces, with one store, so that the trunk is never without; else in a free
// one.
void Connections::list_on_trunk(ConnectionId id, Record& record) {
  const TrunkId trunk = info_of(id).trunk;
  if (!trunk.valid() || info_of(id).use == ipc::ConnectionInfo::Use::kTheirs) return;
  const ConnectionId before = record.extras != nullptr ? record.extras->replaces : ConnectionId{};
  Record* replaced = find(before);
  std::uint64_t wanted = ipc::TrunkEntry::kNoConnection;
  if (replaced != nullptr && replaced->stage == Stage::kOpen && !is_retired(*replaced))
    wanted = ipc::TrunkEntry::pack(before);
  ipc::TrunkEntry& entry = region_.trunk(trunk);
  for (std::uint32_t place = 0; place < entry.connections.size(); ++place) {
    if (is_retired(record)) break;
    if (entry.connections[place].load(std::memory_order_relaxed) != wanted) continue;
    entry.list(place, id);
    // Messages wait for it in the workers.
    if (entry.awaited.exchange(0) != 0) mail_.ring(record.holders);
    break;
  }
  if (replaced != nullptr) retire(before, *replaced);
  if (before.valid()) {
    record.extras->replaces = {};
    record.shed();
  }
}

void Connections::unlist_from_trunk(ConnectionId id) {
  const TrunkId trunk = info_of(id).trunk;
  if (!trunk.valid()) return;
  for (auto& place : region_.trunk(trunk).connections) {
    if (place.load(std::memory_order_relaxed) == ipc::TrunkEntry::pack(id))
      place.store(ipc::TrunkEntry::kNoConnection, std::memory_order_release);
  }
}

void Connections::worker_ready(WorkerIndex worker) {
  WorkerState& state = workers_[worker.value];
  state.ready = true;
  state.serving = false;
  for (std::uint32_t slot = 0; slot < records_.size(); ++slot) {
    Record& record = records_[slot];
    if (record.stage != Stage::kOffered && record.stage != Stage::kOpen) continue;
    const ConnectionId id = id_of(slot);
    if (record.stage == Stage::kOffered) {
      record.awaited |= ipc::mask_of(worker);
      if (!home_of(id).valid()) set_home(id, ipc::SlotState::kOffered, worker);
    }
    state.offers_waiting.push_back(id);
    ++state.first_offers;
  }
  send_waiting_offers(worker);
}

void Connections::begin_service(WorkerIndex worker) {
  workers_[worker.value].serving = true;
  for (std::uint32_t slot = 0; slot < records_.size(); ++slot) {
    const Record& record = records_[slot];
    if (record.stage == Stage::kOpen && home_of(id_of(slot)) == worker) start(worker, id_of(slot), record);
  }
  mail_.to_worker(worker, ipc::Serve{});
}

void Connections::start(WorkerIndex home, ConnectionId id, const Record& record) {
  ipc::Start start{.connection = id};
  const ConnectionExtras* extras = record.extras.get();
  if (extras != nullptr)
    start.unanswered = static_cast<std::uint16_t>(
        std::ranges::count(extras->unanswered, ipc::HandshakeOctets::Place::kEndOfRecord, &UnansweredOctets::place));
  mail_.to_worker(home, start);
  // A predecessor may not have come to it; who has, passes over it.
  if (extras != nullptr && extras->key_update == ConnectionExtras::KeyUpdate::kSending)
    mail_.to_worker(home, extras->key_update_order);
}

// Of workers that are not there, on a connection whose end does not wait for their successors.
void Connections::repair_gate(ConnectionId id, Record& record) {
  for (std::size_t worker = 0; worker < workers_.size(); ++worker) {
    if (workers_[worker].ready) continue;
    const auto repair = region_.slot(id.slot).gate.repair(WorkerIndex{static_cast<std::uint8_t>(worker)});
    mail_.ring(repair.ring);
    if (repair.damage == ipc::SendGate::Damage::kStreamBroken) record.abort = true;
  }
}

void Connections::worker_ended(WorkerIndex worker, Left left) {
  WorkerState& state = workers_[worker.value];
  state.ready = state.serving = false;
  state.offers_in_flight = 0;
  state.first_offers = 0;
  state.offers_waiting.clear();
  // Its successor is the home of what it was to yield.
  if (move_.connection.valid() && home_of(move_.connection) == worker) move_.connection = {};
  const ipc::WorkerMask mask = ipc::mask_of(worker);
  for (std::uint32_t slot = 0; slot < records_.size(); ++slot) {
    Record& record = records_[slot];
    if (record.stage == Stage::kFree) continue;
    const ConnectionId id = id_of(slot);
    record.awaited &= ~mask;
    record.holders &= ~mask;
    const bool at_home = home_of(id) == worker;
    if (record.stage == Stage::kOffered) {
      if (at_home) set_home(id, ipc::SlotState::kOffered, least_loaded());
      open_if_held(id, record);
    } else if (record.stage > Stage::kOpen) {
      repair_gate(id, record);
      advance_close(id, record);
    } else if (left == Left::kNothing) {
      repair_gate(id, record);
      if (!at_home && !record.abort) continue;
      log::warn("{}: closing: {}", name_of(id),
                record.abort ? "a worker died in the middle of a long message or a KeyUpdate to it"
                             : "the worker that received from it died, and its successors too");
      record.at_once = true;
      begin_close(id, record);
    }
  }
}

std::string Connections::sender_of(ConnectionId id) const {
  if (find(id) != nullptr) return name_of(id);
  return id.valid() ? "a connection that is gone" : "a datagram's sender";
}

void Connections::blame(ConnectionId id) {
  Record* record = find(id);
  if (record == nullptr || ++record->more().worker_deaths < kMostWorkerDeaths || record->stage > Stage::kOpen) return;
  log::error("{}: closing: workers died {} times over messages from it", name_of(id), kMostWorkerDeaths);
  begin_close(id, *record);
}

}  // namespace ktrunk::supervisor
