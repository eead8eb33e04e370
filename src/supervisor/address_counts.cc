#include "supervisor/address_counts.h"

#include <cstring>
#include <functional>
#include <string_view>
#include <utility>

namespace ktrunk::supervisor {

// Every address in the form of IPv6; IPv4 as RFC 4291 2.5.5.2 maps it.
AddressCounts::Octets AddressCounts::key(const Address& peer) {
  Octets octets{};
  const std::string_view ip = peer.ip_bytes();
  if (ip.size() == 4) {
    octets[10] = octets[11] = 0xff;
    std::memcpy(octets.data() + 12, ip.data(), 4);
  } else if (ip.size() == octets.size()) {
    std::memcpy(octets.data(), ip.data(), ip.size());
  }
  return octets;
}

std::size_t AddressCounts::Hash::operator()(const Octets& octets) const {
  return std::hash<std::string_view>{}({reinterpret_cast<const char*>(octets.data()), octets.size()});
}

AddressCounts::Outcome AddressCounts::add(const Address& peer, std::uint32_t most) {
  Count& count = counts_[key(peer)];
  if (count.connections >= most) return Outcome::kFull;
  ++count.connections;
  return Outcome::kCounted;
}

void AddressCounts::remove(const Address& peer) {
  const auto found = counts_.find(key(peer));
  if (found == counts_.end()) return;
  if (--found->second.connections == 0) counts_.erase(found);
}

std::optional<std::uint32_t> AddressCounts::refused(const Address& peer, Clock::time_point now) {
  Count& count = counts_[key(peer)];
  ++count.refusals;
  if (count.told && now - *count.told < kQuietFor) return std::nullopt;
  count.told = now;
  return std::exchange(count.refusals, 0);
}

}  // namespace ktrunk::supervisor
