// Keys that change while messages flow: KeyUpdates of the peer and of ktrunkd (RFC 8446 4.6.3, 5.5), under load, with a
// peer that takes nothing, and while handshake processes die.
#include <signal.h>

#include <algorithm>
#include <atomic>

#include "base/processors.h"
#include "system/record_layer_fixture.h"

namespace ktrunk::test {
namespace {

using testing::SizeIs;

class Rekey : public RecordLayerTest {
 protected:
  static constexpr std::size_t kCallers = 6;

  // Why KeyUpdates cannot be followed here; empty if they can.
  [[nodiscard]] std::string cannot_rekey() const {
    if (kernel_records() && !kernel_rekeys()) return "this kernel takes no second set of keys (Linux 6.14 does)";
    return "";
  }
  [[nodiscard]] std::uint64_t tls_stat(const std::string& name) const {
    const Json now = status();
    return now["tls_stat"].value(name, std::uint64_t{0});
  }
  [[nodiscard]] std::uint64_t handshake_stat(const std::string& name) const {
    const Json now = status();
    return now["handshakes"].value(name, std::uint64_t{0});
  }
  // Callers of the trunk "carrier", so many that each worker is home of some: all workers write to the trunk.
  void open_callers() {
    for (std::size_t i = 0; i < kCallers; ++i) {
      auto stream = call_in();
      ASSERT_NE(stream, nullptr);
      callers_.push_back(std::make_unique<SipStream>(std::move(stream)));
      // A client's handshake is done before its server's is.
      ASSERT_TRUE(answers(*callers_.back(), options_to_us(), 200)) << daemon_->log();
    }
  }
  // Every caller sends requests to the trunk "hostile", of lengths below and above a record, until the stop; each must
  // come back whole. Gives the number of them.
  std::uint64_t call_until(const std::stop_token& stop, std::uint64_t at_least) {
    std::atomic<std::uint64_t> answered{0};
    std::vector<std::string> failures(callers_.size());
    {
      std::vector<std::jthread> threads;
      for (std::size_t i = 0; i < callers_.size(); ++i) {
        threads.emplace_back([&, i] {
          for (unsigned n = 0; !stop.stop_requested() || answered < at_least; ++n) {
            const std::size_t size = n % 16 == 15 ? 20'000 : n % 5 * 200;
            const std::string body = fmt::format("{}.{}.", i, n) + std::string(size, static_cast<char>('a' + n % 26));
            const auto answer = callers_[i]->exchange(request_to("hostile.test", body), kLong);
            if (!answer || answer->status() != 200 || answer->body != body) {
              failures[i] = answer ? answer->text().substr(0, 300) : answer.error().what;
              return;
            }
            ++answered;
          }
        });
      }
    }
    for (const std::string& failure : failures) EXPECT_EQ(failure, "") << daemon_->log();
    return answered;
  }
  // Every one that receives from callers: no more of them than there are processors.
  void expect_every_worker_wrote() const {
    const auto trunk = of_trunk(status(), "hostile");
    ASSERT_THAT(trunk, SizeIs(1));
    const Json& sent = trunk[0]["messages_sent"];
    const std::size_t receivers = std::min(sent.size(), static_cast<std::size_t>(processors()));
    for (std::size_t worker = 0; worker < receivers; ++worker)
      EXPECT_GT(sent[worker].get<std::uint64_t>(), 0u) << trunk[0].dump();
  }

