// limits.key_records where keys cannot be renewed (TLS 1.2, kernels without rekey): our trunk's connection is replaced
// before it is closed, one that was accepted is closed in order once it is quiet; no message is lost.
#include <algorithm>
#include <atomic>

#include "system/record_layer_fixture.h"

namespace ktrunk::test {
namespace {

using testing::SizeIs;

// The target of a trunk: takes every connection, answers every request, and notes how each connection ends.
class EchoTarget {
 public:
  EchoTarget(const TcpListener& listener, TlsOptions tls)
      : thread_([&listener, tls, this](const std::stop_token& stop) { accept(listener, tls, stop); }) {}

  [[nodiscard]] unsigned accepted() const { return accepted_; }
  [[nodiscard]] unsigned ended_in_order() const { return ended_in_order_; }
  [[nodiscard]] unsigned ended_otherwise() const { return ended_otherwise_; }

 private:
  void accept(const TcpListener& listener, const TlsOptions& tls, const std::stop_token& stop) {
    std::vector<std::jthread> served;
    while (!stop.stop_requested()) {
      auto socket = listener.accept(milliseconds(100));
      if (!socket) continue;
      auto peer = HostilePeer::accept(std::move(*socket), tls, kLong);
      if (!peer) continue;
      ++accepted_;
      served.emplace_back(
          [this, owned = std::move(*peer)](const std::stop_token& end) mutable { serve(std::move(owned), end); });
    }
  }
  void serve(std::unique_ptr<HostilePeer> peer, const std::stop_token& stop) {
    SipStream stream(std::move(peer));
    while (!stop.stop_requested()) {
      const auto message = stream.receive_or_end(milliseconds(100));
      if (!message && message.error().code == ETIMEDOUT) continue;
      if (!message || !*message) {
        ++(message ? ended_in_order_ : ended_otherwise_);
        (void)stream.stream().finish();
        return;
      }
      SipMessage response = make_response(**message, 200, "OK");
      response.body = (*message)->body;
      if (!stream.send(response)) return;
    }
  }

  std::atomic<unsigned> accepted_{0};
  std::atomic<unsigned> ended_in_order_{0};
  std::atomic<unsigned> ended_otherwise_{0};
  std::jthread thread_;  // last: it uses what is above
};

class KeyLimit : public RecordLayerTest {};

TEST_F(KeyLimit, ATrunksConnectionIsReplaced) {
  for (const Tls version : {Tls::k12, Tls::k13}) {
    SCOPED_TRACE(version == Tls::k12 ? "TLS 1.2" : "TLS 1.3");
    ASSERT_NO_FATAL_FAILURE(start_with_hostile_trunk(
        version, {.limits = "key_records = 64", .tables = "", .ktrunk_lines = "", .workers = 2}));
    if (version == Tls::k13 && (kernel_rekeys() || !kernel_records())) return;  // it renews the keys
    const EchoTarget target(*hostile_listener_, with_version(as_pbx(), version));
    // The first connection goes to the target's kind of service too.
    SipStream first(std::move(hostile_));
    std::jthread first_served([&](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
        const auto message = first.receive_or_end(milliseconds(100));
        if (!message && message.error().code == ETIMEDOUT) continue;
        if (!message || !*message) {
          EXPECT_TRUE(message) << message.error().what;
          (void)first.stream().finish();
          return;
        }
        SipMessage response = make_response(**message, 200, "OK");
        response.body = (*message)->body;
        if (!first.send(response)) return;
      }
    });
    constexpr std::size_t kCallers = 4;
    // Until two have taken another's place, which takes the supervisor a look at the counts each time.
    constexpr unsigned kMostRequests = 100'000;
    const auto replaced_twice = [&] { return target.accepted() >= 2; };
    std::vector<std::string> failures(kCallers);
    std::vector<std::unique_ptr<SipStream>> callers;
    {
      std::vector<std::jthread> threads;
      for (std::size_t i = 0; i < kCallers; ++i) {
        auto stream = call_in();
        ASSERT_NE(stream, nullptr);
        callers.push_back(std::make_unique<SipStream>(std::move(stream)));
      }
      for (std::size_t i = 0; i < kCallers; ++i) {
        threads.emplace_back([&, i] {
          for (unsigned n = 0; n < kMostRequests && !replaced_twice(); ++n) {
            const std::string body = fmt::format("{}.{}", i, n);
            const auto answer = callers[i]->exchange(request_to("hostile.test", body), kLong);
            if (!answer || answer->status() != 200 || answer->body != body) {
              failures[i] = fmt::format("request {}: {}", body, answer ? answer->text() : answer.error().what);
              return;
            }
          }
        });
      }
    }
    for (const std::string& failure : failures) EXPECT_EQ(failure, "") << daemon_->log();
    EXPECT_GE(target.accepted(), 2u) << daemon_->log();
    EXPECT_TRUE(eventually([&] { return target.ended_in_order() + 1 >= target.accepted(); }, kSoon))
        << target.ended_in_order() << " of " << target.accepted() << daemon_->log();
    EXPECT_EQ(target.ended_otherwise(), 0u);
    const Status settled = daemon_->wait_status([](const Json& now) { return of_trunk(now, "hostile").size() == 1; });
    EXPECT_TRUE(settled) << settled.error().what;
    EXPECT_TRUE(eventually([&] { return status()["handshakes"]["replaced"].get<unsigned>() >= 2u; }, kSoon));
    first_served.request_stop();
    first_served.join();
    callers.clear();
    TearDown();
    daemon_.reset();
  }
}

TEST_F(KeyLimit, AnAcceptedConnectionIsClosedWhenQuiet) {
  ASSERT_NO_FATAL_FAILURE(
      start({.limits = "key_records = 64\ndrain = \"60s\"", .tables = "", .ktrunk_lines = "", .workers = 2}));
  auto peer = hostile_call_in(Tls::k12);
  ASSERT_NE(peer, nullptr);
  HostilePeer* raw = peer.get();
  SipStream stream(std::move(peer));
  auto neighbour = call_in();
  ASSERT_NE(neighbour, nullptr);
  SipStream other(std::move(neighbour));
  ASSERT_TRUE(answers(other, options_to_us(), 200));
  // It is not cut off in the middle of its calls, or between two of them.
  unsigned served = 0;
  for (; served < 65; ++served) ASSERT_TRUE(answers(stream, options_to_us(), 200)) << served << daemon_->log();
  const auto end = raw->receive_end(kLong);
  EXPECT_TRUE(end.how == HostilePeer::End::How::kAlert && end.alert == ktls::kCloseNotify)
      << end.error.what << daemon_->log();
  EXPECT_TRUE(gone(raw->local()));
  EXPECT_THAT(lines_about_end(raw->local()), SizeIs(testing::Ge(1u)));
  EXPECT_TRUE(answers(other, options_to_us(), 200));
}

}  // namespace
}  // namespace ktrunk::test
