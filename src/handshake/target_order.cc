#include "handshake/target_order.h"

#include <algorithm>
#include <numeric>
#include <random>

namespace ktrunk::handshake {

std::vector<std::vector<std::size_t>> spread_by_weight(const std::vector<config::Target>& targets, unsigned connections,
                                                       std::uint32_t seed) {
  std::vector<std::vector<std::size_t>> orders(connections, std::vector<std::size_t>(targets.size()));
  for (auto& order : orders) std::iota(order.begin(), order.end(), std::size_t{0});
  std::minstd_rand random(seed);
  std::size_t begin = 0;
  while (begin < targets.size()) {
    std::size_t end = begin;
    double sum = 0;
    for (; end < targets.size() && targets[end].priority == targets[begin].priority; ++end) sum += targets[end].weight;
    // Points at equal distances on the line of all weights.
    const double step = sum / connections;
    double point = std::uniform_real_distribution<double>(0, step)(random);
    for (auto& order : orders) {
      std::size_t chosen = begin;
      for (double reach = targets[begin].weight; reach <= point && chosen + 1 < end; reach += targets[chosen].weight)
        ++chosen;
      std::rotate(order.begin() + static_cast<std::ptrdiff_t>(begin),
                  order.begin() + static_cast<std::ptrdiff_t>(chosen),
                  order.begin() + static_cast<std::ptrdiff_t>(chosen) + 1);
      point += step;
    }
    begin = end;
  }
  return orders;
}

}  // namespace ktrunk::handshake
