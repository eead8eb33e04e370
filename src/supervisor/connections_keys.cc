// Key limits (RFC 8446 5.5): how many records a direction's keys have protected, and having them renewed in time.
#include "base/log.h"
#include "supervisor/connections.h"

namespace ktrunk::supervisor {
namespace {

using namespace std::chrono_literals;
// A Renew that nothing has come of is said again.
constexpr Clock::duration kAskAgain = 60s;
// The owner has at least so long, however fast records are sent, before the connection is closed for it.
constexpr Clock::duration kLeastTime = 5s;
// Connections that are looked at in one go: half a millisecond with 32 workers. The rest follow soon.
constexpr std::size_t kMostAtOnce = 4096;
// A limit below this one is reached within moments.
constexpr std::uint32_t kLowLimit = 1u << 16;

}  // namespace

std::chrono::milliseconds Connections::look_interval() const {
  return config_.limits.key_records < kLowLimit || look_at_ != 0 || !lingering_.empty() ? kLookSoon : kLookAgain;
}

void Connections::look(Clock::time_point now) {
  for (std::size_t looked = 0; look_at_ < records_.size() && looked < kMostAtOnce; ++look_at_) {
    if (records_[look_at_].stage != Stage::kOpen || !records_[look_at_].tls) continue;
    look_at_keys(look_at_, now);
    ++looked;
  }
  if (look_at_ == records_.size()) look_at_ = 0;
  look_at_retired(now);
  look_at_lingering(now);
  look_at_homes(now);
  spare_.look();
}

std::uint64_t Connections::records_of(SlotIndex slot, ipc::Renew::Which which) const {
  if (which == ipc::Renew::Which::kReceive) return region_.slot(slot).records_received.load(std::memory_order_relaxed);
  std::uint64_t records = 0;
  for (std::size_t worker = 0; worker < workers_.size(); ++worker) {
    const WorkerIndex index{static_cast<std::uint8_t>(worker)};
    records += region_.sent(slot, index).records.load(std::memory_order_relaxed);
  }
  return records;
}

void Connections::look_at_keys(std::uint32_t slot, Clock::time_point now) {
  using Which = ipc::Renew::Which;
  Record& record = records_[slot];
  for (const Which which : {Which::kTransmit, Which::kReceive}) {
    const std::uint64_t records = records_of(SlotIndex{slot}, which);
    const std::uint64_t renewed_at = record.extras != nullptr ? record.extras->age(which).renewed_at : 0;
    if (records - renewed_at < config_.limits.key_records) continue;
    if (!look_at_key(id_of(slot), record, which, records, now)) return;
  }
}

// The keys of this direction have done their number. False: the connection is being closed.
bool Connections::look_at_key(ConnectionId id, Record& record, ipc::Renew::Which which, std::uint64_t records,
                              Clock::time_point now) {
  KeyAge& age = record.more().age(which);
  const bool relayed = info_of(id).record_layer == ipc::RecordLayerKind::kRelay;
  const bool used_up = records - age.renewed_at >= 2 * std::uint64_t{config_.limits.key_records};
  if (used_up && age.asked && now - age.first_asked >= kLeastTime) {
    end({.connection = id, .reason = ipc::FaultReason::kKeyLimit}, record);
    return false;
  }
  if (is_retired(record) || (age.asked && now - *age.asked < kAskAgain)) return true;
  if (!age.asked) age.first_asked = now;
  age.asked = now;
  log::debug("{}: its {} keys have protected {} records: to be renewed", name_of(id),
             which == ipc::Renew::Which::kTransmit ? "transmit" : "receive", records - age.renewed_at);
  mail_.to_handshake(record.owner, ipc::Renew{.reference = record.reference, .connection = id, .which = which});
  // The owner's OpenSSL makes the new keys by itself, ahead of its next record.
  if (relayed) renewed(id, record, which);
  return true;
}

void Connections::renewed(ConnectionId id, Record& record, ipc::Renew::Which which) {
  KeyAge& age = record.more().age(which);
  age.renewed_at = records_of(id.slot, which);
  age.asked.reset();
  ++age.renewals;
}

ConnectionView Connections::view(SlotIndex slot) const {
  const Record& record = records_[slot.value];
  ConnectionView view{.owner = record.owner};
  if (record.extras == nullptr) return view;
  view.retired = is_retired(record);
  view.transmit_renewals = record.extras->transmit.renewals;
  view.receive_renewals = record.extras->receive.renewals;
  return view;
}

}  // namespace ktrunk::supervisor
