#include "handshake/admission.h"

#include <algorithm>
#include <iterator>

namespace ktrunk::handshake {
namespace {

// After which an address's bucket is full again: nothing needs remembering.
constexpr std::chrono::seconds kRest{1};

std::uint32_t share_of(std::uint32_t all, unsigned processes) {
  return std::max<std::uint32_t>(1, all / processes + (all % processes == 0 ? 0 : 1));
}

}  // namespace

AdmissionLimits AdmissionLimits::share(const config::Limits& limits, unsigned processes) {
  processes = std::max(processes, 1U);
  return {.handshakes = share_of(limits.handshakes, processes),
          .handshakes_per_address = limits.handshakes_per_address,
          .handshake_rate = share_of(limits.handshake_rate, processes),
          .connections_per_address = limits.connections_per_address};
}

std::string_view Admission::limit_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::kAddressConnections:
      return "limits.connections_per_address";
    case Verdict::kAddressHandshakes:
      return "limits.handshakes_per_address";
    case Verdict::kAddressRate:
      return "limits.handshake_rate";
    case Verdict::kAdmitted:
      break;
  }
  return {};
}

Admission::Entries::iterator Admission::entry_of(const Address& peer, Clock::time_point now) {
  const AddressBlock address(peer);
  if (const auto found = entries_.find(address); found != entries_.end()) {
    if (found->second.is_idle) idle_.splice(idle_.end(), idle_, found->second.idle);
    return found;
  }
  forget_idle(now);
  const auto made = entries_.try_emplace(address, TokenBucket(rate(), now)).first;
  set_idle(made);
  return made;
}

// A few at a time: as addresses come one by one, they go no slower.
void Admission::forget_idle(Clock::time_point now) {
  constexpr int kAtOnce = 8;
  for (int i = 0; i < kAtOnce && !idle_.empty(); ++i) {
    const auto oldest = entries_.find(idle_.front());
    if (now - oldest->second.begins.counted() < kRest && entries_.size() < kMostAddresses) return;
    idle_.pop_front();
    entries_.erase(oldest);
  }
}

void Admission::set_idle(Entries::iterator at) {
  Entry& entry = at->second;
  if (entry.is_idle || entry.connections != 0 || !entry.handshakes.empty()) return;
  entry.idle = idle_.insert(idle_.end(), at->first);
  entry.is_idle = true;
}

void Admission::set_busy(Entry& entry) {
  if (!entry.is_idle) return;
  idle_.erase(entry.idle);
  entry.is_idle = false;
}

// A burst is as many as a second allows, so that after a second of rest nothing needs remembering.
TokenBucket::Limits Admission::rate() const {
  const double rate = limits_.handshake_rate;
  return {.burst = rate, .per_second = rate};
}

void Admission::rank(const Entries::value_type& item) {
  const auto& handshakes = item.second.handshakes;
  if (!handshakes.empty()) ranks_.insert({handshakes.size(), *handshakes.begin(), item.first});
}

void Admission::unrank(const Entries::value_type& item) {
  const auto& handshakes = item.second.handshakes;
  if (!handshakes.empty()) ranks_.erase({handshakes.size(), *handshakes.begin(), item.first});
}

Admission::Answer Admission::handshake(std::uint64_t key, const Address& peer, Clock::time_point now) {
  const auto at = entry_of(peer, now);
  Entry& entry = at->second;
  if (entry.connections >= limits_.connections_per_address) return {Verdict::kAddressConnections, {}};
  if (entry.handshakes.size() >= limits_.handshakes_per_address) return {Verdict::kAddressHandshakes, {}};
  if (!entry.begins.take(rate(), now)) return {Verdict::kAddressRate, {}};
  Answer answer;
  if (by_key_.size() >= limits_.handshakes) answer.give_up = take_victim();
  set_busy(entry);
  unrank(*at);
  entry.handshakes.insert(key);
  rank(*at);
  by_key_.emplace(key, at);
  return answer;
}

Admission::Verdict Admission::plain(const Address& peer, Clock::time_point now) {
  const auto at = entry_of(peer, now);
  return at->second.connections >= limits_.connections_per_address ? Verdict::kAddressConnections : Verdict::kAdmitted;
}

void Admission::remove(std::uint64_t key, Entries::iterator at) {
  unrank(*at);
  at->second.handshakes.erase(key);
  rank(*at);
  set_idle(at);
}

void Admission::ended(std::uint64_t key) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return;
  remove(key, found->second);
  by_key_.erase(found);
}

std::optional<std::uint64_t> Admission::take_victim() {
  if (ranks_.empty()) return std::nullopt;
  const std::uint64_t key = ranks_.begin()->oldest;
  ended(key);
  return key;
}

void Admission::opened(const Address& peer, Clock::time_point now) {
  Entry& entry = entry_of(peer, now)->second;
  set_busy(entry);
  ++entry.connections;
}

void Admission::closed(const Address& peer) {
  const auto at = entries_.find(AddressBlock(peer));
  if (at == entries_.end() || at->second.connections == 0) return;
  --at->second.connections;
  set_idle(at);
}

}  // namespace ktrunk::handshake
