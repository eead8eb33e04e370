// A trunk's connection that ends for a reason which a new one does away with: a KeyUpdate that the kernel cannot follow
// (before Linux 6.14), a worker's death. The new one is made at once, and no message for the trunk is lost or doubled:
// neither those that are queued in any worker, nor those that come meanwhile.
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>

#include "system/record_layer_fixture.h"

namespace ktrunk::test {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;

// Sends requests and collects the final answers to them.
class Caller {
 public:
  explicit Caller(std::unique_ptr<HostilePeer> peer)
      : local_(peer->local()),
        stream_(std::move(peer)),
        thread_([this](const std::stop_token& stop) { collect(stop); }) {}

  [[nodiscard]] Status send(const SipMessage& request) {
    sent_.push_back(request.header("Call-ID"));
    return stream_.send(request);
  }
  [[nodiscard]] const Address& local() const { return local_; }
  [[nodiscard]] const std::vector<std::string>& sent() const { return sent_; }
  [[nodiscard]] std::map<std::string, std::vector<int>> answers() {
    const std::lock_guard lock(mutex_);
    return answers_;
  }
  [[nodiscard]] unsigned refused() const { return refused_; }
  [[nodiscard]] bool all_answered() {
    const std::lock_guard lock(mutex_);
    return answers_.size() == sent_.size();
  }

 private:
  void collect(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      const auto answer = stream_.receive_or_end(milliseconds(100));
      if (!answer && answer.error().code == ETIMEDOUT) continue;
      if (!answer || !*answer) return;
      if ((*answer)->status() == 503) ++refused_;
      const std::lock_guard lock(mutex_);
      answers_[(*answer)->header("Call-ID")].push_back((*answer)->status());
    }
  }

  Address local_;
  SipStream stream_;
  std::vector<std::string> sent_;
  std::mutex mutex_;
  std::map<std::string, std::vector<int>> answers_;
  std::atomic<unsigned> refused_{0};
  std::jthread thread_;  // last: it uses what is above
};

// What has come out of the trunk, by whichever connection.
class Ledger {
 public:
  void note(const SipMessage& request) {
    const std::lock_guard lock(mutex_);
    ++times_[request.header("Call-ID")];
  }
  [[nodiscard]] unsigned times(const std::string& call_id) {
    const std::lock_guard lock(mutex_);
    const auto found = times_.find(call_id);
    return found != times_.end() ? found->second : 0;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, unsigned> times_;
};

class Replacement : public RecordLayerTest {
 protected:
  static constexpr std::size_t kCallers = 6;

