// LargeRequests: requests to UDP targets that are too large for a datagram, and go by TCP where trunk.large_requests
// says so (RFC 3261 18.1.1). A CANCEL, and the ACK to a response other than 2xx, go as their INVITE went
// (9.1, 17.1.1.3), whatever their own size: which INVITEs went by TCP is in memory that all workers share
// (ipc/trunk_limits.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "config/config.h"
#include "ipc/shared_region.h"
#include "sip/flow.h"
#include "sip/message.h"
#include "worker/connection.h"

namespace ktrunk::worker {

class LargeRequests {
 public:
  // Both outlive it.
  LargeRequests(const config::Config& config, const ipc::SharedRegion& region) : config_(config), region_(region) {}

  // Whether any request to this trunk's UDP targets goes by TCP.
  [[nodiscard]] bool concern(TrunkId trunk) const {
    return trunk.valid() && config::is_large_by_tcp(config_.trunks[trunk.value]);
  }
  // Whether this one is to, being `large` or not for a datagram, there being a connection. An INVITE of which it is
  // true counts as gone that way. False also when too many are known: it and what follows it go by UDP then.
  // Precondition: concern(trunk).
  [[nodiscard]] bool take(const sip::Message& request, TrunkId trunk, std::uint64_t transaction, bool large) const;
  // A response has come by this flow.
  void answered(const sip::Message& response, const sip::Flow& source, std::uint64_t transaction) const;
  // About once a second, in every worker.
  void tick(WorkerIndex self, Clock::time_point now) const;

 private:
  const config::Config& config_;
  const ipc::SharedRegion& region_;
};

}  // namespace ktrunk::worker
