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
      targets_(config::connection_targets(this->trunk())),
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
      place.up_target = targets_.size() - 1;  // not known: it may be the last one
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

std::size_t Connector::target_of(const Place& place) const { return (place.first + place.tried) % targets_.size(); }

void Connector::begin(Place& place) {
  place.timer.reset();
  place.tried = 0;
  if (usable()) try_target(place);  // else until context_changed()
}

void Connector::try_target(Place& place) {
  if (stopped_) return;
  const std::size_t end = place.returning ? place.up_target : targets_.size();
  if (place.tried >= end) return place.returning ? stay(place) : try_later(place);
  const config::Target& target = targets_[target_of(place)];
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
  const config::Target& target = targets_[target_of(place)];
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
  ++place.tried;
  try_target(place);
}

void Connector::handshake_done(Place& place, Result<Secured> result) {
  const std::shared_ptr<const TlsContext> context = std::move(place.context);
  const std::unique_ptr<Handshake> ended = std::move(place.handshake);
  if (!result) return try_address(place);
  const std::size_t target = target_of(place);
  const std::string host = targets_[target].host;
  if (context == contexts_.trunk(trunk_)) remember(host, std::move(result->resumption));
  const std::uint64_t reference = connected_(std::move(*result), host, place.replacing ? place.up.id : ConnectionId{});
  if (reference == 0) return place.returning ? stay(place) : try_later(place);
  if (std::exchange(place.replacing, false)) {
    place.old = place.up;
    place.old_target = place.up_target;
  }
  place.returned = std::exchange(place.returning, false);
  if (place.returned) log::info("trunk '{}': back to {}, which comes before the target in use", trunk().name, host);
  place.up = {.reference = reference, .id = {}};
  place.up_target = target;
  place.up_since = Clock::now();
  place.first = 0;
  await_failback(place);
}

void Connector::await_failback(Place& place) {
  place.failback.reset();
  if (stopped_ || place.up_target == 0 || trunk().failback.count() == 0) return;
  place.failback =
      settings_.loop.after(trunk().failback * (1u << place.disappointments), [this, &place] { fail_back(place); });
}

// The connection stays up meanwhile.
void Connector::fail_back(Place& place) {
  if (stopped_ || !place.up.there() || place.up_target == 0) return;
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
  const Clock::duration wait = place.back_off.next();
  log::info("trunk '{}': connecting again in {:.1f} s", trunk().name, std::chrono::duration<double>(wait).count());
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
  const bool elsewhere = again == ipc::Gone::Again::kElsewhere && targets_.size() > 1;
  constexpr unsigned kMostDisappointments = 4;
  place.disappointments = elsewhere ? std::min(place.disappointments + 1, kMostDisappointments) : 0;
  // A peer that takes connections and ends them at once is waited for like one that takes none.
  if (Clock::now() - place.up_since >= timing_.steady) {
    place.back_off.reset();
    place.hurried = false;
  }
  if (stopped_ || place.query.pending() || place.handshake != nullptr) return;  // what was to replace it comes
  place.first = elsewhere ? (place.up_target + 1) % targets_.size() : 0;
  if (elsewhere) return begin(place);
  if (again == ipc::Gone::Again::kAtOnce && !std::exchange(place.hurried, true)) return begin(place);
  if (!place.timer.pending()) try_later(place);
}

// The connection that was to replace another has come to nothing while that one is still there.
void Connector::keep_old(Place& place) {
  place.up = std::exchange(place.old, {});
  place.up_target = place.old_target;
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
