// One busy trunk connection and eight workers: its messages are spread over all of them, each arrives once, and those
// of a call in their order; also while workers are killed.
#include <fmt/format.h>
#include <signal.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <sstream>
#include <unordered_map>

#include "support/processors.h"
#include "system/caller.h"
#include "system/daemon_fixture.h"

namespace ktrunk::test {
namespace {

constexpr unsigned kOfACall = 3;  // messages

// Calls of a few messages each, many at a time and their messages mixed, as fast as they go through; nobody answers.
class Flood {
 public:
  Flood(std::unique_ptr<ByteStream> from, SipStream& to)
      : from_(std::move(from)),
        to_(to),
        taker_([this](const std::stop_token& stop) { take(stop); }),
        sender_([this](const std::stop_token& stop) { send(stop); }) {}
  ~Flood() {
    sender_.request_stop();
    taker_.request_stop();
  }

  // Sends so many more, then stops; false when they cannot be sent.
  void wait_until_sent(std::size_t more) {
    limit_ = sent_ + more;
    while (sent_ < limit_ && !failed_) std::this_thread::sleep_for(milliseconds(20));
  }
  // Nothing more has come for so long, or all has.
  void drain(milliseconds silence) {
    std::size_t before = 0;
    do {
      before = taken_;
      for (milliseconds waited{0}; waited < silence && taken_ == before && taken_ < sent_; waited += milliseconds(20))
        std::this_thread::sleep_for(milliseconds(20));
    } while (taken_ != before && taken_ < sent_);
  }
  void stop() {
    limit_ = 0;
    sender_.request_stop();
    sender_.join();
  }
  void end() {
    taker_.request_stop();
    taker_.join();
  }

  [[nodiscard]] std::size_t sent() const { return sent_; }
  [[nodiscard]] std::size_t taken() const { return taken_; }
  [[nodiscard]] bool failed() const { return failed_; }
  // After end(): what of a call has come, in the order of coming.
  std::unordered_map<std::string, std::vector<unsigned>> calls;
  std::string problem;
  std::unordered_map<std::string, unsigned> sent_of;  // after stop()

 private:
  static constexpr std::size_t kUnderWay = 1200;
  static constexpr std::size_t kTogether = 24;
  static constexpr std::size_t kOpenCalls = 400;

  void send(const std::stop_token& stop) {
    std::mt19937_64 random(std::random_device{}());
    std::vector<std::pair<std::string, unsigned>> open;
    while (!stop.stop_requested()) {
      if (sent_ >= limit_ || sent_ - taken_ >= kUnderWay) {
        std::this_thread::sleep_for(milliseconds(1));
        continue;
      }
      std::string together;
      std::size_t count = 0;
      for (; count < kTogether; ++count) {
        while (open.size() < kOpenCalls) open.emplace_back(fmt::format("{:x}", random()), 0);
        const std::size_t at = random() % open.size();
        auto& [id, number] = open[at];
        together += make_request({.method = "MESSAGE",
                                  .uri = "sip:bob@tls.test",
                                  .branch = fmt::format("z9hG4bK{}-{}", id, number + 1),
                                  .call_id = id,
                                  .cseq = ++number})
                        .text();
        sent_of[id] = number;
        if (number < kOfACall) continue;
        std::swap(open[at], open.back());
        open.pop_back();
      }
      if (!from_->write_all(together)) {
        failed_ = true;
        return;
      }
      sent_ += count;
    }
  }
  void take(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      const auto message = to_.receive_or_end(milliseconds(100));
      if (!message && message.error().code == ETIMEDOUT) continue;
      if (!message || !*message) {
        problem = "the PBX's connection has ended";
        return;
      }
      if (!(*message)->is_request()) continue;
      calls[(*message)->header("Call-ID")].push_back(
          static_cast<unsigned>(std::strtoul((*message)->header("CSeq").c_str(), nullptr, 10)));
      ++taken_;
    }
  }

