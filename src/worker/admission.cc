#include "worker/admission.h"

#include <algorithm>

namespace ktrunk::worker {

Admission::Admission(const config::Config& config, const ipc::SharedRegion& region)
    : config_(config),
      region_(region),
      counts_invites_(
          std::ranges::any_of(config.trunks, [](const config::Trunk& trunk) { return trunk.max_invites != 0; })) {}

bool Admission::admit_limited(const sip::Message& request, TrunkId trunk, std::uint64_t transaction) const {
  const sip::Method method = request.method();
  if (method == sip::Method::kAck || method == sip::Method::kCancel) return true;
  const config::Trunk& settings = config_.trunks[trunk.value];
  const Clock::time_point now = Clock::now();
  using Begun = ipc::InviteTable::Begun;
  Begun begun = Begun::kKnown;
  if (method == sip::Method::kInvite && settings.max_invites != 0) {
    begun = region_.invites(trunk).begin(transaction, settings.max_invites, now);
    if (begun == Begun::kTooMany) return false;
    if (begun == Begun::kKnown) return true;  // a retransmission of one that was let in
  }
  if (settings.max_requests_per_second == 0 || region_.trunk(trunk).rate.take(settings.max_requests_per_second, now))
    return true;
  if (begun == Begun::kNew) region_.invites(trunk).end(transaction);
  return false;
}

bool Admission::is_of_invite(const sip::Message& response) {
  const std::string_view cseq = response.value(sip::HeaderId::kCSeq);
  constexpr std::string_view kInvite = "INVITE";
  if (!cseq.ends_with(kInvite)) return false;
  const std::string_view before = cseq.substr(0, cseq.size() - kInvite.size());
  return before.ends_with(' ') || before.ends_with('\t') || before.ends_with('\n');
}

void Admission::tick(WorkerIndex self, Clock::time_point now) const {
  for (std::uint16_t trunk = 0; trunk < config_.trunks.size(); ++trunk) {
    if (config_.trunks[trunk].max_invites == 0) continue;
    if (ipc::watcher_of(TrunkId{trunk}, region_.sizes().workers) == self) region_.invites(TrunkId{trunk}).recount(now);
  }
}

}  // namespace ktrunk::worker
