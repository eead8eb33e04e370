// AddressCounts: how many connections each IP address has that it made to us (limits.connections_per_address). Exact,
// as the supervisor alone admits and frees them. An address costs memory only while it has connections.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>

#include "base/address.h"
#include "base/event_loop.h"

namespace ktrunk::supervisor {

class AddressCounts {
 public:
  // Counts one more, unless the address has `most` already. An IPv4 address and its IPv4-mapped form are one.
  enum class Outcome : std::uint8_t { kCounted, kFull };
  [[nodiscard]] Outcome add(const Address& peer, std::uint32_t most);
  void remove(const Address& peer);

  // One of the address's connections was refused. A number: a log line is due, and so many refusals are to be told; at
  // most one line per address and kQuietFor.
  static constexpr std::chrono::seconds kQuietFor{10};
  [[nodiscard]] std::optional<std::uint32_t> refused(const Address& peer, Clock::time_point now);

  [[nodiscard]] std::size_t addresses() const { return counts_.size(); }

 private:
  using Octets = std::array<unsigned char, 16>;
  struct Hash {
    std::size_t operator()(const Octets& octets) const;
  };
  struct Count {
    std::uint32_t connections = 0;
    std::uint32_t refusals = 0;  // since the last line
    std::optional<Clock::time_point> told;
  };
  [[nodiscard]] static Octets key(const Address& peer);

  std::unordered_map<Octets, Count, Hash> counts_;
};

}  // namespace ktrunk::supervisor
