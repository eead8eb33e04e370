#include "supervisor/trunk_states.h"

#include <algorithm>

#include "base/log.h"

namespace ktrunk::supervisor {
namespace {

using ipc::Health;

void take_newer(ipc::PeerHealth::Answer& answer, const ipc::PeerHealth& health) {
  const ipc::PeerHealth::Answer other = health.last_answer();
  if (other.status != 0 && (answer.status == 0 || other.at > answer.at)) answer = other;
}

}  // namespace

std::string_view trunk_state_name(TrunkState state) {
  switch (state) {
    case TrunkState::kDown:
      return "down";
    case TrunkState::kDegraded:
      return "degraded";
    case TrunkState::kUp:
      return "up";
  }
  return "?";
}

TrunkStates::TrunkStates(const config::Config& config, const ipc::SharedRegion& region)
    : config_(config), region_(region), views_(config.trunks.size(), View{.since = Clock::now()}) {}

TrunkStates::View TrunkStates::now_of(TrunkId id) const {
  const config::Trunk& trunk = config_.trunks[id.value];
  const ipc::TrunkEntry& entry = region_.trunk(id);
  View view;
  unsigned there = 0;
  unsigned usable = 0;
  bool all_well = true;
  const auto count = [&](const ipc::PeerHealth& health) {
    ++there;
    if (!health.is_down()) ++usable;
    if (health.is_down() || health.health() == Health::kDegraded) all_well = false;
    take_newer(view.answer, health);
  };
  unsigned wanted = trunk.targets.empty() ? 1 : trunk.connections;
  if (config::is_datagram(trunk)) {
    wanted = 1;
    for (unsigned place = 0; place < ipc::kMaxTargets; ++place) {
      if (entry.udp_address(place).empty()) {
        all_well = all_well && place != 0;
      } else {
        count(entry.udp[place].health);
      }
    }
  } else {
    for (unsigned place = 0; place < entry.places.load(std::memory_order_acquire); ++place) {
      const ConnectionId connection = entry.connection(place);
      if (connection.valid() && region_.slot(connection.slot).open_for(connection))
        count(region_.slot(connection.slot).health);
    }
  }
  if (usable != 0) view.state = all_well && there >= wanted ? TrunkState::kUp : TrunkState::kDegraded;
  return view;
}

void TrunkStates::look(Clock::time_point now) {
  for (std::uint16_t i = 0; i < views_.size(); ++i) {
    View& before = views_[i];
    View view = now_of(TrunkId{i});
    view.since = view.state == before.state ? before.since : now;
    if (view.state != before.state) {
      const auto level = view.state == TrunkState::kUp ? log::Level::kInfo : log::Level::kWarn;
      log::log(level, "trunk '{}' is {}", config_.trunks[i].name, trunk_state_name(view.state));
    }
    if (view.answer.status == 0) view.answer = before.answer;
    before = view;
  }
}

}  // namespace ktrunk::supervisor
