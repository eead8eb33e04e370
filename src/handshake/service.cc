#include "handshake/service.h"

#include <sys/resource.h>

#include <algorithm>

#include "base/log.h"

namespace ktrunk::handshake {
namespace {

constexpr std::chrono::seconds kFailureLinesEvery{1};  // of handshakes that failed, by address
constexpr unsigned kFailureLines = 5;
// Connections that the supervisor has not answered: beyond so many, peers wait in the backlog until it has.
constexpr std::size_t kMostUnanswered = 1024;

// This process's share. Half of its descriptors may be taken by handshakes: were they all, no handshake could end.
AdmissionLimits admission_limits(const config::Config& config, const Share& share) {
  AdmissionLimits limits = AdmissionLimits::share(config.limits, share.processes);
  rlimit open{};
  if (::getrlimit(RLIMIT_NOFILE, &open) != 0 || open.rlim_cur / 2 >= limits.handshakes) return limits;
  limits.handshakes = static_cast<std::uint32_t>(std::max<rlim_t>(open.rlim_cur / 2, 1));
  log::warn("open files are limited to {}: at most {} handshakes at once; raise LimitNOFILE or ulimit -n",
            open.rlim_cur, limits.handshakes);
  return limits;
}

}  // namespace

Service::Service(EventLoop& loop, const config::Config& config, ipc::SharedRegion& region, ipc::Vault& vault,
                 ktls::Kernel& kernel, TicketKeys tickets, const Share& share, const Timing& timing, Outlet outlet)
    : loop_(loop),
      config_(config),
      region_(region),
      share_(share),
      timing_(timing),
      outlet_(std::move(outlet)),
      closing_(loop),
      failures_(kFailureLinesEvery, kFailureLines),
      addresses_(config),
      settings_{.loop = loop,
                .config = config,
                .addresses = addresses_,
                .record_layer = {config.record_layer, &support_, &kernel},
                .closing = closing_,
                .stats = region.handshake(share.self),
                .failures = failures_},
      tickets_(std::move(tickets)),
      contexts_(config, tickets_),
      keeper_(vault, share.self, support_, kernel, settings_.stats, loop, keeper_outlet()),
      acceptor_(settings_, contexts_, admission_limits(config, share),
                [this](Secured secured) { (void)hand_over(std::move(secured), {}, {}); }),
      resolver_(loop, config.dns) {
  settings_.stats.in_progress.set(0);  // those of an earlier life ended with it
  if (config.record_layer != config::RecordLayer::kRelay) {
    support_ = ktls::probe_support(kernel);
    log::info("{}", support_.describe());
  }
}

KeyKeeper::Outlet Service::keeper_outlet() {
  return {.send_control = outlet_.send_control,
          .resume = outlet_.resume,
          .fault = outlet_.fault,
          .learnt = [this](TrunkId trunk, const std::string& host, Resumption resumption) {
            if (Connector* its = connector(trunk)) its->remember(host, std::move(resumption));
          }};
}

void Service::start(ListeningSockets sockets) {
  keeper_.tidy(region_);
  rotate_tickets();
  for (auto& [id, socket] : sockets) acceptor_.listen(id, std::move(socket));
  start_connectors();
  udp_targets_.emplace(loop_, resolver_, config_, share_, timing_.udp_targets,
                       [this](const ipc::Resolved& resolved) { outlet_.resolved(resolved); });
}

void Service::rotate_tickets() {
  if (share_.self.value != 0) return;
  constexpr std::chrono::milliseconds kLeast{100};
  constexpr std::chrono::milliseconds kMost{30'000};
  if (const Status status = tickets_.rotate_if_due(TicketKeys::Clock::now()); !status)
    log::error("the key of session tickets stays as it is: {}", status.error().what);
  ticket_timer_ = loop_.after(std::clamp(config_.ticket_rotation / 8, kLeast, kMost), [this] { rotate_tickets(); });
}

void Service::start_connectors() {
  connectors_.resize(config_.trunks.size());
  for (std::size_t i = 0; i < config_.trunks.size(); ++i) {
    const TrunkId id{static_cast<std::uint16_t>(i)};
    if (!share_.has(id) || config::connection_targets(config_.trunks[i]).empty()) continue;
    connectors_[i] =
        std::make_unique<Connector>(settings_, resolver_, id, contexts_, timing_.connector, living(id),
                                    [this](Secured secured, const std::string& host, ConnectionId replaces) {
                                      return hand_over(std::move(secured), host, replaces);
                                    });
  }
}

Connector* Service::connector(TrunkId trunk) const {
  return trunk.value < connectors_.size() ? connectors_[trunk.value].get() : nullptr;
}

// What is known of a connection; nothing when it lives no more.
std::optional<ipc::ConnectionInfo> Service::info_of(ConnectionId id) const {
  if (!id.valid() || id.slot.value >= region_.sizes().max_connections) return std::nullopt;
  const ipc::ConnectionSlot& slot = region_.slot(id.slot);
  const auto is_it = [&](ipc::SlotWord word) {
    return word.generation == id.generation && word.state != ipc::SlotState::kFree;
  };
  if (!is_it(slot.state())) return std::nullopt;
  const ipc::ConnectionInfo info = slot.info;
  if (!is_it(slot.state())) return std::nullopt;  // it got its next life meanwhile
  return info;
}

// What an earlier handshake process made for the trunk and the workers still hold.
std::vector<Connector::Living> Service::living(TrunkId trunk) const {
  std::vector<Connector::Living> found;
  for (std::uint32_t i = 0; i < region_.sizes().max_connections; ++i) {
    const ipc::ConnectionSlot& slot = region_.slot(SlotIndex{i});
    const ipc::SlotWord word = slot.state();
    if (word.state != ipc::SlotState::kOpen && word.state != ipc::SlotState::kOffered) continue;
    const bool ours = slot.info.role == ConnectionRole::kConnected && slot.info.trunk == trunk;
    const Address peer = slot.info.peer;
    // Read before the slot got its next life?
    if (ours && slot.state().generation == word.generation)
      found.push_back({.id = {SlotIndex{i}, word.generation}, .peer = peer});
  }
  return found;
}

std::string Service::owner(const ipc::ConnectionInfo& info) const {
  if (info.role == ConnectionRole::kConnected) return fmt::format("trunk '{}'", config_.trunks[info.trunk.value].name);
  return fmt::format("listener '{}'", config_.listeners[info.listener.value].name);
}

void Service::relay_ended(std::uint64_t reference, const std::string& host, ConnectionRole role, TrunkId trunk,
                          Relay::End end) {
  const auto ended = relays_.extract(reference);  // it is running: gone when this returns
  // The workers see no more than an end of the stream, and the supervisor would call it the peer's wish.
  if (const auto known = connections_.find(reference);
      end.how == Relay::End::How::kBroken && known != connections_.end() && known->second.id.valid())
    outlet_.fault({.connection = known->second.id, .reason = ipc::FaultReason::kReset});
  if (role != ConnectionRole::kConnected) return;
  if (Connector* its = connector(trunk)) its->remember(host, std::move(end.resumption));
}

Result<Fd> Service::make_relay(std::uint64_t reference, Secured& secured, const std::string& host) {
  const ipc::ConnectionInfo& info = secured.info;
  auto made = Relay::create(loop_, closing_, std::move(*secured.session),
                            fmt::format("{}, {}", owner(info), info.peer.text()), config_.limits.stalled_peer,
                            [this, reference, host, trunk = info.trunk, role = info.role](Relay::End end) {
                              relay_ended(reference, host, role, trunk, std::move(end));
                            });
  if (!made) return std::unexpected(std::move(made.error()));
  relays_.emplace(reference, std::move(made->relay));
  return std::move(made->workers_end);
}

std::uint64_t Service::hand_over(Secured secured, const std::string& host, ConnectionId replaces) {
  const std::uint64_t reference = keeper_.next_reference();
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
  if (replaces.valid()) stats.replaced.add();
  connections_.emplace(reference,
                       Connection{info.role, info.trunk, info.peer, owner(info), {}, std::move(secured.kernel)});
  if (info.role == ConnectionRole::kAccepted) acceptor_.opened(info.peer);
  if (++unanswered_ == kMostUnanswered) acceptor_.pause();
  outlet_.established({.reference = reference, .replaces = replaces, .info = info}, std::move(descriptor));
  return reference;
}

void Service::hands_over(std::uint64_t reference) {
  const auto found = connections_.find(reference);
  if (found != connections_.end() && found->second.kernel) keeper_.hand_over(reference, found->second.kernel->secrets);
}

void Service::answered(std::uint64_t reference) {
  keeper_.answered(reference);
  if (unanswered_ > 0 && --unanswered_ == kMostUnanswered / 2) acceptor_.resume();
}

void Service::admitted(const ipc::Admitted& message) {
  const auto found = connections_.find(message.reference);
  if (found == connections_.end()) return;
  found->second.id = message.connection;
  if (Connector* its = connector(found->second.trunk)) its->admitted(message.reference, message.connection);
  if (auto kernel = std::exchange(found->second.kernel, std::nullopt))
    keeper_.admitted(message.connection, std::move(*kernel));
  answered(message.reference);
}

void Service::refused(const ipc::Refused& message) {
  const auto refused = connections_.extract(message.reference);
  if (refused.empty()) return;
  answered(message.reference);
  const Connection& connection = refused.mapped();
  if (connection.role == ConnectionRole::kAccepted) acceptor_.closed(connection.peer);
  const bool table = message.why == ipc::Refused::Why::kTableFull;
  acceptor_.refused(connection.owner, connection.peer,
                    table ? "limits.max_connections" : "limits.connections_per_address");
  if (connection.role != ConnectionRole::kConnected) return;
  if (Connector* its = connector(connection.trunk)) its->refused(message.reference);
}

void Service::gone(const ipc::Gone& message) {
  // A relay ends by itself, when it has sent what the workers left in it.
  if (const auto ended = connections_.extract(message.reference);
      !ended.empty() && ended.mapped().role == ConnectionRole::kAccepted)
    acceptor_.closed(ended.mapped().peer);
  keeper_.gone(message.connection);
  if (message.role != ConnectionRole::kConnected) return;
  if (Connector* its = connector(message.trunk)) its->lost(message);
}

void Service::post_handshake(const ipc::PostHandshake& message, Fd socket) {
  keeper_.post_handshake(message, std::move(socket));
}

void Service::install_transmit(const ipc::InstallTransmit& message, Fd socket) {
  keeper_.install_transmit(message, std::move(socket));
}

void Service::renew(const ipc::Renew& message) {
  const auto info = info_of(message.connection);
  if (!info || info->transport != config::Transport::kTls) return;
  if (info->record_layer == ipc::RecordLayerKind::kKernel &&
      keeper_.update(message.connection, message.which) == KeyRenewal::kBegun)
    return;
  if (const auto relay = relays_.find(message.reference);
      relay != relays_.end() && relay->second->renew(message.which) == KeyRenewal::kBegun)
    return;
  if (info->role == ConnectionRole::kConnected) {
    // Whoever leaves makes no connection that could replace this one.
    Connector* its = leaving_ ? nullptr : connector(info->trunk);
    const auto replacing =
        its != nullptr ? its->replace(message.reference, message.connection) : Connector::Replacing::kUnknown;
    if (replacing == Connector::Replacing::kUnderWay) return;
    if (replacing == Connector::Replacing::kBegun) {
      log::info("{}: its connection with {} has used up its keys, and is replaced", owner(*info), info->peer.text());
      return;
    }
  }
  log::info("{}: the connection with {} has used up its keys, and is retired", owner(*info), info->peer.text());
  outlet_.retire({.connection = message.connection});
}

void Service::reload(const ipc::Reload& message) {
  switch (message.step) {
    case ipc::Reload::Step::kPrepare:
      return outlet_.reloaded(contexts_.prepare(message.number));
    case ipc::Reload::Step::kCommit:
      if (contexts_.commit(message.number) == ContextsInForce::Committed::kNothing) return;
      log::info("reload {}: new handshakes use the files as they are now", message.number);
      for (const auto& each : connectors_) {
        if (each != nullptr) each->context_changed();
      }
      return;
    case ipc::Reload::Step::kDiscard:
      return contexts_.discard(message.number);
  }
}

void Service::leave() {
  leaving_ = true;
  ticket_timer_.reset();
}

void Service::drain(Clock::duration time) {
  udp_targets_.reset();
  for (const auto& each : connectors_) {
    if (each != nullptr) each->stop(time);
  }
  acceptor_.stop(time);
}

bool Service::busy() const {
  return acceptor_.busy() || std::ranges::any_of(connectors_, [](const std::unique_ptr<Connector>& each) {
           return each != nullptr && each->busy();
         });
}

void Service::close_relays() {
  for (const auto& [reference, relay] : relays_) relay->close();
}

}  // namespace ktrunk::handshake
