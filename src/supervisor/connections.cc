#include "supervisor/connections.h"

#include <fcntl.h>

#include <bit>
#include <cerrno>
#include <utility>

#include "base/log.h"
#include "ktls/control_record.h"

namespace ktrunk::supervisor {
namespace {

template <typename Do>
void for_each(ipc::WorkerMask workers, Do&& act) {
  for (; workers != 0; workers &= workers - 1) act(WorkerIndex{static_cast<std::uint8_t>(std::countr_zero(workers))});
}

// What a faulty connection is ended with, and whether anything can still be said on it.
struct Ending {
  bool abort = false;
  ktls::AlertDescription alert = ktls::AlertDescription::kCloseNotify;
};
Ending ending_of(ipc::FaultReason reason) {
  using ktls::AlertDescription;
  switch (reason) {
    case ipc::FaultReason::kCloseNotify:
    case ipc::FaultReason::kTruncated:
    case ipc::FaultReason::kBadFraming:
    case ipc::FaultReason::kPartialMessage:
    case ipc::FaultReason::kKeyLimit:
      return {};
    case ipc::FaultReason::kBadRecord:
      return {.alert = AlertDescription::kBadRecordMac};
    case ipc::FaultReason::kUnexpectedRecord:
    case ipc::FaultReason::kUnexpectedHandshake:
    case ipc::FaultReason::kControlFlood:
      return {.alert = AlertDescription::kUnexpectedMessage};
    case ipc::FaultReason::kBadAlert:
    case ipc::FaultReason::kBadHandshake:
      return {.alert = AlertDescription::kDecodeError};
    case ipc::FaultReason::kBadKeyUpdate:
      return {.alert = AlertDescription::kIllegalParameter};
    case ipc::FaultReason::kNoRekey:
    case ipc::FaultReason::kKeysFailed:
      return {.alert = AlertDescription::kInternalError};
    case ipc::FaultReason::kAlert:
    case ipc::FaultReason::kReset:
    case ipc::FaultReason::kStalled:
      return {.abort = true};
  }
  return {.abort = true};
}

std::string detail_text(const ipc::Fault& fault) {
  switch (fault.reason) {
    case ipc::FaultReason::kAlert:
      return fmt::format(": {}", ktls::alert_name(static_cast<ktls::AlertDescription>(fault.detail)));
    case ipc::FaultReason::kReset:
    case ipc::FaultReason::kBadRecord:
      return fault.detail != 0 ? ": " + errno_text(fault.detail) : "";
    case ipc::FaultReason::kUnexpectedRecord:
      return fmt::format(": {}", ktls::record_type_name(static_cast<ktls::RecordType>(fault.detail)));
    default:
      return "";
  }
}

}  // namespace

Connections::Connections(const ipc::SharedRegion& region, ChildMail& mail)
    : region_(region), mail_(mail), records_(region.sizes().max_connections), workers_(region.sizes().workers) {
  // The lowest slots are used first, so that what the workers scan and what memory is touched stays small.
  free_.reserve(records_.size());
  for (std::size_t slot = records_.size(); slot-- > 0;) free_.push_back(static_cast<std::uint32_t>(slot));
}

ConnectionId Connections::id_of(std::uint32_t slot) const {
  return {SlotIndex{slot}, region_.slot(SlotIndex{slot}).state().generation};
}

Connections::Record* Connections::find(ConnectionId id) {
  if (!id.valid() || id.slot.value >= records_.size() || id_of(id.slot.value) != id) return nullptr;
  Record& record = records_[id.slot.value];
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

WorkerIndex Connections::least_loaded() const {
  WorkerIndex best;
  for (std::size_t worker = 0; worker < workers_.size(); ++worker) {
    if (!workers_[worker].ready) continue;
    if (!best.valid() || workers_[worker].homes < workers_[best.value].homes)
      best = WorkerIndex{static_cast<std::uint8_t>(worker)};
  }
  return best;
}

void Connections::established(HandshakeIndex process, const ipc::Established& message, Fd descriptor) {
  if (free_.empty()) {
    log::warn("{}: refused, all {} places for connections are taken; raise limits.max_connections",
              message.info.peer.text(), records_.size());
    return mail_.to_handshake(process, ipc::Refused{.reference = message.reference});
  }
  const SlotIndex slot{free_.back()};
  free_.pop_back();
  ++in_use_;
  ipc::ConnectionSlot& shared = region_.slot(slot);
  const ConnectionId id{slot, Generation{shared.state().generation.value + 1}};
  // What the workers will read is written before the word that lets them.
  shared.info = message.info;
  shared.gate.reset();
  shared.records_received.store(0, std::memory_order_relaxed);
  for (std::size_t worker = 0; worker < workers_.size(); ++worker) {
    ipc::SentCounts& sent = region_.sent(slot, WorkerIndex{static_cast<std::uint8_t>(worker)});
    sent.messages.store(0, std::memory_order_relaxed);
    sent.records.store(0, std::memory_order_relaxed);
  }
  set_state(id, ipc::SlotState::kOffered, {});
  set_home(id, ipc::SlotState::kOffered, least_loaded());

  Record& record = records_[slot.value];
  record = Record{};
  record.stage = Stage::kOffered;
  record.owner = process;
  record.descriptor = std::move(descriptor);
  record.reference = message.reference;
  mail_.to_handshake(process, ipc::Admitted{.reference = message.reference, .connection = id});
  for (std::size_t worker = 0; worker < workers_.size(); ++worker) {
    if (!workers_[worker].ready) continue;
    const WorkerIndex index{static_cast<std::uint8_t>(worker)};
    record.awaited |= ipc::mask_of(index);
    offer(index, id);
  }
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
    if (record == nullptr || record->stage > Stage::kOpen) continue;
    Fd copy(::fcntl(record->descriptor.get(), F_DUPFD_CLOEXEC, 0));
    if (!copy.valid()) {
      log::error("no descriptor for connection {}: {}; raise the limit on open files", id.slot.value,
                 errno_text(errno));
      record->awaited &= ~ipc::mask_of(worker);
      record->abort = true;
      begin_close(id, *record);
      continue;
    }
    ++state.offers_in_flight;
    record->holders |= ipc::mask_of(worker);
    mail_.to_worker(worker, ipc::Offer{.connection = id}, std::move(copy));
  }
}

bool Connections::held(WorkerIndex worker, ConnectionId id) {
  WorkerState& state = workers_[worker.value];
  if (state.offers_in_flight == 0) return false;
  --state.offers_in_flight;
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
  list_on_trunk(id);
  mail_.to_worker(home, ipc::Start{.connection = id});
}

void Connections::list_on_trunk(ConnectionId id) {
  const TrunkId trunk = region_.slot(id.slot).info.trunk;
  if (!trunk.valid()) return;
  for (auto& place : region_.trunk(trunk).connections) {
    if (place.load(std::memory_order_relaxed) != ipc::TrunkEntry::kNoConnection) continue;
    place.store(ipc::TrunkEntry::pack(id), std::memory_order_release);
    return;
  }
}

void Connections::unlist_from_trunk(ConnectionId id) {
  const TrunkId trunk = region_.slot(id.slot).info.trunk;
  if (!trunk.valid()) return;
  for (auto& place : region_.trunk(trunk).connections) {
    if (place.load(std::memory_order_relaxed) == ipc::TrunkEntry::pack(id))
      place.store(ipc::TrunkEntry::kNoConnection, std::memory_order_release);
  }
}

bool Connections::fault(WorkerIndex worker, const ipc::Fault& message) {
  Record* record = find(message.connection);
  if (record == nullptr) return true;  // it was closed while the message was on its way
  if ((record->holders & ipc::mask_of(worker)) == 0) return false;
  if (record->stage > Stage::kOpen) return true;
  const Ending ending = ending_of(message.reason);
  record->abort = ending.abort;
  record->alert = static_cast<std::uint8_t>(ending.alert);
  const ipc::ConnectionInfo& info = region_.slot(message.connection.slot).info;
  const bool orderly = message.reason == ipc::FaultReason::kCloseNotify;
  log::log(orderly ? spdlog::level::info : spdlog::level::warn, "{} {}: closing: {}{}",
           config::transport_name(info.transport), info.peer.text(), ipc::fault_text(message.reason),
           detail_text(message));
  begin_close(message.connection, *record);
  return true;
}

void Connections::begin_close(ConnectionId id, Record& record) {
  if (record.stage > Stage::kOpen) return;
  unlist_from_trunk(id);
  set_state(id, ipc::SlotState::kClosing, home_of(id));
  record.stage = Stage::kFlushing;
  const WorkerIndex home = home_of(id);
  // The home worker ends the stream, when no other can be sending any more.
  const ipc::WorkerMask last = home.valid() && (record.holders & ipc::mask_of(home)) != 0
                                   ? ipc::mask_of(home)
                                   : record.holders & -record.holders;
  record.awaited = record.abort ? record.holders : record.holders & ~last;
  tell_close(record.awaited, id, record, record.abort ? ipc::Close::How::kAbort : ipc::Close::How::kFlush);
  advance_close(id, record);
}

void Connections::advance_close(ConnectionId id, Record& record) {
  if (record.awaited != 0) return;
  if (record.holders == 0) return free_slot(id, record);
  if (record.stage == Stage::kFinishing) return;
  record.stage = Stage::kFinishing;
  record.awaited = record.holders;
  tell_close(record.awaited, id, record, ipc::Close::How::kFinish);
}

void Connections::tell_close(ipc::WorkerMask workers, ConnectionId id, const Record& record, ipc::Close::How how) {
  for_each(workers, [&](WorkerIndex worker) {
    mail_.to_worker(worker, ipc::Close{.how = how, .alert = record.alert, .connection = id});
  });
}

bool Connections::released(WorkerIndex worker, ConnectionId id) {
  Record* record = find(id);
  if (record == nullptr) return true;
  const ipc::WorkerMask mask = ipc::mask_of(worker);
  if (record->stage < Stage::kFlushing || (record->holders & mask) == 0) return false;
  record->holders &= ~mask;
  record->awaited &= ~mask;
  advance_close(id, *record);
  return true;
}

void Connections::free_slot(ConnectionId id, Record& record) {
  const ipc::ConnectionInfo& info = region_.slot(id.slot).info;
  ipc::Gone gone{.reference = record.reference, .connection = id, .trunk = info.trunk, .role = info.role};
  mail_.to_handshake(record.owner, gone);
  if (info.trunk.valid()) {
    const HandshakeIndex keeper{static_cast<std::uint8_t>(info.trunk.value % region_.sizes().handshakes)};
    gone.reference = 0;
    if (keeper != record.owner) mail_.to_handshake(keeper, gone);
  }
  log::debug("{} {}: closed", config::transport_name(info.transport), info.peer.text());
  set_home(id, ipc::SlotState::kFree, {});
  record = Record{};
  free_.push_back(id.slot.value);
  --in_use_;
}

void Connections::handshake_ended(HandshakeIndex process) {
  for (Record& record : records_) {
    if (record.owner == process) record.reference = 0;
  }
}

void Connections::worker_ready(WorkerIndex worker) {
  workers_[worker.value].ready = true;
  for (std::uint32_t slot = 0; slot < records_.size(); ++slot) {
    Record& record = records_[slot];
    if (record.stage != Stage::kOffered && record.stage != Stage::kOpen) continue;
    const ConnectionId id = id_of(slot);
    if (record.stage == Stage::kOffered) {
      record.awaited |= ipc::mask_of(worker);
      if (!home_of(id).valid()) set_home(id, ipc::SlotState::kOffered, worker);
    }
    offer(worker, id);
  }
}

void Connections::worker_ended(WorkerIndex worker) {
  WorkerState& state = workers_[worker.value];
  state.ready = false;
  state.offers_in_flight = 0;
  state.offers_waiting.clear();
  const ipc::WorkerMask mask = ipc::mask_of(worker);
  for (std::uint32_t slot = 0; slot < records_.size(); ++slot) {
    Record& record = records_[slot];
    if (record.stage == Stage::kFree) continue;
    const ConnectionId id = id_of(slot);
    const ipc::SendGate::Repair repair = region_.slot(id.slot).gate.repair(worker);
    mail_.ring(repair.ring);
    record.awaited &= ~mask;
    record.holders &= ~mask;
    const bool at_home = home_of(id) == worker;
    if (record.stage == Stage::kOffered) {
      if (at_home) set_home(id, ipc::SlotState::kOffered, least_loaded());
      open_if_held(id, record);
    } else if (record.stage == Stage::kOpen) {
      const bool broken = repair.damage == ipc::SendGate::Damage::kStreamBroken;
      if (!at_home && !broken) continue;
      const ipc::ConnectionInfo& info = region_.slot(id.slot).info;
      log::warn(
          "{} {}: closing: {}", config::transport_name(info.transport), info.peer.text(),
          broken ? "a worker died in the middle of a long message to it" : "the worker that received from it died");
      record.abort = broken;
      begin_close(id, record);
    } else {
      advance_close(id, record);
    }
  }
}

void Connections::close_all() {
  for (std::uint32_t slot = 0; slot < records_.size(); ++slot) {
    Record& record = records_[slot];
    if (record.stage == Stage::kFree) continue;
    begin_close(id_of(slot), record);
  }
}

}  // namespace ktrunk::supervisor
