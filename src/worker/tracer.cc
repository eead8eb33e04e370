#include "worker/tracer.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "sip/message.h"

namespace ktrunk::worker {
namespace {

constexpr std::size_t kBatchBytes = 256 * 1024;
static_assert(kBatchBytes >= HepEncoder::kMaxBytes);
// What a proxy's edits may add to the longest message that comes in.
constexpr std::size_t kGrowth = 64 * 1024;

// FNV-1a, and a finish that spreads it over all bits. Not keyed: another ktrunkd is to pick the same calls.
std::uint32_t hash_of(std::string_view call_id) {
  std::uint64_t hash = 14'695'981'039'346'656'037U;
  for (const char octet : call_id) hash = (hash ^ static_cast<unsigned char>(octet)) * 1'099'511'628'211U;
  hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93U;
  return static_cast<std::uint32_t>(hash >> 32);
}

bool is_unspecified(const Address& address) {
  return address.ip_bytes().find_first_not_of('\0') == std::string_view::npos;
}

// The address that a listener is bound to, or where that is every one, the one that it advertises.
Address address_of(const config::Listener& listener) {
  if (!is_unspecified(listener.address)) return listener.address;
  std::string_view host = listener.advertise_host;
  if (host.starts_with('[')) host = host.substr(1, host.size() - 2);
  const auto advertised = Address::from_ip(host, listener.advertise_port);
  return advertised && advertised->family() == listener.address.family() ? *advertised : listener.address;
}

void count(ipc::Counter& counter, std::uint64_t& counted, std::uint64_t now) {
  counter.add(now - std::exchange(counted, now));
}

}  // namespace

bool is_sampled(config::Share share, std::string_view call_id) {
  if (share.millionths >= config::Share::kAll) return true;
  return (std::uint64_t{hash_of(call_id)} * config::Share::kAll >> 32) < share.millionths;
}

Tracer::Export::Export(const config::Hep& hep, Fd socket)
    : encoder(hep.capture_id, hep.auth_key), batch(std::move(socket), kBatchBytes) {}

Tracer::Tracer(const config::Config& config, const ipc::SharedRegion& region, WorkerIndex self, Fd collector)
    : config_(config), region_(region), self_(self), stats_(region.worker(self)) {
  for (const config::Listener& listener : config.listeners) own_.push_back(address_of(listener));
  if (collector.valid()) export_ = std::make_unique<Export>(config.hep, std::move(collector));
  look_who_watches();
}

void Tracer::begin(const ipc::Trace& trace, Fd socket) {
  if (trace.place >= watches_.size() || trace.trunk.value >= config_.trunks.size()) return;
  const std::size_t bytes = std::max(kBatchBytes, sizeof(ipc::TraceHead) + config_.limits.max_message_bytes + kGrowth);
  watches_[trace.place] = std::make_unique<Watch>(trace.trunk, std::move(socket), bytes);
  look_who_watches();
}

void Tracer::end(const ipc::TraceEnd& trace) {
  if (trace.place < watches_.size()) watches_[trace.place].reset();
  look_who_watches();
}

void Tracer::look_who_watches() {
  active_ = export_ != nullptr || std::ranges::any_of(watches_, [](const auto& watch) { return watch != nullptr; });
}

void Tracer::sent(const sip::Flow& to, std::string_view octets) {
  sip::Message message;
  message.parse(octets, sip::Carrier::kStream);
  sent(to, message.value(sip::HeaderId::kCallId), octets);
}

void Tracer::tell(const sip::Flow& flow, std::string_view call_id, std::string_view octets, Direction direction) {
  const TrunkId trunk = flow.trunk;
  const config::Share share = trunk.valid() ? config_.trunks[trunk.value].hep_sample : config_.hep.sample;
  const bool exported = export_ != nullptr && is_sampled(share, call_id);
  const auto watches = [&](const auto& watch) { return watch != nullptr && watch->trunk == trunk; };
  if (!exported && !(trunk.valid() && std::ranges::any_of(watches_, watches))) return;

  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now);
  ipc::TraceHead head;
  head.transport = flow.transport;
  head.direction = direction;
  head.worker = self_.value;
  head.seconds = static_cast<std::uint64_t>(seconds.count());
  head.microseconds =
      static_cast<std::uint32_t>(std::chrono::duration_cast<std::chrono::microseconds>(now - seconds).count());
  head.octets = static_cast<std::uint32_t>(octets.size());
  const Address local = local_of(flow);
  head.from = direction == Direction::kReceived ? flow.remote : local;
  head.to = direction == Direction::kReceived ? local : flow.remote;
  if (exported) tell_collector(head, octets);
  for (const auto& watch : watches_) {
    if (trunk.valid() && watches(watch)) tell_watch(*watch, head, octets);
  }
  pending_ = true;
}

void Tracer::tell_collector(const ipc::TraceHead& head, std::string_view octets) {
  using Protocol = HepMessage::Protocol;
  const HepMessage message{
      .from = head.from,
      .to = head.to,
      .protocol = head.transport == config::Transport::kUdp ? Protocol::kUdp : Protocol::kTcp,
      .seconds = static_cast<std::uint32_t>(head.seconds),
      .microseconds = head.microseconds,
      .payload = octets,
  };
  const std::size_t bytes = export_->encoder.size(message);
  if (bytes > HepEncoder::kMaxBytes) return stats_.hep_dropped.add();
  export_->encoder.encode(message, export_->batch.add(bytes));
}

void Tracer::tell_watch(Watch& watch, const ipc::TraceHead& head, std::string_view octets) {
  const std::span<std::byte> room = watch.batch.add(sizeof head + octets.size());
  if (room.empty()) return;
  ipc::TraceHead told = head;
  told.dropped = watch.batch.dropped();
  std::memcpy(room.data(), &told, sizeof told);
  std::memcpy(room.data() + sizeof told, octets.data(), octets.size());
}

Address Tracer::local_of(const sip::Flow& flow) const {
  if (flow.connection.valid()) return region_.slot(flow.connection.slot).info.local;
  return flow.listener.valid() && flow.listener.value < own_.size() ? own_[flow.listener.value] : Address();
}

void Tracer::flush() {
  pending_ = false;
  if (export_ != nullptr) {
    export_->batch.flush();
    count(stats_.hep_sent, export_->sent, export_->batch.sent());
    count(stats_.hep_dropped, export_->dropped, export_->batch.dropped());
  }
  for (const auto& watch : watches_) {
    if (watch == nullptr) continue;
    watch->batch.flush();
    count(stats_.traced, watch->sent, watch->batch.sent());
    count(stats_.trace_dropped, watch->dropped, watch->batch.dropped());
  }
}

}  // namespace ktrunk::worker
