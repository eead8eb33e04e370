// Handshake records after the handshake, and new keys: what goes between home worker and owner, and is kept until it is
// answered. The owner may be dead at any of these steps: then nothing is sent, and handshake_ready() tells its
// successor.
#include <algorithm>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "supervisor/connections.h"

namespace ktrunk::supervisor {
namespace {

using KeyUpdate = ConnectionExtras::KeyUpdate;
using Place = ipc::HandshakeOctets::Place;

// Of one connection, not answered yet: more than any honest peer has under way.
constexpr std::size_t kMostUnansweredBytes = 64u << 10;
constexpr std::size_t kMostUnanswered = 64;
constexpr unsigned kMostDeaths = 5;

}  // namespace

bool Connections::handshake_octets(WorkerIndex worker, const ipc::HandshakeOctets& message) {
  Record* record = find(message.connection);
  if (record == nullptr) return true;
  const ConnectionId id = message.connection;
  const bool fits = (record->holders & ipc::mask_of(worker)) != 0 && home_of(id) == worker &&
                    record->stage != Stage::kOffered && message.bytes <= message.octets.size() &&
                    info_of(id).record_layer == ipc::RecordLayerKind::kKernel;
  if (!fits) return false;
  if (record->stage > Stage::kOpen) return true;
  region_.slot(id.slot).octets_number.store(message.number, std::memory_order_release);
  ConnectionExtras& extras = record->more();
  if (extras.unanswered.size() >= kMostUnanswered || extras.unanswered_bytes + message.bytes > kMostUnansweredBytes) {
    end({.connection = id, .reason = ipc::FaultReason::kControlFlood}, *record);
    return true;
  }
  const auto* begin = message.octets.data();
  extras.unanswered.push_back({.octets = {begin, begin + message.bytes}, .place = message.place});
  extras.unanswered_bytes += message.bytes;
  pass_on(id, *record, extras.unanswered.back());
  return true;
}

void Connections::pass_on(ConnectionId id, Record& record, const UnansweredOctets& unanswered) {
  ipc::PostHandshake message{.record = {.connection = id,
                                        .bytes = static_cast<std::uint16_t>(unanswered.octets.size()),
                                        .place = unanswered.place,
                                        .octets = {}}};
  std::ranges::copy(unanswered.octets, message.record.octets.begin());
  if (auto copy = duplicate(id, record)) mail_.to_handshake(record.owner, message, std::move(*copy));
}

bool Connections::send_control(HandshakeIndex process, const ipc::SendControl& message) {
  Record* record = find(message.connection);
  if (record == nullptr) return true;
  const bool fits = record->owner == process && record->stage != Stage::kOffered &&
                    message.bytes <= message.octets.size() &&
                    info_of(message.connection).record_layer == ipc::RecordLayerKind::kKernel;
  if (!fits) return false;
  if (record->stage > Stage::kOpen) return true;
  if (message.after == ipc::SendControl::After::kHoldSends) {
    ConnectionExtras& extras = record->more();
    // A successor may say again what its predecessor has said: the one under way serves both.
    if (extras.key_update != KeyUpdate::kNone) return true;
    extras.key_update = KeyUpdate::kSending;
    extras.key_update_order = message;
  }
  mail_.to_worker(home_of(message.connection), message);
  return true;
}

bool Connections::control_sent(WorkerIndex worker, const ipc::ControlSent& message) {
  Record* record = find(message.connection);
  if (record == nullptr) return true;
  const bool fits = (record->holders & ipc::mask_of(worker)) != 0 && home_of(message.connection) == worker &&
                    info_of(message.connection).record_layer == ipc::RecordLayerKind::kKernel;
  if (!fits) return false;
  const KeyUpdate state = record->extras == nullptr ? KeyUpdate::kNone : record->extras->key_update;
  if (state == KeyUpdate::kSending) {
    record->extras->key_update = KeyUpdate::kInstalling;
    ask_to_install(message.connection, *record);
  } else if (state == KeyUpdate::kNone) {
    // A worker's successor finds that the record has gone, and does not know that the keys are in.
    mail_.to_worker(worker, ipc::Resume{.connection = message.connection, .what = ipc::Resume::What::kSendRekeyed});
  }
  return true;
}

void Connections::ask_to_install(ConnectionId id, Record& record) {
  if (auto copy = duplicate(id, record))
    mail_.to_handshake(record.owner, ipc::InstallTransmit{.connection = id}, std::move(*copy));
}

bool Connections::resume(HandshakeIndex process, const ipc::Resume& message) {
  const ConnectionId id = message.connection;
  Record* record = find(id);
  if (record == nullptr) return true;
  if (record->owner != process) return false;
  const bool of_sending = message.what == ipc::Resume::What::kSendRekeyed;
  ConnectionExtras* extras = record->extras.get();
  if (of_sending) {
    // Also while it is being closed: the home worker holds the gate, and there may be something to flush.
    if (extras == nullptr || extras->key_update != KeyUpdate::kInstalling) return false;
    extras->key_update = KeyUpdate::kNone;
    extras->deaths = 0;
    renewed(id, *record, ipc::Renew::Which::kTransmit);
  } else {
    if (record->stage > Stage::kOpen) return true;
    if (extras == nullptr) return false;
    const auto last = std::ranges::find(extras->unanswered, Place::kEndOfRecord, &UnansweredOctets::place);
    if (last == extras->unanswered.end()) return false;
    for (auto each = extras->unanswered.begin(); each <= last; ++each) extras->unanswered_bytes -= each->octets.size();
    extras->unanswered.erase(extras->unanswered.begin(), last + 1);
    extras->deaths = 0;
    if (message.what == ipc::Resume::What::kReceiveRekeyed) renewed(id, *record, ipc::Renew::Which::kReceive);
  }
  if ((record->holders & ipc::mask_of(home_of(id))) != 0) mail_.to_worker(home_of(id), message);
  record->shed();
  return true;
}

void Connections::handshake_ended(HandshakeIndex process, Cause cause) {
  // Of what it was told, unless somebody killed it.
  const bool suspected = handshakes_ready_[process.value] && cause == Cause::kItself;
  handshakes_ready_.reset(process.value);
  for (std::uint32_t slot = 0; slot < records_.size(); ++slot) {
    Record& record = records_[slot];
    if (record.stage == Stage::kFree || record.owner != process) continue;
    record.reference = 0;
    if (!suspected || record.extras == nullptr || !record.extras->awaits_owner()) continue;
    if (++record.extras->deaths < kMostDeaths || record.stage > Stage::kOpen) continue;
    const ConnectionId id = id_of(slot);
    log::error("{}: closing: handshake processes died {} times over what it has for them", name_of(id), kMostDeaths);
    record.alert = static_cast<std::uint8_t>(ktls::AlertDescription::kInternalError);
    // Nobody is going to install the keys that the peer expects.
    record.abort = record.extras->key_update == KeyUpdate::kInstalling;
    begin_close(id, record);
  }
}

void Connections::handshake_ready(HandshakeIndex process) {
  handshakes_ready_.set(process.value);
  for (std::uint32_t slot = 0; slot < records_.size(); ++slot) {
    Record& record = records_[slot];
    if (record.stage == Stage::kFree || record.owner != process || record.extras == nullptr) continue;
    const ConnectionId id = id_of(slot);
    // A descriptor may be wanting: then the connection is closed, and its extras may go under our feet.
    for (std::size_t i = 0; record.extras != nullptr && i < record.extras->unanswered.size(); ++i)
      pass_on(id, record, record.extras->unanswered[i]);
    if (record.extras != nullptr && record.extras->key_update == KeyUpdate::kInstalling) ask_to_install(id, record);
    if (record.stage != Stage::kOpen) continue;
    for (const auto which : {ipc::Renew::Which::kTransmit, ipc::Renew::Which::kReceive}) {
      const bool under_way = which == ipc::Renew::Which::kTransmit && record.extras->key_update != KeyUpdate::kNone;
      if (record.extras->age(which).asked && !under_way)
        mail_.to_handshake(process, ipc::Renew{.reference = record.reference, .connection = id, .which = which});
    }
  }
}

}  // namespace ktrunk::supervisor
