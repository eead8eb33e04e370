// A handshake process dies after each of its stores to shared memory in turn, after each of its words to the
// supervisor, and between keys in the kernel and the note of them: while it takes a connection, makes one, changes
// keys, and makes ticket keys. Whatever the point was: established connections go on (of relays: those of plain TCP),
// their keys can be changed, and the next handshakes succeed.
#include <array>
#include <atomic>
#include <functional>
#include <mutex>
#include <random>
#include <thread>

#include "system/crash_point_fixture.h"

namespace ktrunk::test {
namespace {

class HandshakeCrashPoints : public CrashPointTest {
 protected:
  void begin(const std::string& ktrunk_lines = "", const std::string& limits = "") {
    ASSERT_NO_FATAL_FAILURE(start(
        {.limits = limits, .ktrunk_lines = ktrunk_lines, .workers = 2, .program = program(), .env = environment()}));
    kernel_ = kernel_records();
    std::unique_ptr<ByteStream> caller;
    if (kernel_) {
      auto stream = call_in();
      callers_tls_ = stream.get();
      caller = std::move(stream);
    } else {
      caller = call_in_tcp();
    }
    ASSERT_NE(caller, nullptr);
    callers_address_ = caller->local();
    caller_ = std::make_unique<SipStream>(std::move(caller));
    ASSERT_TRUE(answers(*caller_, options_to_us(), 200));
    executioner_ = std::jthread([this](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
        kill_the_victim();
        std::this_thread::sleep_for(milliseconds(2));
      }
    });
  }
  void TearDown() override {
    if (executioner_.joinable()) {
      executioner_.request_stop();
      executioner_.join();
    }
    accepting_ = {};
    CrashPointTest::TearDown();
  }

  void arm_victim(unsigned point) {
    const std::lock_guard lock(mutex_);
    arm("handshake/0", point);
  }
  bool kill_the_victim() {
    const std::lock_guard lock(mutex_);
    return kill_at_point();
  }
  // What is still to come of what was done comes; then the victim does not die any more. True if it has.
  bool is_over() {
    std::this_thread::sleep_for(milliseconds(100));
    const std::lock_guard lock(mutex_);
    disarm();
    return died_;
  }
  [[nodiscard]] bool rekeys() const { return kernel_ && ktls_support().rekey; }

