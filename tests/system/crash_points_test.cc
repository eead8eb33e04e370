// A worker dies after each of its stores to shared memory in turn, while messages short and long pass through it in
// both directions. Whatever the store was: both connections go on, every message arrives once and is answered once, but
// for one that the worker may have had in hand, which is in quarantine then.
#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <sstream>
#include <thread>

#include "support/processors.h"
#include "system/crash_point_fixture.h"

namespace ktrunk::test {
namespace {

// Answers what comes, and counts it.
class Pbx {
 public:
  explicit Pbx(SipStream& stream)
      : echo_(stream, [this](const SipMessage& message) {
          const std::lock_guard lock(mutex_);
          ++times_[message.header("Call-ID")];
        }) {}
  [[nodiscard]] unsigned times(const std::string& call_id) {
    const std::lock_guard lock(mutex_);
    return times_[call_id];
  }

 private:
  std::mutex mutex_;
  std::map<std::string, unsigned> times_;
  Echo echo_;  // last: it uses what is above
};

// Which of the two workers dies.
enum class Victim : std::uint8_t { kCallersHome, kTrunksHome };

class CrashPoints : public CrashPointTest, public testing::WithParamInterface<Victim> {
 protected:
  // Of the messages in quarantine the last 64 are kept; so the daemon is another one before that.
  static constexpr std::size_t kMostInQuarantine = 50;

  void TearDown() override {
    pbx_.reset();
    CrashPointTest::TearDown();
  }

  void begin() {
    pbx_.reset();
    if (daemon_ != nullptr) {
      caller_.reset();
      ASSERT_TRUE(daemon_->stop());
    }
    quarantine_.emplace();
    late_.clear();
    for (Address* address : {&edge_tls_, &edge_tcp_, &edge_udp_}) *address = fresh_address();
    // With limits that hold nothing up: what is counted for them is changed with each message.
    ASSERT_NO_FATAL_FAILURE(start({.pbx_lines = "max_requests_per_second = 1000000\nmax_invites = 1000\n",
                                   .ktrunk_lines = fmt::format("quarantine = \"{}\"\n", quarantine_->path().string()),
                                   .workers = 2,
                                   .program = program(),
                                   .env = environment()}));
    trunk_ = of_trunk(status(), "pbx-tls").at(0);
    // At home where the trunk's connection is not, so that each worker sends on what the other receives from.
    std::vector<std::unique_ptr<SipStream>> others;
    for (int tries = 0; tries < 8; ++tries) {
      if (caller_ != nullptr) others.push_back(std::move(caller_));
      auto stream = call_in();
      ASSERT_NE(stream, nullptr);
      callers_tls_ = stream.get();
      caller_ = std::make_unique<SipStream>(std::move(stream));
      ASSERT_TRUE(answers(*caller_, options_to_us(), 200));
      const auto seen = with_peer(status(), caller_->stream());
      ASSERT_TRUE(seen);
      callers_home_ = (*seen)["home_worker"];
      if (callers_home_ != trunk_["home_worker"]) break;
    }
    ASSERT_NE(callers_home_, trunk_["home_worker"]);
    pbx_.emplace(*pbx_tls_);
  }

  void arm_victim(unsigned point) {
    victims_index_ = GetParam() == Victim::kCallersHome ? callers_home_ : unsigned{trunk_["home_worker"]};
    arm(fmt::format("worker/{}", victims_index_), point);
  }

  [[nodiscard]] std::string quarantined() const {
    std::stringstream all;
    for (const auto& entry : std::filesystem::directory_iterator(quarantine_->path()))
      all << std::ifstream(entry.path()).rdbuf();
    return all.str();
  }
  [[nodiscard]] std::size_t in_quarantine() const {
    return static_cast<std::size_t>(std::ranges::distance(std::filesystem::directory_iterator(quarantine_->path())));
  }

