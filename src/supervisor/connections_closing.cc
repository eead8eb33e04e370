// How connections end: at once or in order, and those that are let run dry first.
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "base/log.h"
#include "ipc/trunk_keeper.h"
#include "supervisor/connections.h"

namespace ktrunk::supervisor {
namespace {

using namespace std::chrono_literals;
// No message sent and no record received for so long: nothing is under way on a retired connection any more.
constexpr Clock::duration kQuiet = 1s;
constexpr std::chrono::milliseconds kLeastRetirement = 5s;
constexpr std::size_t kMostLingering = 256;

// The peer has not acknowledged all that was sent, and what it has sent has not all been read: to close the socket now
// would throw the former away (RFC 2525 2.17).
bool would_be_reset(const Fd& socket) {
  int unsent = 0;
  int unread = 0;
  return ::ioctl(socket.get(), SIOCOUTQ, &unsent) == 0 && ::ioctl(socket.get(), SIOCINQ, &unread) == 0 && unsent > 0 &&
         unread > 0;
}

// A record that the kernel took may still be with its TLS in part, until TCP has room; the end of the stream would cut
// it.
bool has_room(const Fd& socket) {
  pollfd poll{.fd = socket.get(), .events = POLLOUT, .revents = 0};
  return ::poll(&poll, 1, 0) == 1;
}

template <typename Do>
void for_each(ipc::WorkerMask workers, Do&& act) {
  for (; workers != 0; workers &= workers - 1) act(WorkerIndex{static_cast<std::uint8_t>(std::countr_zero(workers))});
}

}  // namespace

bool Connections::fault(WorkerIndex worker, const ipc::Fault& message) {
  Record* record = find(message.connection);
  if (record == nullptr) return true;  // it was closed while the message was on its way
  if ((record->holders & ipc::mask_of(worker)) == 0) return false;
  end(message, *record);
  return true;
}

bool Connections::fault(HandshakeIndex process, const ipc::Fault& message) {
  Record* record = find(message.connection);
  if (record == nullptr) return true;
  if (record->owner != process) return false;
  if (info_of(message.connection).record_layer == ipc::RecordLayerKind::kRelay) {
    record->relay_broken = true;  // it ends when a worker has read what came before
    return true;
  }
  end(message, *record);
  return true;
}

void Connections::end(const ipc::Fault& fault, Record& record) {
  if (record.stage > Stage::kOpen) return;
  const Ending ending = ending_of(fault);
  record.abort = ending.stream == Ending::Stream::kBroken;
  record.alert = static_cast<std::uint8_t>(ending.alert);
  record.at_once = ending.again == ipc::Gone::Again::kAtOnce;
  record.elsewhere = ending.again == ipc::Gone::Again::kElsewhere;
  if (record.relay_broken) {
    log::debug("{}: closing: its relay is broken", name_of(fault.connection));
  } else {
    log::log(level_of(fault), "{}: closing: {}", name_of(fault.connection), reason_text(fault));
  }
  begin_close(fault.connection, record);
}

void Connections::begin_close(ConnectionId id, Record& record) {
  if (record.stage > Stage::kOpen) return;
  // Before it is off the list, so that no worker sees a trunk with neither.
  if (is_made_again(id, record)) {
    const auto until = Clock::now() + std::min(config_.limits.handshake, config_.limits.stalled_peer);
    region_.trunk(info_of(id).trunk).await({.transport = info_of(id).transport, .until = until});
  }
  unlist_from_trunk(id);
  set_state(id, ipc::SlotState::kClosing, home_of(id));
  record.stage = Stage::kFlushing;
  repair_gate(id, record);
  const WorkerIndex home = home_of(id);
  // The home worker ends the stream, when no other can be sending any more.
  const bool at_home = home.valid() && (record.holders & ipc::mask_of(home)) != 0;
  const ipc::WorkerMask last = at_home ? ipc::mask_of(home) : record.holders & -record.holders;
  if (ConnectionExtras* extras = record.extras.get(); extras != nullptr) {
    extras->unanswered.clear();
    extras->unanswered_bytes = 0;
    // Whether the peer has our KeyUpdate, and expects the next keys, is known to the home worker alone.
    if (extras->key_update != ConnectionExtras::KeyUpdate::kNone && !at_home) record.abort = true;
  }
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
  const auto unsent = is_made_again(id, record) ? ipc::Close::Unsent::kKeep : ipc::Close::Unsent::kSend;
  for_each(workers, [&](WorkerIndex worker) {
    mail_.to_worker(worker, ipc::Close{.how = how, .alert = record.alert, .unsent = unsent, .connection = id});
  });
}

bool Connections::is_made_again(ConnectionId id, const Record& record) const {
  const ipc::ConnectionInfo& info = info_of(id);
  return record.at_once && info.trunk.valid() && info.role == ipc::ConnectionInfo::Role::kConnected &&
         !is_retired(record);
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
  const ipc::ConnectionInfo& info = info_of(id);
  ipc::Gone gone{.reference = record.reference,
                 .connection = id,
                 .trunk = info.trunk,
                 .role = info.role,
                 .again = record.at_once     ? ipc::Gone::Again::kAtOnce
                          : record.elsewhere ? ipc::Gone::Again::kElsewhere
                                             : ipc::Gone::Again::kAfterWait};
  mail_.to_handshake(record.owner, gone);
  if (info.trunk.valid()) {
    const HandshakeIndex keeper = ipc::keeper_of(info.trunk, region_.sizes().handshakes);
    gone.reference = 0;
    if (keeper != record.owner) mail_.to_handshake(keeper, gone);
  }
  log::debug("{}: closed", name_of(id));
  let_linger(id, record);
  if (info.role == ipc::ConnectionInfo::Role::kAccepted) accepted_.remove(info.peer);
  set_home(id, ipc::SlotState::kFree, {});
  record = Record{};
  free_.push_back(id.slot.value);
  --in_use_;
  spare_.freed();
}

void Connections::let_linger(ConnectionId id, Record& record) {
  if (record.abort || info_of(id).record_layer == ipc::RecordLayerKind::kRelay) return;
  Lingering last{.socket = std::move(record.descriptor), .until = Clock::now() + config_.limits.drain};
  if (has_room(last.socket)) last.stream = Lingering::Stream::kHasRoom;
  if (is_done(last)) return;
  if (lingering_.size() == kMostLingering) lingering_.pop_front();
  lingering_.push_back(std::move(last));
}

bool Connections::is_done(Lingering& socket) {
  using Stream = Lingering::Stream;
  if (socket.stream == Stream::kOpen) {
    // TLS moves what it has left a moment after there is room: by the next look it has.
    if (has_room(socket.socket)) socket.stream = Stream::kHasRoom;
    return false;
  }
  if (std::exchange(socket.stream, Stream::kEnded) == Stream::kHasRoom) (void)::shutdown(socket.socket.get(), SHUT_WR);
  return !would_be_reset(socket.socket);
}

void Connections::look_at_lingering(Clock::time_point now) {
  std::erase_if(lingering_, [&](Lingering& each) { return is_done(each) || now >= each.until; });
}

void Connections::close_all() {
  for (std::uint32_t slot = 0; slot < records_.size(); ++slot) {
    Record& record = records_[slot];
    if (record.stage == Stage::kFree) continue;
    begin_close(id_of(slot), record);
  }
}

bool Connections::retire(HandshakeIndex process, const ipc::Retire& message) {
  Record* record = find(message.connection);
  if (record == nullptr) return true;
  if (record->owner != process) return false;
  retire(message.connection, *record);
  return true;
}

void Connections::retire(ConnectionId id, Record& record) {
  if (record.stage > Stage::kOpen || is_retired(record)) return;
  unlist_from_trunk(id);
  record.more().retirement.emplace();
  retired_.push_back(id);
  log::info("{}: retired: no new traffic, and closed when it is quiet", name_of(id));
}

std::uint64_t Connections::activity_of(ConnectionId id) const {
  std::uint64_t activity = region_.slot(id.slot).records_received.load(std::memory_order_relaxed);
  for (std::size_t worker = 0; worker < workers_.size(); ++worker) {
    const WorkerIndex index{static_cast<std::uint8_t>(worker)};
    activity += region_.sent(id.slot, index).messages.load(std::memory_order_relaxed);
  }
  return activity;
}

void Connections::look_at_retired(Clock::time_point now) {
  const auto at_most = std::max(config_.limits.drain, kLeastRetirement);
  std::erase_if(retired_, [&](ConnectionId id) {
    Record* record = find(id);
    if (record == nullptr || record->stage > Stage::kOpen) return true;
    Retirement& retirement = *record->extras->retirement;
    if (!retirement.since) retirement.since = retirement.quiet_since = now;
    if (const std::uint64_t seen = activity_of(id); seen != std::exchange(retirement.activity, seen))
      retirement.quiet_since = now;
    const bool quiet = now - retirement.quiet_since >= kQuiet;
    if (!quiet && now - *retirement.since < at_most) return false;
    log::info("{}: closing: retired, {}", name_of(id), quiet ? "and quiet" : "and not quiet within limits.drain");
    begin_close(id, *record);
    return true;
  });
}

}  // namespace ktrunk::supervisor
