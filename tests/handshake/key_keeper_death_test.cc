// Death of the handshake process at every point of a key update: its successor, with the vault and what the supervisor
// says again, must come to the same end.
#include <gtest/gtest.h>
#include <linux/tls.h>

#include <functional>
#include <string>

#include "handshake/keeper_bench.h"

namespace ktrunk::test {
namespace {

using What = ipc::Resume::What;

// Runs the scene once without a death, to count its points, then with a death at each of them.
void at_every_point(const KeeperBench::Scene& scene, const std::function<void(KeeperBench&)>& run) {
  int points = 0;
  {
    KeeperBench bench(scene);
    bench.die_at(-1);
    run(bench);
    points = bench.points();
  }
  ASSERT_GT(points, 0);
  for (int point = 0; point < points; ++point) {
    SCOPED_TRACE("death at point " + std::to_string(point) + " of " + std::to_string(points));
    KeeperBench bench(scene);
    bench.die_at(point);
    run(bench);
    EXPECT_TRUE(bench.died());
    EXPECT_TRUE(bench.faults.empty());
    if (testing::Test::HasFailure()) return;
  }
}

void finish_updates(KeeperBench& bench) {
  for (int i = 0; i < 4 && bench.update_under_way(); ++i) bench.control_sent();
  EXPECT_FALSE(bench.update_under_way());
}

TEST(KeyKeeperDeath, OverAKeyUpdateOfThePeer) {
  at_every_point({}, [](KeeperBench& bench) {
    bench.record(key_update(Asks::kNo));
    EXPECT_TRUE(bench.receives_under(1));
    EXPECT_EQ(bench.resumes.size(), 1u);
    EXPECT_EQ(bench.entry().receive.pending(), nullptr);
    EXPECT_FALSE(bench.octets_in_vault(bench.receive));
    bench.record(key_update(Asks::kNo));
    EXPECT_TRUE(bench.receives_under(2));
    EXPECT_EQ(bench.resumes.size(), 2u);
  });
}

TEST(KeyKeeperDeath, OverAKeyUpdateThatAsksForOurs) {
  at_every_point({}, [](KeeperBench& bench) {
    bench.record(key_update(Asks::kYes));
    EXPECT_TRUE(bench.receives_under(1));
    ASSERT_GE(bench.controls.size(), 1u) << "the peer gets its answer";
    bench.control_sent();
    EXPECT_TRUE(bench.sends_under(1));
    finish_updates(bench);
    bench.record(key_update(Asks::kYes));
    EXPECT_TRUE(bench.receives_under(2));
    const auto updates = static_cast<unsigned>(bench.controls.size());
    bench.control_sent();
    finish_updates(bench);
    EXPECT_TRUE(bench.sends_under(updates)) << "as often as the peer was told";
    EXPECT_EQ(bench.entry().transmit.pending(), nullptr);
  });
}

TEST(KeyKeeperDeath, OverOurOwnKeyUpdate) {
  at_every_point({}, [](KeeperBench& bench) {
    bench.ask(ipc::Renew::Which::kReceive);
    ASSERT_EQ(bench.controls.size(), 1u);
    bench.control_sent();
    EXPECT_TRUE(bench.sends_under(1));
    bench.record(key_update(Asks::kNo));
    EXPECT_TRUE(bench.receives_under(1));
    EXPECT_TRUE(bench.sends_under(1));
    EXPECT_FALSE(bench.octets_in_vault(bench.transmit));
  });
}

TEST(KeyKeeperDeath, OverAKeyUpdateInPieces) {
  const std::string update = key_update(Asks::kNo);
  for (std::size_t first = 1; first < update.size(); ++first) {
    for (std::size_t second = first; second < update.size(); ++second) {
      at_every_point({}, [&](KeeperBench& bench) {
        bench.record(update.substr(0, first));
        if (second > first) bench.record(update.substr(first, second - first));
        EXPECT_TRUE(bench.receives_under(0));
        bench.record(update.substr(second));
        EXPECT_TRUE(bench.receives_under(1));
        bench.record(update);
        EXPECT_TRUE(bench.receives_under(2));
      });
    }
  }
}

TEST(KeyKeeperDeath, OverATicketInPieces) {
  const std::string all = ticket(5000) + key_update(Asks::kNo);
  for (const std::size_t cut : {1u, 3u, 4u, 5u, 1000u, 5016u, 5018u, 5021u}) {
    at_every_point({.self = ktls::Endpoint::kClient}, [&](KeeperBench& bench) {
      bench.record(all.substr(0, cut));
      bench.record(all.substr(cut));
      EXPECT_TRUE(bench.receives_under(1));
      EXPECT_EQ(bench.resumes.size(), 2u);
      bench.record(ticket());
      bench.record(key_update(Asks::kNo));
      EXPECT_TRUE(bench.receives_under(2));
    });
  }
}

TEST(KeyKeeperDeath, OverARefusedRenegotiation) {
  const KeeperBench::Scene scene{.version = ktls::Version::kTls12, .self = ktls::Endpoint::kServer};
  const std::string hello = std::string("\1\0\1\0", 4) + std::string(256, 'h');
  at_every_point(scene, [&](KeeperBench& bench) {
    bench.record(hello.substr(0, 100));
    bench.record(hello.substr(100));
    EXPECT_GE(bench.controls.size(), 1u);
    EXPECT_EQ(bench.resumes.size(), 2u);
    bench.record(hello);
    EXPECT_GE(bench.controls.size(), 2u);
  });
}

// Between any two messages: nothing but the vault goes over.
TEST(KeyKeeperDeath, BetweenTwoMessages) {
  KeeperBench bench({.self = ktls::Endpoint::kClient});
  const std::string all = ticket(100) + key_update(Asks::kYes);
  for (unsigned i = 1; i <= 50; ++i) {
    const std::size_t cut = i * 7 % all.size();
    if (cut != 0) bench.record(all.substr(0, cut));
    bench.restart();
    bench.record(all.substr(cut));
    bench.restart();
    ASSERT_TRUE(bench.faults.empty());
    ASSERT_TRUE(bench.receives_under(i));
    bench.control_sent();
    bench.restart();
    ASSERT_TRUE(bench.sends_under(i));
  }
}

TEST(KeyKeeperDeath, WithoutAnEntryTheConnectionEnds) {
  KeeperBench bench;
  bench.entry().wipe();
  bench.restart();
  bench.record(key_update(Asks::kYes));
  ASSERT_EQ(bench.faults.size(), 1u);
  EXPECT_EQ(bench.faults[0].reason, ipc::FaultReason::kKeysFailed);
}

}  // namespace
}  // namespace ktrunk::test