  // Six callers, some at home in each of the workers; the peer of the trunk takes nothing, and every buffer on the way
  // to it is full, for one of them.
  // One in `long_one_in` of the requests is longer than a record.
  void fill(unsigned workers, unsigned long_one_in = 8) {
    ASSERT_NO_FATAL_FAILURE(start_with_hostile_trunk(
        Tls::k13, {.limits = "max_queue_bytes = 262144", .tables = "", .ktrunk_lines = "", .workers = workers}));
    const unsigned trunk_home = of_trunk(status(), "hostile").at(0)["home_worker"];
    for (std::size_t i = 0; i < kCallers; ++i) {
      auto peer = hostile_call_in(Tls::k13);
      ASSERT_NE(peer, nullptr);
      SipStream stream(std::move(peer));
      ASSERT_TRUE(answers(stream, options_to_us(), 200)) << daemon_->log();
      const auto seen = with_peer(status(), stream.stream());
      ASSERT_TRUE(seen);
      const unsigned home = (*seen)["home_worker"];
      auto caller = std::make_unique<Caller>(
          std::unique_ptr<HostilePeer>(dynamic_cast<HostilePeer*>(stream.release().release())));
      if (feeder_ == nullptr && home != trunk_home) {
        feeder_ = std::move(caller);
        feeder_home_ = home;
      } else if (home != trunk_home && home != feeder_home_) {
        others_.push_back(std::move(caller));
      } else {
        idle_.push_back(std::move(caller));
      }
    }
    ASSERT_NE(feeder_, nullptr);
    // One refusal may be of a queue that is on its way into the kernel's buffers. They are full when each of ten
    // requests, one after the other, is refused.
    unsigned in_a_row = 0, seen = 0;
    for (unsigned n = 0; n < 8000 && in_a_row < 10; ++n) {
      const std::size_t bytes = n % long_one_in == 0 ? 60'000 : 3000;
      ASSERT_TRUE(feeder_->send(request_to("hostile.test", std::string(bytes, static_cast<char>('a' + n % 26)))));
      if (feeder_->refused() == seen) continue;
      (void)eventually([&] { return feeder_->all_answered(); }, milliseconds(100));  // refusals that are on their way
      seen = feeder_->refused();
      ASSERT_TRUE(feeder_->send(request_to("hostile.test", std::string(3000, 'p'))));
      in_a_row = eventually([&] { return feeder_->refused() > seen; }, milliseconds(500)) ? in_a_row + 1 : 0;
      seen = feeder_->refused();
    }
    ASSERT_EQ(in_a_row, 10u) << daemon_->log();
    log_seen_ = daemon_->log().size();
  }
  // Takes what comes on the trunk's connection, until it ends, and answers there.
  void serve(SipStream& stream, const std::stop_token& stop, std::string& end) {
    while (!stop.stop_requested()) {
      const auto request = stream.receive_or_end(milliseconds(100));
      if (!request && request.error().code == ETIMEDOUT) continue;
      if (!request || !*request) {
        end = request ? "close_notify" : request.error().what;
        return;
      }
      ledger_.note(**request);
      (void)stream.send(make_response(**request, 200, "OK"));
    }
  }
  // The same for the connection that ends: what comes on it is answered on the next one, as RFC 3261 18.2.2 has it.
  void take(SipStream& stream, std::vector<SipMessage>& taken, std::string& end) {
    for (;;) {
      const auto request = stream.receive_or_end(kLong);
      if (!request || !*request) {
        end = request ? "close_notify" : request.error().what;
        return;
      }
      ledger_.note(**request);
      taken.push_back(std::move(**request));
    }
  }
  void call_once_more() {
    for (const auto& caller : others_) {
      for (int i = 0; i < 10; ++i) ASSERT_TRUE(caller->send(request_to("hostile.test", std::string(500, 'z'))));
    }
  }
  // Each request has one answer, and has come to the peer once if that is not a refusal; of the others none is refused.
  void expect_nothing_lost() {
    const auto answered = [&] {
      return feeder_->all_answered() &&
             std::ranges::all_of(others_, [](const auto& caller) { return caller->all_answered(); });
    };
    EXPECT_TRUE(eventually(answered, kLong)) << daemon_->log();
    unsigned lost = 0, doubled = 0, refused = 0;
    const auto check = [&](Caller& caller, bool may_be_refused) {
      const auto answers = caller.answers();
      for (const std::string& id : caller.sent()) {
        const auto found = answers.find(id);
        const bool is_refused = found != answers.end() && found->second == std::vector<int>{503};
        const unsigned times = ledger_.times(id);
        refused += is_refused ? 1 : 0;
        lost += times == 0 && !is_refused ? 1 : 0;
        doubled += times > 1 || (times == 1 && is_refused) ? 1 : 0;
        if (!is_refused) {
          EXPECT_TRUE(found != answers.end() && found->second == std::vector<int>{200}) << id;
        }
        EXPECT_TRUE(may_be_refused || !is_refused);
      }
    };
    check(*feeder_, true);
    for (const auto& caller : others_) check(*caller, false);
    EXPECT_EQ(lost, 0u) << "of " << feeder_->sent().size() << ", refused " << refused << daemon_->log();
    EXPECT_EQ(doubled, 0u);
  }
  void expect_made_again_at_once() const {
    const std::string log = daemon_->log().substr(log_seen_);
    EXPECT_THAT(log, Not(HasSubstr("trunk 'hostile': connecting again in")));
    EXPECT_THAT(of_trunk(status(), "hostile"), SizeIs(1));
  }