  std::unique_ptr<ByteStream> from_;
  SipStream& to_;
  std::atomic<std::size_t> sent_{0};
  std::atomic<std::size_t> taken_{0};
  std::atomic<std::size_t> limit_{0};
  std::atomic<bool> failed_{false};
  std::jthread taker_;
  std::jthread sender_;
};

class FanOut : public DaemonTest {
 protected:
  static constexpr unsigned kWorkers = 8;
  // A connection with more messages than one worker likes.
  void flood() {
    ASSERT_NO_FATAL_FAILURE(start({.limits = "max_queue_bytes = 16777216\n",
                                   .ktrunk_lines = fmt::format("quarantine = \"{}\"\n", quarantine_.path().string()),
                                   .workers = kWorkers}));
    auto stream = call_in();
    ASSERT_NE(stream, nullptr);
    flood_ = std::make_unique<Flood>(std::move(stream), *pbx_tls_);
  }
  void begin() {
    ASSERT_NO_FATAL_FAILURE(flood());
    // Until the connection counts as busy.
    for (unsigned turn = 0; turn < 200 && !is_spread(); ++turn) flood_->wait_until_sent(2400);
    ASSERT_TRUE(is_spread()) << status().dump(2) << daemon_->log();
  }
  [[nodiscard]] bool is_spread() const {
    const auto carrier = of_trunk(status(), "carrier");
    return !carrier.empty() && carrier[0]["spread"].get<bool>();
  }
  [[nodiscard]] static std::vector<std::uint64_t> of_workers(const Json& status, const char* count) {
    std::vector<std::uint64_t> all;
    for (const Json& worker : status["workers"]) all.push_back(worker[count].get<std::uint64_t>());
    return all;
  }
  [[nodiscard]] std::string quarantined() const {
    std::stringstream text;
    if (!std::filesystem::exists(quarantine_.path())) return {};
    for (const auto& entry : std::filesystem::directory_iterator(quarantine_.path())) {
      std::ifstream file(entry.path());
      text << file.rdbuf();
    }
    return text.str();
  }
  TempFolder quarantine_;
  std::unique_ptr<Flood> flood_;
};

TEST_F(FanOut, SpreadsABusyConnectionOverAllWorkers) {
  KTRUNK_REQUIRE_TWO_PROCESSORS();
  ASSERT_NO_FATAL_FAILURE(begin());
  const auto before = of_workers(status(), "messages_received");
  const std::size_t messages = 100'000 / scale();
  flood_->wait_until_sent(messages);
  flood_->stop();
  flood_->drain(milliseconds(20'000));
  const Json after = status();
  flood_->end();
  EXPECT_EQ(flood_->problem, "");
  EXPECT_FALSE(flood_->failed());
  EXPECT_EQ(flood_->taken(), flood_->sent());
  for (const auto& [id, numbers] : flood_->calls) {
    std::vector<unsigned> expected;
    for (unsigned number = 1; number <= flood_->sent_of[id]; ++number) expected.push_back(number);
    ASSERT_EQ(numbers, expected) << id;
  }
  EXPECT_EQ(flood_->calls.size(), flood_->sent_of.size());
  const auto received = of_workers(after, "messages_received");
  std::uint64_t sum = 0;
  for (unsigned worker = 0; worker < kWorkers; ++worker) sum += received[worker] - before[worker];
  const double mean = static_cast<double>(sum) / kWorkers;
  for (unsigned worker = 0; worker < kWorkers; ++worker) {
    EXPECT_GT(static_cast<double>(received[worker] - before[worker]), 0.8 * mean) << worker;
    EXPECT_LT(static_cast<double>(received[worker] - before[worker]), 1.2 * mean) << worker;
  }
  fmt::print("{} messages, by worker {}, handed over {}\n", sum, fmt::join(received, " "),
             fmt::join(of_workers(after, "handed_over"), " "));
}

TEST_F(FanOut, GainsNothingWithOneProcessor) {
  {
    const OneProcessor alone;
    ASSERT_TRUE(alone.ok());
    ASSERT_NO_FATAL_FAILURE(flood());
  }
  for (int turn = 0; turn < 10; ++turn) {
    flood_->wait_until_sent(2400);
    ASSERT_FALSE(is_spread());
  }
  flood_->stop();
  flood_->drain(milliseconds(20'000));
  flood_->end();
  EXPECT_EQ(flood_->taken(), flood_->sent());
  EXPECT_THAT(of_workers(status(), "handed_over"), testing::Each(0U));
}

TEST_F(FanOut, IsOverWhenTheConnectionIsQuiet) {
  KTRUNK_REQUIRE_TWO_PROCESSORS();
  ASSERT_NO_FATAL_FAILURE(begin());
  flood_->stop();
  for (int turn = 0; turn < 600 && is_spread(); ++turn) std::this_thread::sleep_for(milliseconds(100));
  EXPECT_FALSE(is_spread());
  flood_->drain(milliseconds(20'000));
  flood_->end();
  EXPECT_EQ(flood_->taken(), flood_->sent());
}

TEST_F(FanOut, LosesNothingOfWhatIsHandedOverWhenWorkersDie) {
  KTRUNK_REQUIRE_TWO_PROCESSORS();
  ASSERT_NO_FATAL_FAILURE(begin());
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  const unsigned kills = std::max(8U, 120 / scale());
  std::jthread killer([&](const std::stop_token& stop) {
    for (unsigned killed = 0; killed < kills && !stop.stop_requested();) {
      std::this_thread::sleep_for(milliseconds(random() % 200));
      const pid_t pid = daemon_->pid_of(fmt::format("worker/{}", random() % kWorkers));
      if (pid > 1 && ::kill(pid, SIGKILL) == 0) ++killed;
    }
  });
  std::atomic<bool> killing{true};
  std::jthread waiter([&] {
    killer.join();
    killing = false;
  });
  while (killing && !flood_->failed()) flood_->wait_until_sent(1000);
  waiter.join();
  flood_->stop();
  flood_->drain(milliseconds(30'000));
  flood_->end();
  EXPECT_EQ(flood_->problem, "") << "seed " << seed;
  EXPECT_FALSE(flood_->failed());
  const std::string kept = quarantined();
  std::size_t missing = 0;
  for (const auto& [id, count] : flood_->sent_of) {
    const auto& numbers = flood_->calls[id];
    for (std::size_t i = 1; i < numbers.size(); ++i)
      EXPECT_LT(numbers[i - 1], numbers[i]) << id << " is out of order, or doubled, seed " << seed;
    for (unsigned number = 1; number <= count; ++number) {
      if (std::ranges::find(numbers, number) != numbers.end()) continue;
      ++missing;
      EXPECT_NE(kept.find(fmt::format("z9hG4bK{}-{}", id, number)), std::string::npos)
          << id << " " << number << " is lost, seed " << seed;
    }
  }
  fmt::print("{} kills, {} messages, {} missing\n", kills, flood_->sent(), missing);
  if (HasFailure()) fmt::print("{}\n", daemon_->log());
}

}  // namespace
}  // namespace ktrunk::test
