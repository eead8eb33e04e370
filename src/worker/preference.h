// Rendezvous hashing: of several ways a transaction takes the one that it likes best. So a way that comes or goes moves
// the transactions of that way alone, and a CANCEL still follows its INVITE.
#pragma once

#include <cmath>
#include <cstdint>

namespace ktrunk::worker {

// How much a transaction, by its hash, likes a way, by its number.
[[nodiscard]] inline std::uint64_t preference(std::uint64_t affinity, std::uint32_t way) {
  std::uint64_t mixed = affinity ^ (std::uint64_t{way} + 1) * 0x9e3779b97f4a7c15u;
  mixed = (mixed ^ mixed >> 32) * 0xd6e8feb86659fd93u;
  return mixed ^ mixed >> 32;
}

// The same where ways have weights: each is liked best by a share of all transactions that is as its weight.
[[nodiscard]] inline double weighted_preference(std::uint64_t affinity, std::uint32_t way, unsigned weight) {
  constexpr double kTwoToMinus53 = 0x1p-53;
  const double between_0_and_1 = (static_cast<double>(preference(affinity, way) >> 11) + 0.5) * kTwoToMinus53;
  return -static_cast<double>(weight) / std::log(between_0_and_1);
}

}  // namespace ktrunk::worker
