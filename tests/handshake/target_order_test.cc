#include "handshake/target_order.h"

#include <gtest/gtest.h>

#include <map>

namespace ktrunk::handshake {
namespace {

std::vector<config::Target> targets(const std::vector<std::pair<unsigned, unsigned>>& priorities_and_weights) {
  std::vector<config::Target> list;
  for (const auto& [priority, weight] : priorities_and_weights) {
    config::Target target;
    target.priority = static_cast<std::uint16_t>(priority);
    target.weight = static_cast<std::uint16_t>(weight);
    list.push_back(target);
  }
  return list;
}

TEST(TargetOrder, IsTheFilesWhereEachHasAPriority) {
  for (const auto& order : spread_by_weight(targets({{1, 1}, {2, 9}, {3, 1}}), 5, 17))
    EXPECT_EQ(order, (std::vector<std::size_t>{0, 1, 2}));
}

TEST(TargetOrder, ConnectionsBeginWithTargetsAsTheirWeightsSay) {
  for (std::uint32_t seed = 0; seed < 200; ++seed) {
    std::map<std::size_t, int> first;
    std::map<std::size_t, int> last;
    for (const auto& order : spread_by_weight(targets({{1, 3}, {1, 1}, {2, 1}, {2, 1}}), 8, seed)) {
      ASSERT_EQ(order.size(), 4u);
      EXPECT_LT(order[1], 2u);  // the others of a priority come before the next one
      ++first[order[0]];
      ++last[order[2]];
    }
    EXPECT_EQ(first[0], 6);
    EXPECT_EQ(first[1], 2);
    EXPECT_EQ(last[2], 4);
    EXPECT_EQ(last[3], 4);
  }
}

TEST(TargetOrder, ALoneConnectionFallsToEachAsItsWeightSays) {
  int heavy = 0;
  constexpr int kSeeds = 2000;
  for (std::uint32_t seed = 1; seed <= kSeeds; ++seed)
    heavy += spread_by_weight(targets({{1, 3}, {1, 1}}), 1, seed * 2654435761u)[0][0] == 0 ? 1 : 0;
  EXPECT_GT(heavy, kSeeds * 65 / 100);
  EXPECT_LT(heavy, kSeeds * 85 / 100);
}

}  // namespace
}  // namespace ktrunk::handshake
