#include "supervisor/status.h"

#include <unistd.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "ktls/tls_stat.h"

namespace ktrunk::supervisor {
namespace {

using Json = nlohmann::ordered_json;

std::string_view state_name(ipc::SlotState state) {
  switch (state) {
    case ipc::SlotState::kFree:
      return "free";
    case ipc::SlotState::kOffered:
      return "offered";
    case ipc::SlotState::kOpen:
      return "open";
    case ipc::SlotState::kClosing:
      return "closing";
  }
  return "?";
}

std::string_view layer_name(ipc::RecordLayerKind kind) {
  switch (kind) {
    case ipc::RecordLayerKind::kNone:
      return "none";
    case ipc::RecordLayerKind::kKernel:
      return "kernel";
    case ipc::RecordLayerKind::kRelay:
      return "relay";
  }
  return "?";
}

std::string_view version_name(ipc::TlsVersion version) {
  switch (version) {
    case ipc::TlsVersion::kNone:
      return "";
    case ipc::TlsVersion::kTls12:
      return "1.2";
    case ipc::TlsVersion::kTls13:
      return "1.3";
  }
  return "?";
}

Json worker_json(const ipc::WorkerStats& stats, unsigned index) {
  return {{"index", index},
          {"messages_received", stats.messages_received.read()},
          {"messages_sent", stats.messages_sent.read()},
          {"records_sent", stats.kernel_records_sent.read()},
          {"relay_packets_sent", stats.relay_packets_sent.read()},
          {"bytes_sent", stats.bytes_sent.read()},
          {"requests", stats.requests_forwarded.read()},
          {"responses", stats.responses_forwarded.read()},
          {"replies", stats.replies.read()},
          {"dropped", stats.dropped.read()},
          {"queue_full", stats.queue_full.read()},
          {"keepalives", stats.keepalives.read()},
          {"control_records", stats.control_records.read()},
          {"submits", stats.submits.read()},
          {"key_updates_sent", stats.key_updates_sent.read()},
          {"handed_over", stats.handed_over.read()},
          {"hep_sent", stats.hep_sent.read()},
          {"hep_dropped", stats.hep_dropped.read()},
          {"traced", stats.traced.read()},
          {"trace_dropped", stats.trace_dropped.read()}};
}

std::uint64_t queued_on(const ipc::SharedRegion& region, SlotIndex slot, unsigned worker) {
  return region.sent(slot, WorkerIndex{static_cast<std::uint8_t>(worker)}).queued.load(std::memory_order_relaxed);
}

Json connection_json(const ipc::SharedRegion& region, SlotIndex slot, const config::Config& config,
                     const ConnectionView& view) {
  const ipc::ConnectionSlot& shared = region.slot(slot);
  const ipc::SlotWord word = shared.state();
  const ipc::ConnectionInfo& info = shared.info;
  Json sent = Json::array();
  std::uint64_t records = 0;
  std::uint64_t queued = 0;
  for (unsigned worker = 0; worker < region.sizes().workers; ++worker) {
    const ipc::SentCounts& counts = region.sent(slot, WorkerIndex{static_cast<std::uint8_t>(worker)});
    sent.push_back(counts.messages.load(std::memory_order_relaxed));
    records += counts.records.load(std::memory_order_relaxed);
    queued += queued_on(region, slot, worker);
  }
  return {{"id", fmt::format("{}.{}", slot.value, word.generation.value)},
          {"state", view.retired && word.state == ipc::SlotState::kOpen ? "retired" : state_name(word.state)},
          {"transport", config::transport_name(info.transport)},
          {"role", info.role == ipc::ConnectionInfo::Role::kAccepted ? "accepted" : "connected"},
          {"record_layer", layer_name(info.record_layer)},
          {"record_layer_reason", info.record_layer_note.view()},
          {"tls_version", version_name(info.tls_version)},
          {"cipher", info.cipher.view()},
          {"trunk", info.trunk.valid() ? config.trunks[info.trunk.value].name : ""},
          {"listener", info.listener.valid() ? config.listeners[info.listener.value].name : ""},
          {"peer", info.peer.text()},
          {"local", info.local.text()},
          {"home_worker", word.home.valid() && word.home.value != 0xff ? Json(word.home.value) : Json()},
          {"handshake", view.owner.valid() ? Json(view.owner.value) : Json()},
          {"spread", shared.spread.load(std::memory_order_relaxed) != 0},
          {"messages_sent", std::move(sent)},
          {"records_sent", records},
          {"queued_bytes", queued},
          {"records_received", shared.records_received.load(std::memory_order_relaxed)},
          {"transmit_key_renewals", view.transmit_renewals},
          {"receive_key_renewals", view.receive_renewals}};
}

// The counters of HandshakeStats by name; the sum over all processes is "handshakes", each one's are its own.
constexpr std::pair<const char*, ipc::Counter ipc::HandshakeStats::*> kHandshakeCounters[] = {
    {"accepted", &ipc::HandshakeStats::accepted},
    {"connected", &ipc::HandshakeStats::connected},
    {"failed", &ipc::HandshakeStats::failed},
    {"refused", &ipc::HandshakeStats::refused},
    {"in_progress", &ipc::HandshakeStats::in_progress},
    {"resumed", &ipc::HandshakeStats::resumed},
    {"tickets", &ipc::HandshakeStats::tickets},
    {"kernel", &ipc::HandshakeStats::kernel},
    {"relayed", &ipc::HandshakeStats::relayed},
    {"receive_rekeyed", &ipc::HandshakeStats::receive_rekeyed},
    {"transmit_rekeyed", &ipc::HandshakeStats::transmit_rekeyed},
    {"replaced", &ipc::HandshakeStats::replaced}};

void add_handshakes(Json& document, const ipc::SharedRegion& region) {
  Json processes = Json::array();
  for (unsigned process = 0; process < region.sizes().handshakes; ++process) processes.push_back({{"index", process}});
  for (const auto& [name, counter] : kHandshakeCounters) {
    std::uint64_t sum = 0;
    for (unsigned process = 0; process < region.sizes().handshakes; ++process) {
      const std::uint64_t count =
          (region.handshake(HandshakeIndex{static_cast<std::uint8_t>(process)}).*counter).read();
      processes[process][name] = count;
      sum += count;
    }
    document["handshakes"][name] = sum;
  }
  document["handshake_processes"] = std::move(processes);
}

std::int64_t seconds_since(Clock::time_point then) {
  return std::chrono::duration_cast<std::chrono::seconds>(Clock::now() - then).count();
}

Json trunk_json(const config::Trunk& trunk, const ipc::TrunkEntry& entry, const TrunkStates::View& view) {
  unsigned open = 0;
  for (unsigned place = 0; place < entry.places.load(std::memory_order_acquire); ++place)
    open += entry.connection(place).valid() ? 1 : 0;
  Json udp = Json::array();
  for (unsigned place = 0; place < ipc::kMaxTargets; ++place) {
    if (const Address address = entry.udp_address(place); !address.empty()) udp.push_back(address.text());
  }
  Json options;
  if (view.answer.status != 0) options = {{"status", view.answer.status}, {"age_s", seconds_since(view.answer.at)}};
  return {{"name", trunk.name},
          {"state", trunk_state_name(view.state)},
          {"since_s", seconds_since(view.since)},
          {"options_answer", std::move(options)},
          {"invites", trunk.max_invites != 0 ? Json(entry.invites.load(std::memory_order_relaxed)) : Json()},
          {"connections", open},
          // One to udp targets is for large requests, and they may take no TCP.
          {"wanted", trunk.targets.empty() || config::is_datagram(trunk) ? 0 : trunk.connections},
          {"udp_targets", std::move(udp)}};
}

}  // namespace

std::string status_json(const DaemonStatus& daemon, const config::Config& config, const ipc::SharedRegion& region,
                        const Connections& connections, const TrunkStates& trunks) {
  Json document = {
      {"version", daemon.version}, {"pid", ::getpid()}, {"uptime_s", daemon.uptime.count()}, {"state", daemon.state}};
  for (const ProcessStatus& process : daemon.processes)
    document["processes"].push_back({{"name", process.name}, {"pid", process.pid}, {"restarts", process.restarts}});
  for (unsigned worker = 0; worker < region.sizes().workers; ++worker)
    document["workers"].push_back(worker_json(region.worker(WorkerIndex{static_cast<std::uint8_t>(worker)}), worker));
  add_handshakes(document, region);
  document["trunks"] = Json::array();
  for (std::uint16_t trunk = 0; trunk < region.sizes().trunks; ++trunk)
    document["trunks"].push_back(
        trunk_json(config.trunks[trunk], region.trunk(TrunkId{trunk}), trunks.view(TrunkId{trunk})));
  document["connections"] = Json::array();
  std::vector<std::uint64_t> queued(region.sizes().workers);  // by worker
  for (std::uint32_t slot = 0; slot < region.sizes().max_connections; ++slot) {
    if (region.slot(SlotIndex{slot}).state().state == ipc::SlotState::kFree) continue;
    for (unsigned worker = 0; worker < region.sizes().workers; ++worker)
      queued[worker] += queued_on(region, SlotIndex{slot}, worker);
    document["connections"].push_back(
        connection_json(region, SlotIndex{slot}, config, connections.view(SlotIndex{slot})));
  }
  for (unsigned worker = 0; worker < region.sizes().workers; ++worker)
    document["workers"][worker]["queued_bytes"] = queued[worker];
  document["tls_stat"] = Json::object();
  if (const auto stat = ktls::read_tls_stat(); stat) {
    for (const auto& [name, count] : stat->all()) document["tls_stat"][name] = count;
  }
  return document.dump(2, ' ', false, Json::error_handler_t::replace);
}

}  // namespace ktrunk::supervisor
