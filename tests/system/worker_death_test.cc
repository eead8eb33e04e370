// Workers are killed at random moments while messages pass: no connection ends, no message is torn, and those that do
// not arrive are the ones that a worker had in hand, which are kept in files.
#include <signal.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <random>
#include <set>
#include <sstream>

#include "system/daemon_fixture.h"

namespace ktrunk::test {
namespace {

unsigned scale() {
  const char* text = std::getenv("KTRUNK_TEST_SCALE");
  return text == nullptr ? 1 : std::max(1U, static_cast<unsigned>(std::strtoul(text, nullptr, 10)));
}

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

// Requests on one connection, as fast as they are answered and with several under way; which came back.
class Caller {
 public:
  Caller(std::unique_ptr<ByteStream> stream, unsigned number)
      : stream_(std::move(stream)), number_(number), thread_([this](const std::stop_token& stop) { run(stop); }) {}
  // No more requests; waits for answers to those under way.
  void finish() {
    thread_.request_stop();
    thread_.join();
  }
  std::set<std::string> missing;  // Call-IDs
  std::size_t answered = 0;
  std::string problem;

 private:
  static constexpr std::size_t kUnderWay = 8;
  static constexpr milliseconds kSilence{8000};        // then what is under way is not waited for any more
  static constexpr milliseconds kLastSilence{20'000};  // the same, in the end: successors may have to be started first
  void run(const std::stop_token& stop) {
    std::mt19937 random(number_);
    std::size_t next = 0;
    for (;;) {
      // What is lost is not waited for.
      while (!stop.stop_requested() && missing.size() < kUnderWay + lost_) {
        const std::string id = fmt::format("caller{}-{}", number_, next++);
        std::string body(random() % 4 == 0 ? random() % 30'000 : random() % 700, 'x');
        SipMessage request =
            make_request({.method = "MESSAGE", .uri = "sip:bob@tls.test", .call_id = id, .body = body});
        if (!stream_.send(request)) return fail("it cannot be sent on");
        missing.insert(id);
        bodies_[id] = std::move(body);
      }
      if (missing.empty()) return;
      const bool last = stop.stop_requested();
      const auto response = stream_.receive_or_end(last ? kLastSilence : kSilence);
      if (!response) {
        if (response.error().code != ETIMEDOUT) return fail(response.error().what);
        if (last) return;
        lost_ = missing.size();
        continue;
      }
      if (!*response) return fail("it has ended");
      const std::string id = (*response)->header("Call-ID");
      if ((*response)->status() != 200) return fail((*response)->text());
      if ((*response)->body != bodies_[id]) return fail("another body: " + (*response)->text());
      if (missing.erase(id) != 0) ++answered;
    }
  }
  void fail(std::string what) { problem = std::move(what); }

  SipStream stream_;
  unsigned number_;
  std::map<std::string, std::string> bodies_;
  std::size_t lost_ = 0;
  std::jthread thread_;
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
