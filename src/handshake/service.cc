#include "handshake/service.h"

#include <algorithm>

#include "base/log.h"

namespace ktrunk::handshake {
namespace {

constexpr std::chrono::seconds kFailureLinesEvery{1};  // of handshakes that failed, by address

bool has_target(const config::Trunk& trunk, config::Transport transport) {
  return std::ranges::find(trunk.targets, transport, &config::Target::transport) != trunk.targets.end();
}

bool is_stream(const config::Trunk& trunk) {
  return has_target(trunk, config::Transport::kTls) || has_target(trunk, config::Transport::kTcp);
}

std::optional<TlsContext> usable(Result<TlsContext> context) {
  if (!context) {
    log::error("{}", context.error().what);
    return std::nullopt;
  }
  for (const std::string& warning : context->warnings()) log::warn("{}", warning);
  return std::move(*context);
}

}  // namespace

Service::Service(EventLoop& loop, const config::Config& config, ipc::SharedRegion& region, ktls::Kernel& kernel,
                 const Timing& timing, Outlet outlet)
    : loop_(loop),
      config_(config),
      region_(region),
      timing_(timing),
      outlet_(std::move(outlet)),
      closing_(loop),
      failures_(kFailureLinesEvery),
      settings_{.loop = loop,
                .config = config,
                .record_layer = {config.record_layer, &support_, &kernel},
                .closing = closing_,
                .stats = region.handshake(),
                .failures = failures_},
      resolver_(loop) {
  if (config.record_layer != config::RecordLayer::kRelay) {
    support_ = ktls::probe_support(kernel);
    log::info("{}", support_.describe());
  }
  load_contexts();
}

void Service::load_contexts() {
  for (const config::Listener& listener : config_.listeners) {
    listener_contexts_.push_back(
        listener.transport == config::Transport::kTls ? usable(TlsContext::for_listener(listener)) : std::nullopt);
  }
  for (const config::Trunk& trunk : config_.trunks) {
    trunk_contexts_.push_back(has_target(trunk, config::Transport::kTls) ? usable(TlsContext::for_trunk(trunk))
                                                                         : std::nullopt);
  }
}

void Service::start(ListeningSockets sockets) {
  for (auto& [id, socket] : sockets) {
    const config::Listener& listener = config_.listeners[id.value];
    auto made =
        Listener::create(loop_, std::move(socket), fmt::format("listener '{}'", listener.name),
                         [this, which = id](Fd fd, const Address& peer) { accepted(which, std::move(fd), peer); });
    if (!made) {
      log::error("listener '{}' does not serve: {}", listener.name, made.error().what);
      continue;
    }
    listeners_.push_back(std::move(*made));
  }
  start_connectors();
  udp_targets_.emplace(loop_, resolver_, config_, timing_.udp_targets,
                       [this](TrunkId trunk, std::uint16_t target, const Address& address) {
                         outlet_.resolved({.trunk = trunk, .target = target, .address = address});
                       });
}

void Service::start_connectors() {
  connectors_.resize(config_.trunks.size());
  for (std::size_t i = 0; i < config_.trunks.size(); ++i) {
    const config::Trunk& trunk = config_.trunks[i];
    const std::optional<TlsContext>& context = trunk_contexts_[i];
    // Without its context a trunk is down: trying its other targets in plain TCP would be a surprise.
    if (!is_stream(trunk) || (has_target(trunk, config::Transport::kTls) && !context)) continue;
    const TrunkId id{static_cast<std::uint16_t>(i)};
    connectors_[i] = std::make_unique<Connector>(
        settings_, resolver_, id, context ? &*context : nullptr, timing_.connector, living(id),
        [this](Secured secured, const std::string& host) { return hand_over(std::move(secured), host); });
  }
}

// What an earlier handshake process made for the trunk and the workers still hold.
std::vector<ConnectionId> Service::living(TrunkId trunk) const {
  std::vector<ConnectionId> found;
  for (std::uint32_t i = 0; i < region_.sizes().max_connections; ++i) {
    const ipc::ConnectionSlot& slot = region_.slot(SlotIndex{i});
    const ipc::SlotWord word = slot.state();
    if (word.state != ipc::SlotState::kOpen && word.state != ipc::SlotState::kOffered) continue;
    const bool ours = slot.info.role == ConnectionRole::kConnected && slot.info.trunk == trunk;
    // Read before the slot got its next life?
    if (ours && slot.state().generation == word.generation) found.push_back({SlotIndex{i}, word.generation});
  }
  return found;
}

void Service::accepted(ListenerId id, Fd socket, const Address& peer) {
  const config::Listener& listener = config_.listeners[id.value];
  const std::optional<TlsContext>& context = listener_contexts_[id.value];
  const bool tls = listener.transport == config::Transport::kTls;
  if (tls && !context) return;  // its files are no good, as was logged: the peer learns at once that nobody is there
  const std::uint64_t key = next_number_++;
  auto handshake = Handshake::accept(settings_,
                                     {.role = ConnectionRole::kAccepted,
                                      .transport = listener.transport,
                                      .trunk = {},
                                      .listener = id,
                                      .peer = peer,
                                      .owner = fmt::format("listener '{}'", listener.name),
                                      .host = {}},
                                     tls ? &*context : nullptr, std::move(socket),
                                     [this, key](Result<Secured> result) { accept_done(key, std::move(result)); });
  if (!handshake) {
    settings_.stats.failed.add();
    log::error("listener '{}': connection from {}: {}", listener.name, peer.text(), handshake.error().what);
    return;
  }
  accepting_.emplace(key, std::move(*handshake));
  // No more handshakes at once than connections: the rest wait in the backlog.
  if (accepting_.size() >= config_.limits.max_connections) {
    for (const auto& each : listeners_) each->pause();
  }
}

void Service::accept_done(std::uint64_t key, Result<Secured> result) {
  const auto ended = accepting_.extract(key);
  if (accepting_.size() + 1 == config_.limits.max_connections) {
    for (const auto& each : listeners_) each->resume();
  }
  if (result) (void)hand_over(std::move(*result), {});
}

std::string Service::owner(const ipc::ConnectionInfo& info) const {
  if (info.role == ConnectionRole::kConnected) return fmt::format("trunk '{}'", config_.trunks[info.trunk.value].name);
  return fmt::format("listener '{}'", config_.listeners[info.listener.value].name);
}

Result<Fd> Service::make_relay(std::uint64_t reference, Secured& secured, const std::string& host) {
  const ipc::ConnectionInfo& info = secured.info;
  auto made = Relay::create(loop_, closing_, std::move(*secured.session),
                            fmt::format("{}, {}", owner(info), info.peer.text()), config_.limits.stalled_peer,
                            [this, reference, host, trunk = info.trunk, role = info.role](Resumption resumption) {
                              const auto ended = relays_.extract(reference);
                              if (role != ConnectionRole::kConnected || connectors_[trunk.value] == nullptr) return;
                              connectors_[trunk.value]->remember(host, std::move(resumption));
                            });
  if (!made) return std::unexpected(std::move(made.error()));
  relays_.emplace(reference, std::move(made->relay));
  return std::move(made->workers_end);
}

std::uint64_t Service::hand_over(Secured secured, const std::string& host) {
  const std::uint64_t reference = next_number_++;
  const ipc::ConnectionInfo& info = secured.info;
  Fd descriptor = std::move(secured.descriptor);
  if (secured.session) {
    auto end = make_relay(reference, secured, host);
    if (!end) {
      settings_.stats.failed.add();
      log::error("{}: connection with {} closed: {}", owner(info), info.peer.text(), end.error().what);
      return 0;
    }
    descriptor = std::move(*end);
  }
  ipc::HandshakeStats& stats = settings_.stats;
  (info.role == ConnectionRole::kAccepted ? stats.accepted : stats.connected).add();
  if (info.record_layer == ipc::RecordLayerKind::kKernel) stats.kernel.add();
  if (info.record_layer == ipc::RecordLayerKind::kRelay) stats.relayed.add();
  connections_.emplace(reference, Connection{{}, info.role, info.trunk});
  outlet_.established({.reference = reference, .info = info}, std::move(descriptor));
  return reference;
}

void Service::admitted(const ipc::Admitted& message) {
  if (const auto found = connections_.find(message.reference); found != connections_.end())
    found->second.id = message.connection;
}

void Service::refused(const ipc::Refused& message) {
  const auto refused = connections_.extract(message.reference);
  if (refused.empty()) return;
  log::warn("a connection was refused: the table of {} is full (limits.max_connections)",
            config_.limits.max_connections);
  const Connection& connection = refused.mapped();
  if (connection.role == ConnectionRole::kConnected && connectors_[connection.trunk.value] != nullptr)
    connectors_[connection.trunk.value]->refused(message.reference);
}

void Service::gone(const ipc::Gone& message) {
  // A relay ends by itself, when it has sent what the workers left in it.
  connections_.erase(message.reference);
  if (message.role != ConnectionRole::kConnected || message.trunk.value >= connectors_.size()) return;
  Connector* connector = connectors_[message.trunk.value].get();
  if (connector == nullptr) return;
  if (message.reference != 0) {
    connector->lost(message.reference);
  } else {
    connector->lost(message.connection);
  }
}

void Service::drain(Clock::duration time) {
  draining_ = true;
  listeners_.clear();
  udp_targets_.reset();
  for (const auto& connector : connectors_) {
    if (connector != nullptr) connector->stop(time);
  }
  for (const auto& [key, handshake] : accepting_) handshake->hurry(time);
}

bool Service::busy() const {
  return !accepting_.empty() || std::ranges::any_of(connectors_, [](const std::unique_ptr<Connector>& connector) {
    return connector != nullptr && connector->busy();
  });
}

void Service::close_relays() {
  for (const auto& [reference, relay] : relays_) relay->close();
}

}  // namespace ktrunk::handshake