  // The final answer to this request; answers to earlier ones may still come before it.
  static Result<SipMessage> answer_to(SipStream& stream, const SipMessage& request, milliseconds timeout = kLong) {
    if (const Status sent = stream.send(request); !sent) return std::unexpected(sent.error());
    for (;;) {
      auto answer = stream.receive(timeout);
      if (!answer) return answer;
      if (answer->header("Call-ID") == request.header("Call-ID") && answer->status() >= 200) return answer;
    }
  }
  testing::AssertionResult passes(SipStream& stream, std::string_view host) {
    const std::string body = fmt::format("message {}", ++messages_);
    const auto answer = answer_to(stream, request_to(host, body));
    if (!answer) return testing::AssertionFailure() << answer.error().what << daemon_->log();
    if (answer->status() == 200 && answer->body == body) return testing::AssertionSuccess();
    return testing::AssertionFailure() << answer->text() << daemon_->log();
  }
  // In relay a message may be lost with its connection.
  [[nodiscard]] bool trunk_answers() {
    const auto answer = answer_to(*caller_, request_to("tls.test"), milliseconds(2'000));
    return answer && answer->status() == 200;
  }
  // Keys of both directions change, and octets pass under them.
  testing::AssertionResult renews_keys(SipStream& sip, TlsStream& tls) {
    if (!tls.key_update(SSL_KEY_UPDATE_REQUESTED)) return testing::AssertionFailure() << "no KeyUpdate";
    const auto answer = answer_to(sip, options_to_us());
    if (answer && answer->status() == 200) return testing::AssertionSuccess();
    return testing::AssertionFailure() << "after a KeyUpdate: " << (answer ? answer->text() : answer.error().what)
                                       << daemon_->log();
  }
  // After a death: a successor, the caller's connection as it was, and handshakes that succeed.
  void expect_repaired() {
    EXPECT_TRUE(eventually([this] { return has_successor(); }, kLong)) << daemon_->log();
    EXPECT_TRUE(passes(*caller_, "tcp.test"));
    EXPECT_EQ(connections(status(), [this](const Json& row) { return row["peer"] == callers_address_.text(); }).size(),
              1U)
        << daemon_->log();
    if (rekeys()) {
      EXPECT_TRUE(renews_keys(*caller_, *callers_tls_));
    }
    auto stream = call_in();
    ASSERT_NE(stream, nullptr);
    TlsStream& tls = *stream;
    SipStream sip(std::move(stream));
    EXPECT_TRUE(answers(sip, options_to_us(), 200)) << daemon_->log();
    if (rekeys()) {
      EXPECT_TRUE(renews_keys(sip, tls));
    }
  }

  // A peer connects, says something, and goes. False when all that has passed without coming to the point.
  bool pass_accepted(unsigned point) {
    arm_victim(point);
    auto stream = TlsStream::connect(edge_tls_, as_carrier(), kLong);
    TlsStream* tls = stream ? stream->get() : nullptr;
    std::optional<SipStream> sip;
    if (stream) sip.emplace(std::move(*stream));
    const auto answer = sip ? answer_to(*sip, options_to_us()) : Result<SipMessage>(fail("no connection"));
    std::this_thread::sleep_for(milliseconds(50));  // it may still have something to note down
    const bool up = answer && answer->status() == 200;
    // One that has got through is a connection like any other, even if nobody lived to hear how it is called.
    if (up && kill_the_victim() && rekeys()) {
      EXPECT_TRUE(renews_keys(*sip, *tls));
    }
    if (up) {
      const Address address = tls->local();
      (void)tls->finish();
      sip.reset();
      EXPECT_TRUE(gone(address)) << daemon_->log();
    }
    const bool died = is_over();
    EXPECT_TRUE(up || died) << "a handshake came to nothing: " << (answer ? "" : answer.error().what) << daemon_->log();
    if (died) expect_repaired();
    return died;
  }

  // The PBX ends the trunk's connection, and takes those that come until one lasts.
  bool pass_connected(unsigned point) {
    arm_victim(point);
    accepting_ = std::jthread();
    (void)trunk_->stream().finish();
    trunk_.reset();
    accept_trunk();
    EXPECT_TRUE(eventually([this] { return trunk_answers(); }, kLong)) << daemon_->log();
    const bool died = is_over();
    if (died) expect_repaired();
    // In relay the death may have come after that.
    EXPECT_TRUE(eventually([this] { return trunk_answers() && of_trunk(status(), "pbx-tls").size() == 1; }, kLong))
        << daemon_->log();
    return died;
  }
  // On a thread: takes the trunk's connections, the newest of which is served.
  void accept_trunk() {
    accepting_ = std::jthread([this](const std::stop_token& stop) {
      std::optional<Echo> echo;
      while (!stop.stop_requested()) {
        auto socket = pbx_tls_listener_->accept(milliseconds(20));
        if (!socket) continue;
        auto stream = TlsStream::accept(std::move(*socket), as_pbx(), milliseconds(10'000));
        if (!stream) continue;
        echo.reset();
        TlsStream* tls = stream->get();
        trunk_ = std::make_unique<SipStream>(std::move(*stream));
        // New keys with its first answer.
        if (rekeys()) (void)tls->key_update(SSL_KEY_UPDATE_REQUESTED);
        echo.emplace(*trunk_);
      }
    });
  }

  // Both directions' keys of the caller's connection change.
  bool pass_key_update(unsigned point) {
    arm_victim(point);
    EXPECT_TRUE(renews_keys(*caller_, *callers_tls_));
    const bool died = is_over();
    if (died) expect_repaired();
    return died;
  }

  // At each point in turn until what is done passes without coming to one.
  void die_at_each(unsigned at_least, const std::function<bool(unsigned)>& pass) {
    unsigned point = 1 + static_cast<unsigned>(std::random_device{}()) % step();
    unsigned deaths = 0;
    for (; pass(point); point += step(), ++deaths) {
      if (HasFailure()) FAIL() << "at point " << point;
    }
    fmt::print("{} deaths at {} points\n", deaths, point);
    EXPECT_GT(point, at_least) << "what was done takes more stores than that: the points are not there";
  }

  bool kernel_ = false;
  std::unique_ptr<SipStream> caller_;
  TlsStream* callers_tls_ = nullptr;  // beneath it; the kernel's connections outlive handshake processes
  Address callers_address_;
  unsigned messages_ = 0;
  std::unique_ptr<SipStream> trunk_;  // the PBX's end, once it has been made again
  std::jthread accepting_;
  std::mutex mutex_;  // who is to die
  std::jthread executioner_;
};

TEST_F(HandshakeCrashPoints, OfConnectionsThatPeersMake) {
  ASSERT_NO_FATAL_FAILURE(begin());
  Echo pbx(*pbx_tcp_);
  die_at_each(kernel_ ? 15 : 2, [this](unsigned point) { return pass_accepted(point); });
}

TEST_F(HandshakeCrashPoints, OfConnectionsThatWeMake) {
  ASSERT_NO_FATAL_FAILURE(begin());
  Echo pbx(*pbx_tcp_);
  trunk_ = std::move(pbx_tls_);
  die_at_each(kernel_ ? 15 : 2, [this](unsigned point) { return pass_connected(point); });
}

TEST_F(HandshakeCrashPoints, OfKeyUpdates) {
  KTRUNK_REQUIRE_KTLS();
  if (!ktls_support().rekey) GTEST_SKIP() << "this kernel takes no second set of keys (Linux 6.14 does)";
  ASSERT_NO_FATAL_FAILURE(begin());
  Echo pbx(*pbx_tcp_);
  die_at_each(8, [this](unsigned point) { return pass_key_update(point); });
}

// Our own, of both directions, because keys have protected their number of records.
TEST_F(HandshakeCrashPoints, OfKeyUpdatesOfOurs) {
  KTRUNK_REQUIRE_KTLS();
  if (!ktls_support().rekey) GTEST_SKIP() << "this kernel takes no second set of keys (Linux 6.14 does)";
  ASSERT_NO_FATAL_FAILURE(begin("", "key_records = 16\n"));
  Echo pbx(*pbx_tcp_);
  constexpr unsigned kPoints = 60;
  unsigned deaths = 0;
  for (unsigned point = 1 + static_cast<unsigned>(std::random_device{}()) % step(); point <= kPoints; point += step()) {
    arm_victim(point);
    for (int message = 0; message < 200 && !kill_the_victim(); ++message) ASSERT_TRUE(passes(*caller_, "tcp.test"));
    if (is_over()) ++deaths;
    if (died_) expect_repaired();
    if (HasFailure()) FAIL() << "at point " << point;
  }
  fmt::print("{} deaths\n", deaths);
  EXPECT_GT(deaths, kPoints / step() / 3);
  const auto row = with_peer(status(), caller_->stream());
  ASSERT_TRUE(row) << daemon_->log();
}

// Process 0 makes them, the other one uses them.
TEST_F(HandshakeCrashPoints, OfTicketKeys) {
  ASSERT_NO_FATAL_FAILURE(begin("handshake_processes = 2\nticket_rotation = \"1s\"\n"));
  Echo pbx(*pbx_tcp_);
  TlsStream::Session session;
  // With the ticket of the visit before, which is too old after a second or two.
  const auto visit = [&] {
    TlsOptions options = as_carrier();
    options.session = session.get();
    auto stream = call_in(options);
    if (stream == nullptr) return false;
    TlsStream& tls = *stream;
    SipStream sip(std::move(stream));
    EXPECT_TRUE(answers(sip, options_to_us(), 200)) << daemon_->log();
    session = tls.session();
    const bool resumed = tls.resumed();
    (void)tls.finish();  // what is cut off is not resumed
    return resumed;
  };
  constexpr unsigned kPoints = 8;  // four rotations
  unsigned deaths = 0;
  for (unsigned point = 1 + static_cast<unsigned>(std::random_device{}()) % step(); point <= kPoints; point += step()) {
    arm_victim(point);
    if (eventually([this] { return kill_the_victim(); }, kLong)) ++deaths;
    if (is_over()) expect_repaired();
    for (int visits = 0; visits < 4; ++visits) EXPECT_TRUE(eventually(visit, kLong)) << "no ticket opens";
    if (HasFailure()) FAIL() << "at point " << point;
  }
  fmt::print("{} deaths\n", deaths);
  EXPECT_GE(deaths, kPoints / step());
}

}  // namespace
}  // namespace ktrunk::test