  // A caller, and the bodies that are to come back to it by Call-ID.
  struct Caller {
    SipStream* stream;
    std::map<std::string, std::string> missing;
  };
  // Octets of messages of these sizes, whose answers the caller is to get.
  [[nodiscard]] std::string messages(Caller& caller, std::initializer_list<std::size_t> sizes) {
    std::string octets;
    for (const std::size_t bytes : sizes) {
      const std::string id = fmt::format("{}-{}", ++number_, bytes);
      const std::string body(bytes, static_cast<char>('a' + number_ % 26));
      const char* method = bytes == kSizes[2] ? "INVITE" : "MESSAGE";
      octets += make_request({.method = method, .uri = "sip:bob@tls.test", .call_id = id, .body = body}).text();
      caller.missing.emplace(id, body);
    }
    return octets;
  }
  // A message in quarantine may have been sent before the worker died, and is answered then, at any time: once.
  [[nodiscard]] bool is_late(const SipMessage& answer) { return late_.erase(answer.header("Call-ID")) != 0; }
  testing::AssertionResult answers_options() {
    const SipMessage request = options_to_us();
    if (const Status sent = caller_->send(request); !sent) return testing::AssertionFailure() << sent.error().what;
    for (;;) {
      const auto answer = caller_->receive();
      if (!answer) return testing::AssertionFailure() << answer.error().what;
      if (answer->header("Call-ID") == request.header("Call-ID")) return testing::AssertionSuccess();
      if (!is_late(*answer)) return testing::AssertionFailure() << "not asked for: " << answer->text().substr(0, 500);
    }
  }
  // Takes what comes to the caller within a moment. False if its connection has ended.
  bool take_answers(Caller& caller) {
    const auto answer = caller.stream->receive_or_end(milliseconds(died_ ? 50 : 5));
    if (!answer && answer.error().code == ETIMEDOUT) return true;
    if (!answer || !*answer) {
      ADD_FAILURE() << "a caller's connection ended: " << (answer ? "" : answer.error().what) << daemon_->log();
      return false;
    }
    if (is_late(**answer)) return true;
    const auto found = caller.missing.find((*answer)->header("Call-ID"));
    if (found == caller.missing.end()) {
      ADD_FAILURE() << "answered twice, or never asked: " << (*answer)->text().substr(0, 500);
      return true;
    }
    EXPECT_EQ((*answer)->status(), 200);
    EXPECT_TRUE((*answer)->body == found->second);
    caller.missing.erase(found);
    return true;
  }
  [[nodiscard]] static std::size_t missing_of(const std::vector<Caller>& callers) {
    std::size_t missing = 0;
    for (const Caller& caller : callers) missing += caller.missing.size();
    return missing;
  }
  // Until all is answered but for one message at most that is in quarantine, and each once. False if it is not.
  bool all_answered(std::vector<Caller>& callers) {
    for (int rounds = 0; missing_of(callers) != 0 && rounds < 400; ++rounds) {
      kill_at_point();
      const std::size_t before = missing_of(callers);
      for (Caller& caller : callers) {
        if (!caller.missing.empty() && !take_answers(caller)) return false;
      }
      if (missing_of(callers) != before) rounds = 0;
      if (died_ && missing_of(callers) == 1 && !lost_is_known(callers).empty()) break;
    }
    EXPECT_LE(missing_of(callers), 1U);
    const std::string lost = lost_is_known(callers);
    if (missing_of(callers) == 1) {
      EXPECT_TRUE(died_ && !lost.empty()) << "one is lost, and not in quarantine\n" << daemon_->log();
      late_.insert(lost);
    }
    for (; checked_ < number_; ++checked_) {
      for (const std::size_t bytes : kSizes) {
        const std::string id = fmt::format("{}-{}", checked_ + 1, bytes);
        EXPECT_LE(pbx_->times(id), 1U) << id << " came twice";
      }
    }
    return !testing::Test::HasFailure();
  }
  // The Call-ID of the one that is missing, if it is in quarantine.
  [[nodiscard]] std::string lost_is_known(const std::vector<Caller>& callers) const {
    for (const Caller& caller : callers) {
      if (caller.missing.empty()) continue;
      const std::string& id = caller.missing.begin()->first;
      if (quarantined().contains(id + "\r")) return id;
    }
    return {};
  }
  // After a death: another worker in its place, and whoever was held up by the dead one is not any more.
  void expect_repaired() {
    disarm();
    if (!died_) return;
    EXPECT_TRUE(eventually([this] { return has_successor(); }, kLong)) << daemon_->log();
    EXPECT_TRUE(answers_options()) << daemon_->log();
    const auto now = of_trunk(status(), "pbx-tls");
    EXPECT_TRUE(now.size() == 1 && now[0]["peer"] == trunk_["peer"]) << "another connection\n" << daemon_->log();
  }

