#include "handshake/key_keeper.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>
#include <utility>

#include "base/log.h"
#include "handshake/key_step.h"
#include "handshake/post_handshake.h"
#include "handshake/token_bucket.h"
#include "ktls/control_record.h"

namespace ktrunk::handshake {
namespace {

constexpr std::uint8_t kKeyUpdate = 24;  // HandshakeType
constexpr std::chrono::seconds kTidyEvery{10};

// FNV-1a: to know a record again, nothing more.
std::uint64_t digest(std::span<const std::byte> octets) {
  std::uint64_t value = 0xcbf29ce484222325;
  for (const std::byte octet : octets) value = (value ^ std::to_integer<std::uint64_t>(octet)) * 0x100000001b3;
  return value;
}

TokenBucket::Limits record_limits(const KeyKeeper::Limits& limits) {
  return {.burst = static_cast<double>(limits.records_burst),
          .per_second = static_cast<double>(limits.records_per_second)};
}

bool begins_like_key_update(std::span<const std::byte> record) {
  return !record.empty() && std::to_integer<std::uint8_t>(record.front()) == kKeyUpdate;
}

}  // namespace

struct KeyKeeper::Work {
  Work(ConnectionId connection, const ipc::VaultEntry& entry, const TokenBucket::Limits& limits)
      : id(connection),
        stream(version_of(entry), endpoint_of(entry)),
        allowance(limits, Clock::now()),
        inherited(entry.stream()) {
    if (inherited) stream.restore(*inherited);
  }

