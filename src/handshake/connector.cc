#include "handshake/connector.h"

#include <algorithm>
#include <random>
#include <utility>

#include "base/log.h"
#include "handshake/target_order.h"

namespace ktrunk::handshake {

Connector::Connector(const HandshakeSettings& settings, Resolver& resolver, TrunkId trunk,
                     const ContextsInForce& contexts, Timing timing, std::span<const Living> living,
                     Connected connected)
    : settings_(settings),
      resolver_(resolver),
      trunk_(trunk),
      targets_(config::connection_targets(this->trunk())),
      contexts_(contexts),
      timing_(timing),
      connected_(std::move(connected)) {
  const unsigned wanted = this->trunk().connections;
  const Clock::duration longest =
      config::is_datagram(this->trunk()) ? timing.longest_optional_wait : timing.longest_wait;
  places_.reserve(wanted);
  const std::vector<std::vector<std::size_t>> orders = spread_by_weight(targets_, wanted, std::random_device{}());
  for (unsigned i = 0; i < wanted; ++i) {
    Place& place = places_.emplace_back(BackOff(timing.first_wait, longest), orders[i]);
    if (i < living.size()) {
      place.up.id = living[i].id;
      place.up_since = Clock::now();
      // Not known: it may be the last one.
      place.up_server = {.target = targets_.size() - 1, .address = living[i].peer};
      place.up_server.is_later = targets_[place.order.back()].port == 0;
      await_failback(place);
    }
  }
  for (Place& place : places_) {
    if (!place.up.there()) begin(place);
  }
}

// Without its context a trunk is down: trying its other targets in plain TCP would be a surprise.
bool Connector::usable() const {
  return contexts_.trunk(trunk_) != nullptr ||
         std::ranges::find(targets_, config::Transport::kTls, &config::Target::transport) == targets_.end();
}

std::size_t Connector::place_of_target(const Place& place) const {
  return (place.first + place.tried) % targets_.size();
}

const config::Target& Connector::target_of(const Place& place) const {
  return targets_[place.order[place_of_target(place)]];
}

// There may be something better than what it has.
bool Connector::could_return(const Place& place) { return place.up_server.target != 0 || place.up_server.is_later; }

void Connector::begin(Place& place) {
  place.timer.reset();
  place.tried = 0;
  if (usable()) try_target(place);  // else until context_changed()
}

void Connector::try_target(Place& place) {
  if (stopped_) return;
  const Server& up = place.up_server;
  const std::size_t end = place.returning ? up.target + (up.is_later ? 1 : 0) : targets_.size();
  if (place.tried >= end) return place.returning ? stay(place) : try_later(place);
  place.query =
      resolver_.resolve(target_of(place), [this, &place](const Resolved& result) { resolved(place, result); });
}

void Connector::resolved(Place& place, const Resolved& result) {
  place.address = 0;
  place.addresses.clear();
  if (result) {
    place.addresses = *result;
  } else {
    log::warn("trunk '{}': {}", trunk().name, result.error().what);
  }
  if (result && place.returning && place_of_target(place) == place.up_server.target) keep_better(place);
  if (targets_.size() > 1 || place.addresses.size() > 1)
    std::erase_if(place.addresses, [&](const Address& each) { return each == place.avoided; });
  try_address(place);
}

// The servers that come before the one in use; none if it is not among them any more.
void Connector::keep_better(Place& place) {
  const auto now =
      std::ranges::find_if(place.addresses, [&](const Address& each) { return each == place.up_server.address; });
  const std::uint16_t rank = now != place.addresses.end() ? now->rank : std::uint16_t{0};
  std::erase_if(place.addresses, [rank](const ServerAddress& each) { return each.rank >= rank; });
  place.up_server.is_later = rank != 0;
}

void Connector::try_address(Place& place) {
  const config::Target& target = target_of(place);
  using Others = ipc::ConnectionInfo::Others;
  const Others others =
      targets_.size() > 1 || place.addresses.size() > 1 || !place.avoided.empty() ? Others::kSome : Others::kNone;
  while (!stopped_ && place.address < place.addresses.size()) {
    Origin origin{.role = ConnectionRole::kConnected,
                  .transport = target.transport,
                  .trunk = trunk_,
                  .listener = trunk().listener,
                  .peer = place.addresses[place.address++],
                  .owner = fmt::format("trunk '{}'", trunk().name),
                  .host = target.host,
                  .others = others};
    Resumption resumption;
    if (auto known = resumptions_.extract(target.host); !known.empty()) resumption = std::move(known.mapped());
    const bool tls = target.transport == config::Transport::kTls;
    place.context = tls ? contexts_.trunk(trunk_) : nullptr;
    auto handshake =
        Handshake::connect(settings_, std::move(origin), place.context.get(), std::move(resumption),
                           [this, &place](Result<Secured> result) { handshake_done(place, std::move(result)); });
    if (handshake) {
      place.handshake = std::move(*handshake);
      return;
    }
  }
  if (stopped_) return;
  ++place.tried;
  try_target(place);
}

void Connector::handshake_done(Place& place, Result<Secured> result) {
  const std::shared_ptr<const TlsContext> context = std::move(place.context);
  const std::unique_ptr<Handshake> ended = std::move(place.handshake);
  if (!result) return try_address(place);
  const std::string host = target_of(place).host;
  const ServerAddress& used = place.addresses[place.address - 1];
  const Server server{.target = place_of_target(place), .address = used, .is_later = used.rank != 0};
  if (context == contexts_.trunk(trunk_)) remember(host, std::move(result->resumption));
  const std::uint64_t reference = connected_(std::move(*result), host, place.replacing ? place.up.id : ConnectionId{});
  if (reference == 0) return place.returning ? stay(place) : try_later(place);
  if (std::exchange(place.replacing, false)) {
    place.old = place.up;
    place.old_server = place.up_server;
  }
  place.returned = std::exchange(place.returning, false);
  if (place.returned)
    log::info("trunk '{}': back to {} ({}), which comes before what was in use", trunk().name, host,
              server.address.text());
  place.up = {.reference = reference, .id = {}};
  place.up_server = server;
  place.up_since = Clock::now();
  place.first = 0;
  place.avoided = {};
  await_failback(place);
}

void Connector::await_failback(Place& place) {
  place.failback.reset();
  if (stopped_ || !could_return(place) || trunk().failback.count() == 0) return;
  place.failback =
      settings_.loop.after(trunk().failback * (1u << place.disappointments), [this, &place] { fail_back(place); });
}

// The connection stays up meanwhile.
void Connector::fail_back(Place& place) {
  if (stopped_ || !place.up.there() || !could_return(place)) return;
  const bool busy = !place.up.id.valid() || place.replacing || place.old.there() || place.query.pending() ||
                    place.handshake != nullptr;
  if (busy || !usable()) return await_failback(place);
  place.replacing = true;
  place.returning = true;
  place.first = 0;
  begin(place);
}

// None of the better targets is there.
void Connector::stay(Place& place) {
  place.returning = false;
  place.replacing = false;
  await_failback(place);
}

void Connector::try_later(Place& place) {
  if (stopped_) return;
  place.first = 0;
  place.avoided = {};
  const Clock::duration wait = place.back_off.next();
  log::info("trunk '{}': connecting again in {:.1f} s{}", trunk().name, std::chrono::duration<double>(wait).count(),
            config::is_datagram(trunk()) ? "; until then large requests go in fragments. If it takes no TCP, say "
                                           "large_requests = \"udp\""
                                         : "");
  place.timer = settings_.loop.after(wait, [this, &place] { begin(place); });
}

void Connector::admitted(std::uint64_t reference, ConnectionId connection) {
  for (Place& place : places_) {
    if (place.up.is(reference, {})) place.up.id = connection;
  }
}

void Connector::lost(const ipc::Gone& gone) {
  for (Place& place : places_) {
    if (place.old.is(gone.reference, gone.connection)) {
      place.old = {};
      return;
    }
    if (!place.up.is(gone.reference, gone.connection)) continue;
    if (place.old.there()) return keep_old(place);
    return drop(place, gone.again);
  }
}

void Connector::drop(Place& place, ipc::Gone::Again again) {
  place.up = {};
  place.replacing = false;
  place.returning = false;
  place.failback.reset();
  const bool elsewhere = again == ipc::Gone::Again::kElsewhere;
  constexpr unsigned kMostDisappointments = 4;
  place.disappointments = elsewhere ? std::min(place.disappointments + 1, kMostDisappointments) : 0;
  // A peer that takes connections and ends them at once is waited for like one that takes none.
  if (Clock::now() - place.up_since >= timing_.steady) {
    place.back_off.reset();
    place.hurried = false;
  }
  if (stopped_ || place.query.pending() || place.handshake != nullptr) return;  // what was to replace it comes
  // Its target may have another server; then the targets behind it, those before it at the end.
  place.first = elsewhere ? place.up_server.target : 0;
  if (elsewhere) {
    place.avoided = place.up_server.address;
    return begin(place);
  }
  if (again == ipc::Gone::Again::kAtOnce && !std::exchange(place.hurried, true)) return begin(place);
  if (!place.timer.pending()) try_later(place);
}

// The connection that was to replace another has come to nothing while that one is still there.
void Connector::keep_old(Place& place) {
  place.up = std::exchange(place.old, {});
  place.up_server = place.old_server;
  if (std::exchange(place.returned, false)) return stay(place);
  place.replacing = true;
  try_later(place);
}

void Connector::refused(std::uint64_t reference) {
  for (Place& place : places_) {
    if (!place.up.is(reference, {})) continue;
    if (place.old.there()) return keep_old(place);
    place.up = {};
    return try_later(place);
  }
}

Connector::Replacing Connector::replace(std::uint64_t reference, ConnectionId connection) {
  for (Place& place : places_) {
    if (place.old.is(reference, connection)) return Replacing::kUnderWay;  // done, even
    if (!place.up.is(reference, connection)) continue;
    if (std::exchange(place.returning, false)) {  // what is under way goes on through all targets
      place.up.id = connection;
      return Replacing::kBegun;
    }
    if (stopped_ || place.replacing) return Replacing::kUnderWay;
    place.up.id = connection;
    place.old = {};
    place.replacing = true;
    begin(place);
    return Replacing::kBegun;
  }
  return Replacing::kUnknown;
}

void Connector::remember(const std::string& host, Resumption resumption) {
  if (resumption.valid() && !stopped_) resumptions_.insert_or_assign(host, std::move(resumption));
}

void Connector::context_changed() {
  resumptions_.clear();
  if (stopped_) return;
  for (Place& place : places_) {
    if (place.query.pending() || place.handshake != nullptr) continue;
    if (place.up.there() && !place.replacing) continue;
    place.back_off.reset();
    begin(place);
  }
}

void Connector::stop(Clock::duration time) {
  stopped_ = true;
  for (Place& place : places_) {
    place.query.reset();
    place.timer.reset();
    place.failback.reset();
    if (place.handshake == nullptr) continue;
    if (place.handshake->connecting()) {
      place.handshake.reset();
    } else {
      place.handshake->hurry(time);
    }
  }
}

bool Connector::busy() const {
  return std::ranges::any_of(places_, [](const Place& place) { return place.handshake != nullptr; });
}

}  // namespace ktrunk::handshake
