// Target order: in which order each of a trunk's connections tries its targets, pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "config/config.h"

namespace ktrunk::handshake {

// For each of `connections` the places in targets, which are sorted by priority: in that order. Of those with the same
// priority each connection begins with one of its own, so that their numbers are as the weights, to the nearest whole;
// which of them gets the rest, the seed decides. The others follow in their order.
[[nodiscard]] std::vector<std::vector<std::size_t>> spread_by_weight(const std::vector<config::Target>& targets,
                                                                     unsigned connections, std::uint32_t seed);

}  // namespace ktrunk::handshake
