// TrunkStates: whether each trunk is up, for the status and the log, from what stands in the shared region. The workers
// do not look here: they see connections and targets for themselves.
//
//   down      no connection, or no address of a UDP target; or none of them answers OPTIONS (ipc/trunk_health.h)
//   degraded  fewer connections than wanted, or one that answers OPTIONS badly; the first UDP target is not up
//   up        all else
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/event_loop.h"
#include "base/id.h"
#include "config/config.h"
#include "ipc/shared_region.h"

namespace ktrunk::supervisor {

enum class TrunkState : std::uint8_t { kDown, kDegraded, kUp };
[[nodiscard]] std::string_view trunk_state_name(TrunkState state);

class TrunkStates {
 public:
  struct View {
    TrunkState state = TrunkState::kDown;
    Clock::time_point since{};
    ipc::PeerHealth::Answer answer;  // to OPTIONS, the last one of any of its peers
  };
  // Both outlive it.
  TrunkStates(const config::Config& config, const ipc::SharedRegion& region);

  // Looks at all trunks, and logs each change.
  void look(Clock::time_point now);
  [[nodiscard]] View view(TrunkId trunk) const { return views_[trunk.value]; }

 private:
  [[nodiscard]] View now_of(TrunkId trunk) const;

  const config::Config& config_;
  const ipc::SharedRegion& region_;
  std::vector<View> views_;  // by trunk
};

}  // namespace ktrunk::supervisor
