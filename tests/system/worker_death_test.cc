// Workers are killed at random moments while messages pass: no connection ends, no message is torn, and those that do
// not arrive are the ones that a worker had in hand, which are kept in files.
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <sstream>

#include "support/processors.h"
#include "system/caller.h"
#include "system/daemon_fixture.h"

namespace ktrunk::test {
namespace {

class WorkerDeath : public DaemonTest {
 protected:
  static constexpr unsigned kWorkers = 3;
  void begin(const std::string& limits = {}) {
    ASSERT_NO_FATAL_FAILURE(start({.limits = limits,
                                   .ktrunk_lines = fmt::format("quarantine = \"{}\"\n", quarantine_.path().string()),
                                   .workers = kWorkers}));
  }
  [[nodiscard]] std::vector<std::string> quarantined() const {
    std::vector<std::string> all;
    for (const auto& entry : std::filesystem::directory_iterator(quarantine_.path())) {
      std::ifstream file(entry.path());
      std::stringstream text;
      text << file.rdbuf();
      all.push_back(text.str());
    }
    return all;
  }
  // Kills one that is there.
  bool kill_one(std::mt19937& random) {
    const pid_t pid = daemon_->pid_of(fmt::format("worker/{}", random() % kWorkers));
    return pid > 1 && ::kill(pid, SIGKILL) == 0;
  }
  TempFolder quarantine_;
};

TEST_F(WorkerDeath, LosesNothingButWhatWasInHand) {
  ASSERT_NO_FATAL_FAILURE(begin());
  const auto trunk_before = of_trunk(status(), "pbx-tls").at(0);
  std::vector<std::unique_ptr<Caller>> callers;
  Echo pbx(*pbx_tls_);
  for (unsigned i = 0; i < 4; ++i) {
    auto stream = call_in();
    ASSERT_NE(stream, nullptr);
    callers.push_back(std::make_unique<Caller>(std::move(stream), i));
  }
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  const unsigned kills = std::max(6U, 300 / scale());
  for (unsigned killed = 0; killed < kills;) {
    std::this_thread::sleep_for(milliseconds(random() % 300));
    if (kill_one(random)) ++killed;
    for (const auto& caller : callers) ASSERT_EQ(caller->problem, "") << "seed " << seed << "\n" << daemon_->log();
  }
  std::size_t answered = 0;
  std::set<std::string> missing;
  for (const auto& caller : callers) {
    caller->finish();
    EXPECT_EQ(caller->problem, "") << "seed " << seed << "\n" << daemon_->log();
    answered += caller->answered;
    missing.insert(caller->missing.begin(), caller->missing.end());
  }
  const auto kept = quarantined();
  for (const std::string& id : missing) {
    const bool accounted = std::ranges::any_of(
        kept, [&](const std::string& message) { return message.find(id + "\r") != std::string::npos; });
    EXPECT_TRUE(accounted) << id << " is lost, seed " << seed;
  }
  const auto trunk_after = of_trunk(status(), "pbx-tls");
  ASSERT_EQ(trunk_after.size(), 1U);
  EXPECT_EQ(trunk_after[0]["peer"], trunk_before["peer"]) << "it is the same connection";
  fmt::print("{} kills, {} messages answered, {} not, {} in quarantine\n", kills, answered, missing.size(),
             kept.size());
  if (HasFailure()) fmt::print("{}\n", daemon_->log());
}

// All the traffic is on connections that one worker receives from, the callers' and that to the PBX.
class SkewedLoad : public WorkerDeath {
 protected:
  void begin_skewed(unsigned longest) {
    ASSERT_NO_FATAL_FAILURE(begin());
    pbx_ = std::make_unique<Echo>(*pbx_tls_);
    const Json home_of_pbx = of_trunk(status(), "pbx-tls").at(0)["home_worker"];
    std::map<unsigned, std::vector<std::unique_ptr<TlsStream>>> by_home;
    for (unsigned i = 0; i < 4 * kWorkers; ++i) {
      auto stream = call_in();
      ASSERT_NE(stream, nullptr);
      std::optional<Json> connection;
      ASSERT_TRUE(eventually([&] { return (connection = with_peer(status(), *stream)).has_value(); }, kLong));
      by_home[(*connection)["home_worker"].get<unsigned>()].push_back(std::move(stream));
    }
    const auto chosen = by_home.find(home_of_pbx.get<unsigned>());
    ASSERT_NE(chosen, by_home.end());
    ASSERT_GE(chosen->second.size(), 3u);
    for (auto& stream : chosen->second) {
      peers_.push_back(stream->local().text());
      callers_.push_back(
          std::make_unique<Caller>(std::move(stream), static_cast<unsigned>(callers_.size()), "tls.test", longest));
    }
    for (auto& [home, streams] : by_home) std::ranges::move(streams, std::back_inserter(idle_));
  }
  [[nodiscard]] std::set<int> homes() const {
    const Json now = status();
    std::set<int> all = {of_trunk(now, "pbx-tls").at(0)["home_worker"].get<int>()};
    for (const Json& connection : of_trunk(now, "carrier")) {
      if (std::ranges::find(peers_, connection["peer"].get<std::string>()) != peers_.end())
        all.insert(connection["home_worker"].get<int>());
    }
    return all;
  }
  // Every message has been answered, or is in quarantine.
  void finish() {
    std::size_t answered = 0;
    std::size_t missing = 0;
    for (const auto& caller : callers_) caller->finish();
    const auto kept = quarantined();
    for (const auto& caller : callers_) {
      EXPECT_EQ(caller->problem, "");
      answered += caller->answered;
      missing += caller->missing.size();
      for (const std::string& id : caller->missing) {
        EXPECT_TRUE(std::ranges::any_of(
            kept, [&](const std::string& message) { return message.find(id + "\r") != std::string::npos; }))
            << id << " is lost";
      }
    }
    fmt::print("{} messages answered, {} not; {} homes\n", answered, missing, homes().size());
    if (HasFailure()) fmt::print("{}\n", daemon_->log());
  }
  std::unique_ptr<Echo> pbx_;
  std::vector<std::string> peers_;
  std::vector<std::unique_ptr<Caller>> callers_;
  std::vector<std::unique_ptr<TlsStream>> idle_;
};

TEST_F(SkewedLoad, BecomesSpread) {
  KTRUNK_REQUIRE_TWO_PROCESSORS();
  ASSERT_NO_FATAL_FAILURE(begin_skewed(700));
  EXPECT_TRUE(eventually([&] { return homes().size() > 1; }, kLong)) << status().dump(2);
  finish();
  for (const auto& caller : callers_) EXPECT_EQ(caller->missing.size(), 0U);
}

TEST_F(SkewedLoad, MovesWhileWorkersDie) {
  ASSERT_NO_FATAL_FAILURE(begin_skewed(30'000));
  std::mt19937 random(std::random_device{}());
  const unsigned kills = std::max(6U, 60 / scale());
  for (unsigned killed = 0; killed < kills;) {
    std::this_thread::sleep_for(milliseconds(random() % 1000));
    if (kill_one(random)) ++killed;
  }
  finish();
}

}  // namespace
}  // namespace ktrunk::test
