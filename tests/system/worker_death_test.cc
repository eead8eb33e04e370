// Workers are killed at random moments while messages pass: no connection ends, no message is torn, and those that do
// not arrive are the ones that a worker had in hand, which are kept in files.
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <sstream>

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

}  // namespace
}  // namespace ktrunk::test
