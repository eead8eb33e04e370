#include "worker/large_requests.h"

#include "worker/admission.h"

namespace ktrunk::worker {
namespace {

// How long the ACK to a response other than 2xx may be sent again (Timer H, RFC 3261 17.2.1).
constexpr std::chrono::seconds kTimerH{32};

}  // namespace

bool LargeRequests::take(const sip::Message& request, TrunkId trunk, std::uint64_t transaction, bool large) const {
  using Begun = ipc::InviteTable::Begun;
  switch (request.method()) {
    case sip::Method::kInvite:
      return large &&
             region_.large_invites(trunk).begin(transaction, ipc::kMostLargeInvites, Clock::now()) != Begun::kTooMany;
    case sip::Method::kCancel:
      return region_.large_invites(trunk).holds(transaction, Clock::now());
    case sip::Method::kAck:  // to a 2xx, it is a transaction of its own
      return large || region_.large_invites(trunk).holds(transaction, Clock::now());
    default:
      return large;
  }
}

void LargeRequests::answered(const sip::Message& response, const sip::Flow& source, std::uint64_t transaction) const {
  if (!concern(source.trunk) || response.status() < 200 || !Admission::is_of_invite(response)) return;
  if (response.status() < 300) return region_.large_invites(source.trunk).end(transaction);
  region_.large_invites(source.trunk).end_after(transaction, kTimerH, Clock::now());
}

void LargeRequests::tick(WorkerIndex self, Clock::time_point now) const {
  for (std::uint16_t trunk = 0; trunk < config_.trunks.size(); ++trunk) {
    if (concern(TrunkId{trunk}) && ipc::watcher_of(TrunkId{trunk}, region_.sizes().workers) == self)
      region_.large_invites(TrunkId{trunk}).recount(now);
  }
}

}  // namespace ktrunk::worker
