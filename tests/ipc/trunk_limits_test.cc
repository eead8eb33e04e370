// What trunks are sent at most, and what is known of their peers, by many threads at once.
#include "ipc/trunk_limits.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "ipc/trunk_health.h"

namespace ktrunk::ipc {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Begun = InviteTable::Begun;
const std::chrono::steady_clock::time_point kNow{std::chrono::hours(1000)};

std::uint64_t hash_of(std::uint64_t number) { return (number + 1) * 0x9e3779b97f4a7c15u; }

struct Invites {
  explicit Invites(std::uint32_t most) : words(InviteTable::words_for(most)), table(words, count) {}
  std::vector<std::atomic<std::uint64_t>> words;
  std::atomic<std::uint32_t> count{0};
  InviteTable table;
};

TEST(RateLimitTest, ABurstOfASecondThenOneAtATime) {
  RateLimit limit;
  int taken = 0;
  for (int i = 0; i < 100; ++i) taken += limit.take(10, kNow) ? 1 : 0;
  EXPECT_EQ(taken, 10);
  EXPECT_FALSE(limit.take(10, kNow + milliseconds(99)));
  EXPECT_TRUE(limit.take(10, kNow + milliseconds(100)));
  EXPECT_FALSE(limit.take(10, kNow + milliseconds(100)));
  taken = 0;
  for (int i = 0; i < 100; ++i) taken += limit.take(10, kNow + seconds(60)) ? 1 : 0;
  EXPECT_EQ(taken, 10);  // what was not used for long is not saved
}

TEST(RateLimitTest, ManyThreadsGetNoMoreTogether) {
  RateLimit limit;
  std::atomic<int> taken = 0;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&] {
        for (int i = 0; i < 5000; ++i) taken += limit.take(1000, kNow) ? 1 : 0;
      });
  }
  EXPECT_EQ(taken, 1000);
}

TEST(InviteTableTest, CountsTransactionsNotMessages) {
  Invites invites(2);
  EXPECT_EQ(invites.table.begin(hash_of(1), 2, kNow), Begun::kNew);
  EXPECT_EQ(invites.table.begin(hash_of(1), 2, kNow), Begun::kKnown);
  EXPECT_EQ(invites.table.begin(hash_of(2), 2, kNow), Begun::kNew);
  EXPECT_EQ(invites.table.begin(hash_of(3), 2, kNow), Begun::kTooMany);
  EXPECT_EQ(invites.table.begin(hash_of(2), 2, kNow), Begun::kKnown);
  invites.table.end(hash_of(1));
  invites.table.end(hash_of(1));
  invites.table.end(hash_of(99));
  EXPECT_EQ(invites.table.count(), 1u);
  EXPECT_EQ(invites.table.begin(hash_of(3), 2, kNow), Begun::kNew);
}

TEST(InviteTableTest, TimerCEndsWhatIsNotAnswered) {
  Invites invites(2);
  EXPECT_EQ(invites.table.begin(hash_of(1), 2, kNow), Begun::kNew);
  EXPECT_EQ(invites.table.begin(hash_of(2), 2, kNow + seconds(100)), Begun::kNew);
  invites.table.recount(kNow + seconds(179));
  EXPECT_EQ(invites.table.count(), 2u);
  invites.table.recount(kNow + seconds(181));
  EXPECT_EQ(invites.table.count(), 1u);
  EXPECT_EQ(invites.table.begin(hash_of(1), 2, kNow + seconds(182)), Begun::kNew);
}

TEST(InviteTableTest, AWrongCountIsMended) {
  Invites invites(10);
  for (std::uint64_t i = 0; i < 5; ++i) EXPECT_EQ(invites.table.begin(hash_of(i), 10, kNow), Begun::kNew);
  invites.count = 10;  // workers have died
  EXPECT_EQ(invites.table.begin(hash_of(7), 10, kNow), Begun::kTooMany);
  invites.table.recount(kNow);
  EXPECT_EQ(invites.table.begin(hash_of(7), 10, kNow), Begun::kNew);
  EXPECT_EQ(invites.table.count(), 6u);
}

TEST(InviteTableTest, TheWholeLimitCanBeUsed) {
  constexpr std::uint32_t kMost = 10'000;
  Invites invites(kMost);
  std::uint32_t begun = 0;
  for (std::uint64_t i = 0; i < kMost + 100; ++i)
    begun += invites.table.begin(hash_of(i), kMost, kNow) == Begun::kNew ? 1 : 0;
  EXPECT_EQ(begun, kMost);
  for (std::uint64_t i = 0; i < kMost + 100; ++i) invites.table.end(hash_of(i));
  EXPECT_EQ(invites.table.count(), 0u);
}

TEST(InviteTableTest, ManyThreadsLeaveNothingBehind) {
  Invites invites(64);
  {
    std::vector<std::jthread> threads;
    for (std::uint64_t t = 0; t < 4; ++t)
      threads.emplace_back([&, t] {
        for (std::uint64_t i = 0; i < 20'000; ++i) {
          const std::uint64_t hash = hash_of(t << 32 | i);
          if (invites.table.begin(hash, 64, kNow) == Begun::kNew) invites.table.end(hash);
          EXPECT_LE(invites.table.count(), 64u + 4);
        }
      });
  }
  EXPECT_EQ(invites.table.count(), 0u);
  for (const auto& word : invites.words) EXPECT_EQ(word.load(), 0u);
}

TEST(InviteTableTest, EndsAfterATime) {
  std::vector<std::atomic<std::uint64_t>> words(InviteTable::words_for(4));
  std::atomic<std::uint32_t> count{0};
  InviteTable table(words, count, seconds(600));
  EXPECT_FALSE(table.holds(hash_of(1), kNow));
  EXPECT_EQ(table.begin(hash_of(1), 4, kNow), Begun::kNew);
  EXPECT_EQ(table.begin(hash_of(2), 4, kNow), Begun::kNew);
  EXPECT_TRUE(table.holds(hash_of(1), kNow + seconds(599)));
  EXPECT_FALSE(table.holds(hash_of(1), kNow + seconds(600)));
  table.end_after(hash_of(1), seconds(32), kNow + seconds(100));
  table.end_after(hash_of(3), seconds(32), kNow + seconds(100));
  EXPECT_TRUE(table.holds(hash_of(1), kNow + seconds(131)));
  EXPECT_FALSE(table.holds(hash_of(1), kNow + seconds(132)));
  EXPECT_FALSE(table.holds(hash_of(3), kNow + seconds(100)));
  table.recount(kNow + seconds(132));
  EXPECT_EQ(table.count(), 1u);
  EXPECT_TRUE(table.holds(hash_of(2), kNow + seconds(132)));
}

TEST(PeerHealthTest, AnswersCarryTheirTime) {
  PeerHealth health;
  EXPECT_EQ(health.health(), Health::kUnknown);
  EXPECT_EQ(health.last_answer().status, 0);
  health.answered(486, kNow + milliseconds(7));
  EXPECT_EQ(health.last_answer().status, 486);
  EXPECT_EQ(health.last_answer().at, kNow + milliseconds(7));
  health.set(Health::kDown);
  EXPECT_TRUE(health.is_down());
  health.clear();
  EXPECT_EQ(health.health(), Health::kUnknown);
  EXPECT_EQ(health.last_answer().status, 0);
}

}  // namespace
}  // namespace ktrunk::ipc