  std::vector<std::unique_ptr<SipStream>> callers_;
};

// Each update_requested makes ktrunkd answer with a KeyUpdate of its own: both directions' keys change each time.
TEST_F(Rekey, BothDirectionsAThousandTimesUnderLoad) {
  ASSERT_NO_FATAL_FAILURE(
      start_with_hostile_trunk(Tls::k13, {.limits = "", .tables = "", .ktrunk_lines = "", .workers = 3}));
  if (const std::string why = cannot_rekey(); !why.empty()) GTEST_SKIP() << why;
  const bool kernel = kernel_records();
  const std::uint64_t transmit_before = tls_stat("TlsTxRekeyOk");
  const std::uint64_t receive_before = tls_stat("TlsRxRekeyOk");
  const std::uint64_t errors_before = tls_stat("TlsDecryptError");
  ASSERT_NO_FATAL_FAILURE(open_callers());
  HostilePeer* peer = hostile_.get();
  SipStream trunk(std::move(hostile_));
  const unsigned rounds = scaled(1000, 50);
  unsigned done = 0;
  {
    Echo echo(trunk);
    std::stop_source load_done;
    std::jthread updates([&] {
      for (; done < rounds; ++done) {
        const std::uint64_t seen = peer->key_updates_received();
        if (!peer->key_update(KeyUpdateRequest::kRequested) ||
            !eventually([&] { return peer->key_updates_received() > seen; }, kSoon))
          break;
        // More than 64 handshake records a second, for long, would be a flood.
        std::this_thread::sleep_for(milliseconds(16));
      }
      load_done.request_stop();
    });
    const std::uint64_t calls = call_until(load_done.get_token(), 100);
    RecordProperty("calls", static_cast<int>(calls));
    updates.join();
  }
  EXPECT_EQ(done, rounds) << daemon_->log();
  EXPECT_GE(peer->key_updates_sent(), rounds);
  EXPECT_GE(peer->key_updates_received(), rounds);
  expect_every_worker_wrote();
  if (kernel) {
    EXPECT_GE(tls_stat("TlsTxRekeyOk") - transmit_before, rounds);
    EXPECT_GE(tls_stat("TlsRxRekeyOk") - receive_before, rounds);
    EXPECT_EQ(tls_stat("TlsDecryptError"), errors_before);
    EXPECT_GE(handshake_stat("transmit_rekeyed"), rounds);
    EXPECT_GE(handshake_stat("receive_rekeyed"), rounds);
  }
  expect_idle();
}

// ktrunkd's own, because a key has protected limits.key_records records: in its direction by a KeyUpdate, in the peer's
// by asking for one.
TEST_F(Rekey, BecauseOfTheKeyLimit) {
  ASSERT_NO_FATAL_FAILURE(start_with_hostile_trunk(
      Tls::k13, {.limits = "key_records = 64", .tables = "", .ktrunk_lines = "", .workers = 3}));
  if (const std::string why = cannot_rekey(); !why.empty()) GTEST_SKIP() << why;
  ASSERT_NO_FATAL_FAILURE(open_callers());
  HostilePeer* peer = hostile_.get();
  SipStream trunk(std::move(hostile_));
  {
    Echo echo(trunk);
    std::stop_source enough;
    std::jthread wait([&] {
      (void)eventually([&] { return peer->key_updates_received() >= 3 && peer->key_updates_sent() >= 1; }, kLong);
      enough.request_stop();
    });
    EXPECT_GE(call_until(enough.get_token(), 300), 300u);
  }
  EXPECT_GE(peer->key_updates_received(), 3u) << daemon_->log();
  EXPECT_GE(peer->key_updates_sent(), 1u) << "it never asks for the peer's";
  EXPECT_THAT(of_trunk(status(), "hostile"), SizeIs(1));
  EXPECT_EQ(of_trunk(status(), "hostile")[0]["peer"], peer->local().text());
}

// A peer that takes nothing while keys change and while its connection ends costs nobody else anything.
TEST_F(Rekey, OfAPeerThatTakesNothing) {
  ASSERT_NO_FATAL_FAILURE(start_with_hostile_trunk(
      Tls::k13,
      {.limits = "max_queue_bytes = 131072\nstalled_peer = \"20s\"", .tables = "", .ktrunk_lines = "", .workers = 2}));
  if (const std::string why = cannot_rekey(); !why.empty()) GTEST_SKIP() << why;
  Echo pbx(*pbx_tls_);
  ASSERT_NO_FATAL_FAILURE(open_callers());
  SipStream& feeder = *callers_.back();
  const auto others_are_served = [&] {
    for (std::size_t i = 0; i + 1 < callers_.size(); ++i) {
      EXPECT_TRUE(answers(*callers_[i], request_to("tls.test"), 200)) << daemon_->log();
    }
  };
  // Fill every buffer on the way: until a request is refused for want of room.
  const std::string body(30'000, 'x');
  unsigned sent = 0;
  std::optional<SipMessage> refused;
  for (; sent < 2000 && !refused; ++sent) {
    ASSERT_TRUE(feeder.send(request_to("hostile.test", body)));
    if (auto answer = feeder.receive(milliseconds(20))) refused = std::move(*answer);
  }
  ASSERT_TRUE(refused) << daemon_->log();
  EXPECT_EQ(refused->status(), 503);
  // Now the keys are to change; our KeyUpdate cannot go out.
  ASSERT_TRUE(hostile_->key_update(KeyUpdateRequest::kRequested));
  others_are_served();
  expect_idle();
  // The peer reads again: all that was taken for it is there, and then the KeyUpdate, and new messages behind it.
  HostilePeer* peer = hostile_.get();
  SipStream trunk(std::move(hostile_));
  const auto drained = [&] {
    unsigned whole = 0;
    while (peer->key_updates_received() == 0 || whole == 0) {
      const auto message = trunk.receive(kSoon);
      // The KeyUpdate may be the last to come.
      if (!message && whole > 0 && peer->key_updates_received() > 0) break;
      if (!message) return testing::AssertionFailure() << message.error().what << " after " << whole;
      if (message->body != body) return testing::AssertionFailure() << "not whole: " << message->text().substr(0, 500);
      ++whole;
    }
    return testing::AssertionSuccess();
  }();
  EXPECT_TRUE(drained) << daemon_->log();
  {
    Echo echo(trunk);  // answers what is left
    EXPECT_TRUE(eventually([&] { return answers(*callers_[0], request_to("hostile.test", "again"), 200); }, kSoon));
  }
  // Once more, and now it ends: close_notify from the peer, which then takes nothing.
  for (unsigned i = 0; i < sent; ++i) ASSERT_TRUE(feeder.send(request_to("hostile.test", body)));
  ASSERT_TRUE(peer->finish());
  others_are_served();
  const Status closed = daemon_->wait_status([&](const Json& now) {
    return connections(now, [&](const Json& c) { return c["peer"] == peer->local().text(); }).empty();
  });
  EXPECT_TRUE(closed) << closed.error().what;
  others_are_served();
}

// Handshake processes die again and again, in the middle of calls and KeyUpdates: the kernel's connections live on, and
// their keys go on changing.
TEST_F(Rekey, WhileHandshakeProcessesDie) {
  ASSERT_NO_FATAL_FAILURE(start_with_hostile_trunk(
      Tls::k13, {.limits = "", .tables = "", .ktrunk_lines = "handshake_processes = 2", .workers = 2}));
  if (!kernel_records()) GTEST_SKIP() << "relayed connections end with their process";
  ASSERT_NO_FATAL_FAILURE(open_callers());
  HostilePeer* peer = hostile_.get();
  SipStream trunk(std::move(hostile_));
  const unsigned kills = scaled(12, 4);
  {
    Echo echo(trunk);
    std::stop_source killed;
    std::jthread updates([&](const std::stop_token& stop) {
      while (kernel_rekeys() && !stop.stop_requested()) {
        const std::uint64_t seen = peer->key_updates_received();
        if (!peer->key_update(KeyUpdateRequest::kRequested)) return;
        (void)eventually([&] { return peer->key_updates_received() > seen || stop.stop_requested(); }, kLong);
        std::this_thread::sleep_for(milliseconds(16));
      }
    });
    std::jthread killer([&] {
      for (unsigned i = 0; i < kills; ++i) {
        const std::string name = fmt::format("handshake/{}", i % 2);
        const pid_t pid = daemon_->pid_of(name);
        if (pid > 1) ::kill(pid, SIGKILL);
        const Status again = daemon_->wait_status([&](const Json& now) {
          return std::ranges::any_of(now["processes"], [&](const Json& process) {
            return process["name"] == name && process["pid"] > 1 && process["pid"] != pid;
          });
        });
        EXPECT_TRUE(again) << again.error().what;
        // The successor has gone on: a record over which processes die again and again is taken for the cause.
        const std::uint64_t seen = peer->key_updates_received();
        if (kernel_rekeys()) (void)eventually([&] { return peer->key_updates_received() > seen; }, kLong);
        std::this_thread::sleep_for(milliseconds(100));
      }
      killed.request_stop();
    });
    EXPECT_GT(call_until(killed.get_token(), 100), 0u);
    killer.join();
    updates.request_stop();
    updates.join();
    if (kernel_rekeys()) {
      // And it still works, with whoever is there now.
      for (int i = 0; i < 3; ++i) {
        const std::uint64_t seen = peer->key_updates_received();
        ASSERT_TRUE(peer->key_update(KeyUpdateRequest::kRequested));
        EXPECT_TRUE(eventually([&] { return peer->key_updates_received() > seen; }, kSoon)) << daemon_->log();
      }
    }
    EXPECT_TRUE(answers(*callers_[0], request_to("hostile.test"), 200));
  }
  for (const auto& caller : callers_) EXPECT_TRUE(with_peer(status(), caller->stream()));
  EXPECT_THAT(of_trunk(status(), "hostile"), SizeIs(1));
  expect_idle();
}

}  // namespace
}  // namespace ktrunk::test