  ConnectionId id;
  PostHandshakeStream stream;
  TokenBucket allowance;  // handshake records that it may still send
  // What a predecessor left, until the first record has shown whether it is one that the predecessor had looked at.
  std::optional<ipc::VaultStream> inherited;
  bool update_under_way = false;            // a KeyUpdate of ours has been given out and is not installed
  std::optional<KeyUpdateRequest> another;  // one more is wanted after it
  bool faulted = false;
};

struct KeyKeeper::Reader {
  TicketReader tickets;
  TrunkId trunk;
  std::string host;
  EventLoop::Timer end;
};

KeyKeeper::KeyKeeper(ipc::Vault& vault, HandshakeIndex self, const ktls::Support& support, ktls::Kernel& kernel,
                     ipc::HandshakeStats& stats, EventLoop& loop, Outlet outlet, const Limits& limits)
    : vault_(vault),
      self_(self),
      support_(support),
      kernel_(kernel),
      stats_(stats),
      loop_(loop),
      outlet_(std::move(outlet)),
      limits_(limits) {}

KeyKeeper::~KeyKeeper() = default;

// Whatever the supervisor had of the predecessor's words when it died stands in the region by now.
void KeyKeeper::take_unanswered(const ipc::SharedRegion& region) {
  ipc::Unanswered& left = vault_.unanswered(self_);
  const auto is_open = [](ipc::SlotWord word) {
    return word.state == ipc::SlotState::kOffered || word.state == ipc::SlotState::kOpen;
  };
  for (auto& place : left.places) {
    const std::uint64_t reference = place.reference.load(std::memory_order_acquire);
    for (std::uint32_t i = 0; reference != 0 && i < std::min(region.sizes().max_connections, vault_.max_connections());
         ++i) {
      const ipc::ConnectionSlot& slot = region.slot(SlotIndex{i});
      const ipc::SlotWord word = slot.state();
      if (!is_open(word) || slot.made_by != self_ || slot.reference != reference) continue;
      if (slot.state().generation != word.generation) continue;  // it got its next life meanwhile
      const ConnectionId connection{SlotIndex{i}, word.generation};
      if (find(connection) != nullptr) continue;  // it was told, but did not live to tick it off
      ipc::VaultEntry& entry = vault_.entry(connection.slot);
      entry.take(place.secrets);
      entry.publish({connection.generation, self_});
    }
    // Also of one that was not yet, or is no longer, in use: nothing stays behind.
    place.secrets.wipe();
    place.reference.store(0, std::memory_order_release);
  }
}

void KeyKeeper::tidy(const ipc::SharedRegion& region) {
  take_unanswered(region);
  const std::uint32_t slots = std::min(region.sizes().max_connections, vault_.max_connections());
  for (std::uint32_t i = 0; i < slots; ++i) {
    const SlotIndex slot{i};
    const ipc::SlotWord word = region.slot(slot).state();
    // A slot without a first life has an entry that nobody has touched: looking at it would take its page.
    if (word.generation.value == 0 && word.state == ipc::SlotState::kFree) continue;
    ipc::VaultEntry& entry = vault_.entry(slot);
    const auto holder = entry.holder();
    if (!holder || holder->owner != self_) continue;
    if (word.state == ipc::SlotState::kFree || word.generation != holder->generation) entry.wipe();
  }
}

ipc::VaultEntry* KeyKeeper::find(ConnectionId connection) const {
  if (!connection.valid() || connection.slot.value >= vault_.max_connections()) return nullptr;
  ipc::VaultEntry& entry = vault_.entry(connection.slot);
  return entry.holder() == ipc::VaultEntry::Holder{connection.generation, self_} ? &entry : nullptr;
}

std::uint64_t KeyKeeper::next_reference() {
  return vault_.unanswered(self_).last_reference.fetch_add(1, std::memory_order_relaxed) + 1;
}

void KeyKeeper::hand_over(std::uint64_t reference, const KernelSecrets& secrets) {
  for (auto& place : vault_.unanswered(self_).places) {
    if (place.reference.load(std::memory_order_relaxed) != 0) continue;
    store_secrets(place.secrets, secrets);
    return place.reference.store(reference, std::memory_order_release);
  }
}

void KeyKeeper::answered(std::uint64_t reference) {
  for (auto& place : vault_.unanswered(self_).places) {
    if (place.reference.load(std::memory_order_relaxed) != reference) continue;
    place.secrets.wipe();
    return place.reference.store(0, std::memory_order_release);
  }
}

void KeyKeeper::admitted(ConnectionId connection, KernelSession session) {
  if (!connection.valid() || connection.slot.value >= vault_.max_connections()) {
    log::error("the supervisor gave a connection slot {}, which the vault has not", connection.slot.value);
    return;
  }
  const std::uint32_t slot = connection.slot.value;
  forget(slot);
  ipc::VaultEntry& entry = vault_.entry(connection.slot);
  entry.wipe();
  store_secrets(entry, session.secrets);
  entry.publish({connection.generation, self_});
  if (!session.tickets) return;
  auto reader = std::make_unique<Reader>(std::move(*session.tickets), session.trunk, std::move(session.host));
  reader->end = loop_.after(limits_.tickets_for, [this, slot] { readers_.erase(slot); });
  readers_.insert_or_assign(slot, std::move(reader));
}

void KeyKeeper::gone(ConnectionId connection) {
  ipc::VaultEntry* entry = find(connection);
  if (entry == nullptr) return;
  entry->wipe();
  forget(connection.slot.value);
}

void KeyKeeper::forget(std::uint32_t slot) {
  readers_.erase(slot);
  if (const auto found = work_.find(slot); found != work_.end()) {
    octets_ -= found->second->stream.size();
    work_.erase(found);
  }
}

KeyKeeper::Work& KeyKeeper::work(ConnectionId connection, const ipc::VaultEntry& entry) {
  std::unique_ptr<Work>& place = work_[connection.slot.value];
  if (place == nullptr || place->id != connection) {
    if (place != nullptr) octets_ -= place->stream.size();
    place = std::make_unique<Work>(connection, entry, record_limits(limits_));
    octets_ += place->stream.size();
  }
  if (!tidying_.pending()) tidying_ = loop_.after(kTidyEvery, [this] { forget_quiet(); });
  return *place;
}

// What has nothing to remember any more costs nothing any more.
void KeyKeeper::forget_quiet() {
  std::erase_if(work_, [this](const auto& each) {
    Work& work = *each.second;
    const bool quiet = !work.faulted && !work.update_under_way && work.stream.between_messages() &&
                       work.allowance.full(record_limits(limits_), Clock::now());
    // The mark of the last record would mislead a later look.
    if (quiet) {
      if (ipc::VaultEntry* entry = find(work.id); entry != nullptr) entry->set_stream(std::nullopt);
    }
    return quiet;
  });
  if (!work_.empty()) tidying_ = loop_.after(kTidyEvery, [this] { forget_quiet(); });
}

void KeyKeeper::fault(ConnectionId connection, ipc::FaultReason reason, int detail) {
  outlet_.fault({.connection = connection, .reason = reason, .detail = detail});
}

// The last word on a connection: what is kept of it is not needed any more.
void KeyKeeper::end(Work& work, ipc::FaultReason reason, int detail) {
  work.faulted = true;
  octets_ -= work.stream.size();
  const ipc::VaultEntry* entry = find(work.id);
  if (entry != nullptr) work.stream = PostHandshakeStream(version_of(*entry), endpoint_of(*entry));
  readers_.erase(work.id.slot.value);
  fault(work.id, reason, detail);
}

void KeyKeeper::post_handshake(const ipc::PostHandshake& message, Fd socket) {
  const ipc::HandshakeOctets& part = message.record;
  ipc::VaultEntry* entry = find(part.connection);
  if (entry == nullptr) return fault(part.connection, ipc::FaultReason::kKeysFailed, ENOKEY);
  Work& work = this->work(part.connection, *entry);
  if (work.faulted) return;

  const auto octets = std::span(part.octets).first(std::min<std::size_t>(part.bytes, part.octets.size()));
  const std::size_t before = work.stream.size();
  const auto appended = work.stream.append(octets);
  octets_ += work.stream.size() - before;
  if (!appended) return end(work, appended.error().reason, appended.error().type);
  if (octets_ > limits_.most_octets) return end(work, ipc::FaultReason::kControlFlood);
  if (part.place == ipc::HandshakeOctets::Place::kMore) return;
  if (!work.allowance.take(record_limits(limits_), Clock::now())) return end(work, ipc::FaultReason::kControlFlood);
  const std::size_t complete = work.stream.size();
  if (const auto resumed = take_record(work, *entry, socket.get()); !resumed) {
    end(work, resumed.error().reason, resumed.error().detail);
  } else {
    octets_ -= complete - work.stream.size();
    outlet_.resume({.connection = part.connection, .what = *resumed});
  }
}

std::expected<ipc::Resume::What, KeyKeeper::Refusal> KeyKeeper::take_record(Work& work, ipc::VaultEntry& entry,
                                                                            int socket) {
  PostHandshakeStream& stream = work.stream;
  const std::uint64_t record = digest(stream.record());
  const auto inherited = std::exchange(work.inherited, std::nullopt);
  if (inherited && inherited->last_record == record) {
    // The predecessor did all that there was to do about it, but for saying so.
    stream.drop_record();
    return ipc::Resume::What::kReceive;
  }
  const bool paused =
      version_of(entry) == ktls::Version::kTls13 && support_.rekey && begins_like_key_update(stream.record());
  auto what = ipc::Resume::What::kReceive;
  for (;;) {
    const auto message = stream.next();
    if (!message) return std::unexpected(Refusal{message.error().reason, message.error().type});
    if (!*message) break;
    const PostHandshakeMessage& found = **message;
    switch (found.kind) {
      case PostHandshakeKind::kNewSessionTicket:
        learn(work.id, found.octets);
        break;
      case PostHandshakeKind::kRenegotiation:
        refuse_renegotiation(work.id);
        break;
      case PostHandshakeKind::kKeyUpdate:
        if (auto status = follow(entry, socket); !status) return std::unexpected(status.error());
        what = ipc::Resume::What::kReceiveRekeyed;
        if (found.request == KeyUpdateRequest::kRequested) start_update(work, KeyUpdateRequest::kNotRequested);
        break;
    }
  }
  if (paused && what == ipc::Resume::What::kReceive) {
    if (auto status = reinstall_receive_keys(entry, socket, kernel_); !status) return keys_failed(status.error());
  }
  keep_place(work, entry, record);
  return what;
}

// The peer sends under its next keys now.
std::expected<void, KeyKeeper::Refusal> KeyKeeper::follow(ipc::VaultEntry& entry, int socket) {
  if (!support_.rekey) return std::unexpected(Refusal{ipc::FaultReason::kNoRekey, 0});
  const auto step = install_next_keys<ktls::Direction::kReceive>(entry, socket, kernel_);
  if (!step) return keys_failed(step.error());
  if (*step == KeyStep::kInstalled) stats_.receive_rekeyed.add();
  return {};
}

std::unexpected<KeyKeeper::Refusal> KeyKeeper::keys_failed(const Error& error) {
  log::error("new keys could not be installed: {}", error.what);
  return std::unexpected(Refusal{ipc::FaultReason::kKeysFailed, error.code});
}

// Where messages are spread over records, a successor must know where the stream stands; otherwise nothing is written.
void KeyKeeper::keep_place(Work& work, ipc::VaultEntry& entry, std::uint64_t record) {
  const auto begun = work.stream.begun();
  const auto stored = entry.stream();
  work.stream.end_record();
  if (begun || (stored && stored->have > 0)) {
    ipc::VaultStream place = begun.value_or(ipc::VaultStream{});
    place.last_record = record;
    entry.set_stream(place);
  } else if (stored) {
    entry.set_stream(std::nullopt);
  }
}

void KeyKeeper::learn(ConnectionId connection, std::span<const std::byte> message) {
  const auto found = readers_.find(connection.slot.value);
  if (found == readers_.end() || message.empty()) return;
  Reader& reader = *found->second;
  auto resumption = reader.tickets.feed(message);
  const TrunkId trunk = reader.trunk;
  const std::string host = reader.host;
  if (reader.tickets.done()) readers_.erase(found);
  if (!resumption) {
    log::warn("{}", resumption.error().what);
  } else if (resumption->valid()) {
    stats_.tickets.add();
    if (outlet_.learnt) outlet_.learnt(trunk, host, std::move(*resumption));
  }
}

void KeyKeeper::refuse_renegotiation(ConnectionId connection) {
  ipc::SendControl alert{.connection = connection,
                         .record_type = static_cast<std::uint8_t>(ktls::RecordType::kAlert),
                         .bytes = 2,
                         .after = ipc::SendControl::After::kGoOn};
  alert.octets[0] = static_cast<std::byte>(ktls::AlertLevel::kWarning);
  alert.octets[1] = static_cast<std::byte>(ktls::AlertDescription::kNoRenegotiation);
  outlet_.send_control(alert);
}

void KeyKeeper::start_update(Work& work, KeyUpdateRequest request) {
  if (work.update_under_way) {
    if (work.another != KeyUpdateRequest::kRequested) work.another = request;
    return;
  }
  work.update_under_way = true;
  ipc::SendControl update{.connection = work.id,
                          .record_type = static_cast<std::uint8_t>(ktls::RecordType::kHandshake),
                          .bytes = 5,
                          .after = ipc::SendControl::After::kHoldSends};
  // struct { HandshakeType msg_type; uint24 length; KeyUpdateRequest request_update; }
  const std::array octets = {std::byte{kKeyUpdate}, std::byte{0}, std::byte{0}, std::byte{1},
                             static_cast<std::byte>(request)};
  std::ranges::copy(octets, update.octets.begin());
  outlet_.send_control(update);
}

void KeyKeeper::install_transmit(const ipc::InstallTransmit& message, Fd socket) {
  ipc::VaultEntry* entry = find(message.connection);
  if (entry == nullptr) return fault(message.connection, ipc::FaultReason::kKeysFailed, ENOKEY);
  Work& work = this->work(message.connection, *entry);
  if (work.faulted) return;
  const auto step = install_next_keys<ktls::Direction::kTransmit>(*entry, socket.get(), kernel_);
  if (!step) {
    const Refusal refusal = keys_failed(step.error()).error();
    return end(work, refusal.reason, refusal.detail);
  }
  if (*step == KeyStep::kInstalled) stats_.transmit_rekeyed.add();
  outlet_.resume({.connection = message.connection, .what = ipc::Resume::What::kSendRekeyed});
  work.update_under_way = false;
  if (const auto request = std::exchange(work.another, std::nullopt)) start_update(work, *request);
}

KeyKeeper::Update KeyKeeper::update(ConnectionId connection, ipc::Renew::Which which) {
  const ipc::VaultEntry* entry = find(connection);
  if (entry == nullptr || !support_.rekey || version_of(*entry) != ktls::Version::kTls13) return Update::kCannot;
  Work& work = this->work(connection, *entry);
  if (work.faulted) return Update::kBegun;  // it ends before it needs them
  const bool ask = which == ipc::Renew::Which::kReceive;
  if (ask || !work.update_under_way)
    start_update(work, ask ? KeyUpdateRequest::kRequested : KeyUpdateRequest::kNotRequested);
  return Update::kBegun;
}

}  // namespace ktrunk::handshake