  // Messages with a worker's death at that point of it. False when they have passed without coming to it.
  bool pass_messages(unsigned point) {
    std::vector<Caller> callers{{.stream = caller_.get(), .missing = {}}};
    const std::string octets = messages(callers[0], {kSizes[0], kSizes[1], kSizes[2]});
    arm_victim(point);
    // Keys change both ways meanwhile, where the kernel can do that.
    if (rekeys_) {
      EXPECT_TRUE(callers_tls_->key_update(SSL_KEY_UPDATE_REQUESTED));
    }
    // In two pieces, the second of which begins amid a header.
    EXPECT_TRUE(caller_->send_bytes(octets.substr(0, 150)));
    EXPECT_TRUE(caller_->send_bytes(octets.substr(150)));
    (void)all_answered(callers);
    expect_repaired();
    return died_;
  }

  // The same when the caller's connection is busy, and its messages are spread over both workers.
  bool pass_spread_messages(unsigned point) {
    std::vector<Caller> callers{{.stream = caller_.get(), .missing = {}}};
    const auto is_spread = [&] {
      const auto row = with_peer(status(), caller_->stream());
      return row && (*row)["spread"].get<bool>();
    };
    disarm();  // nobody yet
    died_ = false;
    for (int crowd = 0; crowd < 50 && !is_spread(); ++crowd) {
      for (int part = 0; part < 8; ++part) {
        std::string octets;
        for (int i = 0; i < 150; ++i) octets += messages(callers[0], {kSizes[0]});
        EXPECT_TRUE(caller_->send_bytes(octets));
        std::this_thread::sleep_for(milliseconds(5));
      }
      if (!all_answered(callers)) return false;
    }
    EXPECT_TRUE(is_spread());
    std::string octets;
    for (int i = 0; i < 8; ++i) octets += messages(callers[0], {kSizes[2]});
    arm_victim(point);
    EXPECT_TRUE(caller_->send_bytes(octets));
    (void)all_answered(callers);
    expect_repaired();
    return died_;
  }

  // The same with connections that come, say something, and go.
  bool pass_connections(unsigned point) {
    arm_victim(point);
    std::vector<std::unique_ptr<SipStream>> streams;
    std::vector<Caller> callers;
    for (std::optional<unsigned> home; home != victims_index_;) {
      auto stream = call_in();
      if (stream == nullptr || streams.size() == 8) return false;
      streams.push_back(std::make_unique<SipStream>(std::move(stream)));
      callers.push_back({.stream = streams.back().get(), .missing = {}});
      EXPECT_TRUE(streams.back()->send_bytes(messages(callers.back(), {kSizes[0]})));
      const bool known = eventually(
          [&] {
            const auto row = with_peer(status(), streams.back()->stream());
            if (row) home = (*row)["home_worker"].get<unsigned>();
            return row.has_value();
          },
          kLong);
      if (!known) {
        ADD_FAILURE() << "a connection does not show" << daemon_->log();
        return false;
      }
    }
    if (all_answered(callers)) {
      std::vector<Address> peers;
      for (auto& stream : streams) peers.push_back(stream->stream().local());
      streams.clear();
      const auto none = [&] {
        kill_at_point();
        const Json now = status();
        return connections(now,
                           [&](const Json& row) {
                             return std::ranges::any_of(
                                 peers, [&](const Address& peer) { return row["peer"] == peer.text(); });
                           })
            .empty();
      };
      EXPECT_TRUE(eventually(none, kLong)) << "a connection that its peer has closed stays\n" << daemon_->log();
    }
    expect_repaired();
    return died_;
  }

