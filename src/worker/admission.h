// Admission: whose requests are taken at all, and how many a trunk gets (trunk.max_requests_per_second, max_invites),
// of all workers together (ipc/trunk_limits.h). Limits are for requests that the route table sends to the trunk: those
// inside a dialog, ACKs and CANCELs are let pass, as they belong to what was let in.
#pragma once

#include <cstdint>
#include <string_view>

#include "config/config.h"
#include "ipc/shared_region.h"
#include "sip/flow.h"
#include "sip/message.h"
#include "worker/connection.h"

namespace ktrunk::worker {

class Admission {
 public:
  // Both outlive it.
  Admission(const config::Config& config, const ipc::SharedRegion& region);

  // What is to become of requests that come by this flow.
  [[nodiscard]] config::Strangers treatment(const sip::Flow& source) const {
    if (source.trunk.valid() || source.listener.value >= config_.listeners.size()) return config::Strangers::kServe;
    return config_.listeners[source.listener.value].strangers;
  }

  // A request goes to the trunk. False: it would be one too many.
  [[nodiscard]] bool admit(const sip::Message& request, TrunkId trunk, std::uint64_t transaction) const {
    const config::Trunk& settings = config_.trunks[trunk.value];
    if (settings.max_requests_per_second == 0 && settings.max_invites == 0) return true;
    return admit_limited(request, trunk, transaction);
  }
  // One that was admitted has not gone after all; or a response has come from the trunk.
  void ended(TrunkId trunk, std::uint64_t transaction) const {
    if (trunk.valid() && config_.trunks[trunk.value].max_invites != 0) region_.invites(trunk).end(transaction);
  }
  void answered(const sip::Message& response, const sip::Flow& source, std::uint64_t transaction) const {
    if (counts_invites_ && response.status() >= 200 && is_of_invite(response)) ended(source.trunk, transaction);
  }
  [[nodiscard]] static bool is_of_invite(const sip::Message& response);
  // About once a second, in every worker.
  void tick(WorkerIndex self, Clock::time_point now) const;

 private:
  [[nodiscard]] bool admit_limited(const sip::Message& request, TrunkId trunk, std::uint64_t transaction) const;

  const config::Config& config_;
  const ipc::SharedRegion& region_;
  bool counts_invites_;  // for any trunk
};

}  // namespace ktrunk::worker
