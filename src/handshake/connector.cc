#include "handshake/connector.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace ktrunk::handshake {

Connector::Connector(const HandshakeSettings& settings, Resolver& resolver, TrunkId trunk,
                     const ContextsInForce& contexts, Timing timing, std::span<const ConnectionId> living,
                     Connected connected)
    : settings_(settings),
      resolver_(resolver),
      trunk_(trunk),
      contexts_(contexts),
      timing_(timing),
      connected_(std::move(connected)) {
  const unsigned wanted = this->trunk().connections;
  places_.reserve(wanted);
  for (unsigned i = 0; i < wanted; ++i) {
    Place& place = places_.emplace_back(BackOff(timing.first_wait, timing.longest_wait));
    if (i < living.size()) {
      place.up.id = living[i];
      place.up_since = Clock::now();
    }
  }
  for (Place& place : places_) {
    if (!place.up.there()) begin(place);
  }
}

// Without its context a trunk is down: trying its other targets in plain TCP would be a surprise.
bool Connector::usable() const {
  return contexts_.trunk(trunk_) != nullptr || std::ranges::find(trunk().targets, config::Transport::kTls,
                                                                 &config::Target::transport) == trunk().targets.end();
}

void Connector::begin(Place& place) {
  place.timer.reset();
  place.target = 0;
  if (usable()) try_target(place);  // else until context_changed()
}

void Connector::try_target(Place& place) {
  if (stopped_) return;
  const std::vector<config::Target>& targets = trunk().targets;
  while (place.target < targets.size() && targets[place.target].transport == config::Transport::kUdp) ++place.target;
  if (place.target == targets.size()) return try_later(place);
  const config::Target& target = targets[place.target];
  place.query = resolver_.resolve(target, [this, &place](const Resolved& result) { resolved(place, result); });
}

void Connector::resolved(Place& place, const Resolved& result) {
  place.address = 0;
  place.addresses.clear();
  if (result) {
    place.addresses = *result;
  } else {
    log::warn("trunk '{}': {}", trunk().name, result.error().what);
  }
  try_address(place);
}

void Connector::try_address(Place& place) {
  const config::Target& target = trunk().targets[place.target];
  while (!stopped_ && place.address < place.addresses.size()) {
    Origin origin{.role = ConnectionRole::kConnected,
                  .transport = target.transport,
                  .trunk = trunk_,
                  .listener = trunk().listener,
                  .peer = place.addresses[place.address++],
                  .owner = fmt::format("trunk '{}'", trunk().name),
                  .host = target.host};
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
  ++place.target;
  try_target(place);
}

void Connector::handshake_done(Place& place, Result<Secured> result) {
  const std::shared_ptr<const TlsContext> context = std::move(place.context);
  const std::unique_ptr<Handshake> ended = std::move(place.handshake);
  if (!result) return try_address(place);
  const std::string host = trunk().targets[place.target].host;
  if (context == contexts_.trunk(trunk_)) remember(host, std::move(result->resumption));
  const std::uint64_t reference = connected_(std::move(*result), host, place.replacing ? place.up.id : ConnectionId{});
  if (reference == 0) return try_later(place);
  if (std::exchange(place.replacing, false)) place.old = place.up;
  place.up = {.reference = reference, .id = {}};
  place.up_since = Clock::now();
}

void Connector::try_later(Place& place) {
  if (stopped_) return;
  const Clock::duration wait = place.back_off.next();
  log::info("trunk '{}': connecting again in {:.1f} s", trunk().name, std::chrono::duration<double>(wait).count());
  place.timer = settings_.loop.after(wait, [this, &place] { begin(place); });
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
  // A peer that takes connections and ends them at once is waited for like one that takes none.
  if (Clock::now() - place.up_since >= timing_.steady) {
    place.back_off.reset();
    place.hurried = false;
  }
  if (stopped_ || place.query.pending() || place.handshake != nullptr) return;  // what was to replace it comes
  if (again == ipc::Gone::Again::kAtOnce && !std::exchange(place.hurried, true)) return begin(place);
  if (!place.timer.pending()) try_later(place);
}

// The connection that was to replace another has come to nothing while that one is still there.
void Connector::keep_old(Place& place) {
  place.up = std::exchange(place.old, {});
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