  // At each point in turn until what is done passes without coming to one.
  void die_at_each(const std::function<bool(unsigned)>& pass) {
    ASSERT_NO_FATAL_FAILURE(begin());
    // Where time is short, every so-many-th, from a first one that differs from run to run.
    unsigned point = 1 + static_cast<unsigned>(std::random_device{}()) % step();
    unsigned deaths = 0;
    for (; pass(point); point += step(), ++deaths) {
      if (HasFailure()) FAIL() << "at point " << point;
      if (in_quarantine() >= kMostInQuarantine) {
        ASSERT_NO_FATAL_FAILURE(begin());
      }
    }
    fmt::print("{} deaths at {} points\n", deaths, point);
    EXPECT_GT(point, 20U) << "what was done takes more stores than that: the points are not there";
  }

  static constexpr std::array<std::size_t, 3> kSizes{20, 40'000, 300};

  std::optional<TempFolder> quarantine_;
  Json trunk_;
  unsigned callers_home_ = 0;
  std::unique_ptr<SipStream> caller_;
  TlsStream* callers_tls_ = nullptr;  // beneath it
  std::optional<Pbx> pbx_;
  bool rekeys_ = false;
  unsigned number_ = 0;         // of messages so far
  unsigned checked_ = 0;        // of them
  std::set<std::string> late_;  // Call-IDs of what is in quarantine, and unanswered so far
  unsigned victims_index_ = 0;
};

TEST_P(CrashPoints, OfTheMessagePath) {
  die_at_each([this](unsigned point) { return pass_messages(point); });
}

TEST_P(CrashPoints, OfConnectionsThatComeAndGo) {
  die_at_each([this](unsigned point) { return pass_connections(point); });
}

// How many stores there are differs: which messages go to which worker is by chance.
TEST_P(CrashPoints, OfMessagesThatAreSpread) {
  KTRUNK_REQUIRE_TWO_PROCESSORS();
  constexpr unsigned kPoints = 120;
  ASSERT_NO_FATAL_FAILURE(begin());
  unsigned deaths = 0;
  for (unsigned point = 1 + static_cast<unsigned>(std::random_device{}()) % step(); point <= kPoints; point += step()) {
    if (pass_spread_messages(point)) ++deaths;
    if (HasFailure()) FAIL() << "at point " << point;
    if (in_quarantine() >= kMostInQuarantine) {
      ASSERT_NO_FATAL_FAILURE(begin());
    }
  }
  fmt::print("{} deaths\n", deaths);
  EXPECT_GT(deaths, kPoints / step() / 3);
}

// The gate is held for our KeyUpdate, and the home worker passes the peer's on.
TEST_P(CrashPoints, OfKeyUpdates) {
  KTRUNK_REQUIRE_KTLS();
  if (!ktls_support().rekey) GTEST_SKIP() << "this kernel takes no second set of keys (Linux 6.14 does)";
  rekeys_ = true;
  die_at_each([this](unsigned point) { return pass_messages(point); });
}

INSTANTIATE_TEST_SUITE_P(Workers, CrashPoints, testing::Values(Victim::kCallersHome, Victim::kTrunksHome),
                         [](const auto& victim) {
                           return victim.param == Victim::kCallersHome ? "CallersHome" : "TrunksHome";
                         });

}  // namespace
}  // namespace ktrunk::test
