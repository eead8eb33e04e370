#include "handshake/connector.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace ktrunk::handshake {
namespace {

// Of one target, in one round.
constexpr std::size_t kMostAddresses = 8;

}  // namespace

Connector::Connector(const HandshakeSettings& settings, Resolver& resolver, TrunkId trunk, const TlsContext* context,
                     Timing timing, std::span<const ConnectionId> living, Connected connected)
    : settings_(settings),
      resolver_(resolver),
      trunk_(trunk),
      context_(context),
      timing_(timing),
      connected_(std::move(connected)) {
  const unsigned wanted = this->trunk().connections;
  places_.reserve(wanted);
  for (unsigned i = 0; i < wanted; ++i) {
    Place& place = places_.emplace_back(BackOff(timing.first_wait, timing.longest_wait));
    if (i < living.size()) {
      place.inherited = living[i];
      place.up_since = Clock::now();
    }
  }
  for (Place& place : places_) {
    if (!place.inherited.valid()) begin(place);
  }
}

void Connector::begin(Place& place) {
  place.target = 0;
  try_target(place);
}

void Connector::try_target(Place& place) {
  if (stopped_) return;
  const std::vector<config::Target>& targets = trunk().targets;
  while (place.target < targets.size() && targets[place.target].transport == config::Transport::kUdp) ++place.target;
  if (place.target == targets.size()) return try_later(place);
  const config::Target& target = targets[place.target];
  place.query =
      resolver_.resolve(target.host, target.port, [this, &place](const Resolved& result) { resolved(place, result); });
}

void Connector::resolved(Place& place, const Resolved& result) {
  place.address = 0;
  place.addresses.clear();
  if (result) {
    place.addresses.assign(result->begin(),
                           result->begin() + static_cast<std::ptrdiff_t>(std::min(result->size(), kMostAddresses)));
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
    auto handshake = Handshake::connect(
        settings_, std::move(origin), target.transport == config::Transport::kTls ? context_ : nullptr,
        std::move(resumption), [this, &place](Result<Secured> result) { handshake_done(place, std::move(result)); });
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
  const std::unique_ptr<Handshake> ended = std::move(place.handshake);
  if (!result) return try_address(place);
  const std::string host = trunk().targets[place.target].host;
  remember(host, std::move(result->resumption));
  place.reference = connected_(std::move(*result), host);
  place.up_since = Clock::now();
  if (place.reference == 0) try_later(place);
}

void Connector::try_later(Place& place) {
  if (stopped_) return;
  const Clock::duration wait = place.back_off.next();
  log::info("trunk '{}': connecting again in {:.1f} s", trunk().name, std::chrono::duration<double>(wait).count());
  place.timer = settings_.loop.after(wait, [this, &place] { begin(place); });
}

void Connector::drop(Place& place) {
  place.reference = 0;
  place.inherited = {};
  // A peer that takes connections and ends them at once is waited for like one that takes none.
  if (Clock::now() - place.up_since >= timing_.steady) place.back_off.reset();
  try_later(place);
}

Connector::Place* Connector::find(std::uint64_t reference) {
  const auto found = std::ranges::find(places_, reference, &Place::reference);
  return reference == 0 || found == places_.end() ? nullptr : &*found;
}

void Connector::lost(std::uint64_t reference) {
  if (Place* place = find(reference)) drop(*place);
}

void Connector::lost(ConnectionId inherited) {
  const auto found = std::ranges::find(places_, inherited, &Place::inherited);
  if (inherited.valid() && found != places_.end()) drop(*found);
}

void Connector::refused(std::uint64_t reference) {
  if (Place* place = find(reference)) {
    place->reference = 0;
    try_later(*place);
  }
}

void Connector::remember(const std::string& host, Resumption resumption) {
  if (resumption.valid() && !stopped_) resumptions_.insert_or_assign(host, std::move(resumption));
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