  std::unique_ptr<Caller> feeder_;               // at home elsewhere than the trunk's connection
  std::vector<std::unique_ptr<Caller>> others_;  // at home in a third worker
  std::vector<std::unique_ptr<Caller>> idle_;
  unsigned feeder_home_ = 0;
  Ledger ledger_;
};

class ReplacementForAKeyUpdate : public Replacement {
 protected:
  // When the peer takes what has come on the connection that ends.
  enum class Takes : std::uint8_t { kAtOnce, kWhenTheNextIsThere };
  void run(Takes when, unsigned long_one_in = 8) {
    ASSERT_NO_FATAL_FAILURE(fill(3, long_one_in));
    const bool replaced = kernel_records() && !kernel_rekeys();
    HostilePeer* peer = hostile_.get();
    const Address address = peer->local();
    SipStream first(std::move(hostile_));
    ASSERT_TRUE(peer->key_update());
    ASSERT_TRUE(peer->write_all("\r\n\r\n"));  // and something behind it
    ASSERT_NO_FATAL_FAILURE(call_once_more());
    std::string end;
    if (!replaced) {
      const std::jthread serving([&](const std::stop_token& stop) { serve(first, stop, end); });
      expect_nothing_lost();
      EXPECT_EQ(end, "");
      return;
    }
    std::vector<SipMessage> taken;
    std::jthread taking;
    if (when == Takes::kAtOnce) taking = std::jthread([&] { take(first, taken, end); });
    auto next = accept_hostile(Tls::k13);
    ASSERT_NE(next, nullptr) << daemon_->log();
    SipStream second(std::move(next));
    if (when == Takes::kAtOnce) {
      taking.join();
      EXPECT_THAT(end, HasSubstr("internal_error"));
    } else {
      take(first, taken, end);
      EXPECT_GT(moved(taken), 0) << "nothing was queued";
    }
    for (const SipMessage& request : taken) EXPECT_TRUE(second.send(make_response(request, 200, "OK")));
    std::string never;
    const std::jthread serving([&](const std::stop_token& stop) { serve(second, stop, never); });
    expect_nothing_lost();
    EXPECT_THAT(lines_about_end(address), testing::ElementsAre(HasSubstr("6.14")));
    expect_made_again_at_once();
  }
  // Requests of the feeder that were not refused and have not come by the first connection.
  [[nodiscard]] long moved(const std::vector<SipMessage>& taken) const {
    const auto is_feeders = [&](const SipMessage& each) {
      return std::ranges::find(feeder_->sent(), each.header("Call-ID")) != feeder_->sent().end();
    };
    return static_cast<long>(feeder_->sent().size()) - static_cast<long>(feeder_->refused()) -
           std::ranges::count_if(taken, is_feeders);
  }
};

TEST_F(ReplacementForAKeyUpdate, ThatTheKernelCannotFollow) { run(Takes::kAtOnce); }
// What is left in the socket reaches the peer although nobody reads what it has sent any more.
TEST_F(ReplacementForAKeyUpdate, OfAPeerThatTakesNothingUntilThen) { run(Takes::kWhenTheNextIsThere); }
// Of the first in the queue some records have gone, and the others never will.
TEST_F(ReplacementForAKeyUpdate, InTheMiddleOfALongMessage) { run(Takes::kWhenTheNextIsThere, 1); }

// Nothing has to be replaced: its successor goes on with what is queued, and half sent.
TEST_F(Replacement, IsNotForTheDeathOfItsHomeWorker) {
  ASSERT_NO_FATAL_FAILURE(fill(3));
  const unsigned home = of_trunk(status(), "hostile").at(0)["home_worker"];
  const pid_t pid = daemon_->pid_of(fmt::format("worker/{}", home));
  ASSERT_GT(pid, 1);
  SipStream first(std::move(hostile_));
  ASSERT_EQ(::kill(pid, SIGKILL), 0);
  ASSERT_NO_FATAL_FAILURE(call_once_more());
  std::string end;
  {
    const std::jthread serving([&](const std::stop_token& stop) { serve(first, stop, end); });
    expect_nothing_lost();
  }
  EXPECT_EQ(end, "");
  expect_made_again_at_once();
}

// A trunk that does not come back: what waits for it is given back in time.
TEST_F(Replacement, ThatDoesNotCome) {
  ASSERT_NO_FATAL_FAILURE(start_with_hostile_trunk(
      Tls::k13, {.limits = "stalled_peer = \"3s\"", .tables = "", .ktrunk_lines = "", .workers = 2}));
  const unsigned home = of_trunk(status(), "hostile").at(0)["home_worker"];
  std::vector<std::unique_ptr<SipStream>> callers;
  SipStream* caller = nullptr;  // at home elsewhere
  for (int i = 0; i < 4; ++i) {
    auto stream = call_in();
    ASSERT_NE(stream, nullptr);
    callers.push_back(std::make_unique<SipStream>(std::move(stream)));
    ASSERT_TRUE(answers(*callers.back(), options_to_us(), 200));
    if ((*with_peer(status(), callers.back()->stream()))["home_worker"] != home) caller = callers.back().get();
  }
  ASSERT_NE(caller, nullptr);
  if (!kernel_records() || kernel_rekeys()) GTEST_SKIP() << "the records' layer follows a KeyUpdate";
  ASSERT_TRUE(hostile_->key_update());  // and nobody accepts
  ASSERT_TRUE(gone(hostile_->local()));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(answers(*caller, request_to("hostile.test"), 503)) << daemon_->log();
  EXPECT_TRUE(answers(*caller, options_to_us(), 200));
}

}  // namespace
}  // namespace ktrunk::test
