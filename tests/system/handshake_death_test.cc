// Handshake processes are killed at random moments during calls and new handshakes: no established connection of the
// kernel's ends, new handshakes succeed afterwards, nothing is left behind. Where connections are relayed, they end
// with their process; those of plain TCP do not.
#include <signal.h>

#include <atomic>

#include "system/caller.h"
#include "system/daemon_fixture.h"

namespace ktrunk::test {
namespace {

class HandshakeDeath : public DaemonTest {
 protected:
  static constexpr unsigned kProcesses = 2;
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(start({.ktrunk_lines = fmt::format("handshake_processes = {}\n", kProcesses)}));
  }
  // Kills one that is there, and not one of which it is not known whether it is.
  bool kill_one(std::mt19937& random) {
    const pid_t pid = daemon_->pid_of(fmt::format("handshake/{}", random() % kProcesses));
    return pid > 1 && ::kill(pid, SIGKILL) == 0;
  }
};

TEST_F(HandshakeDeath, ThreeHundredTimes) {
  const bool kernel = kernel_records();
  // Relayed, the trunk's connection is made again and again: somebody must take it, and let go of the last one.
  std::jthread pbx_again;
  if (!kernel) {
    pbx_again = std::jthread([&](const std::stop_token& stop) {
      std::unique_ptr<TlsStream> last;
      while (!stop.stop_requested()) {
        auto socket = pbx_tls_listener_->accept(milliseconds(100));
        if (!socket) continue;
        if (auto stream = TlsStream::accept(std::move(*socket), as_pbx(), milliseconds(10'000)))
          last = std::move(*stream);
      }
    });
  }
  Echo pbx(*pbx_tls_);
  Echo pbx_tcp(*pbx_tcp_);
  std::vector<std::unique_ptr<Caller>> callers;
  std::vector<Address> established;
  for (unsigned i = 0; kernel && i < 3; ++i) {
    auto stream = call_in();
    ASSERT_NE(stream, nullptr);
    established.push_back(stream->local());
    callers.push_back(std::make_unique<Caller>(std::move(stream), i));
  }
  auto tcp = call_in_tcp();
  ASSERT_NE(tcp, nullptr);
  callers.push_back(std::make_unique<Caller>(std::move(tcp), 7, "tcp.test"));
  const auto before = settled_descriptors();
  // New handshakes all the time; those that a death cuts off are tried again.
  std::atomic<unsigned> made = 0;
  std::jthread newcomers([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      auto stream = TlsStream::connect(edge_tls_, as_carrier(), milliseconds(10'000));
      if (stream) ++made;
    }
  });
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  const unsigned kills = std::max(6U, 300 / scale());
  for (unsigned killed = 0; killed < kills;) {
    std::this_thread::sleep_for(milliseconds(random() % 200));
    if (kill_one(random) && ++killed % 10 == 0) {
      // On a slow machine none may get through unless there is a pause.
      const unsigned before_pause = made;
      EXPECT_TRUE(eventually([&] { return made > before_pause; }, kLong)) << daemon_->log();
    }
    for (const auto& caller : callers) ASSERT_EQ(caller->problem, "") << "seed " << seed << "\n" << daemon_->log();
  }
  newcomers.request_stop();
  newcomers.join();
  if (pbx_again.joinable()) {
    pbx_again.request_stop();
    pbx_again.join();
  }
  std::size_t answered = 0;
  for (const auto& caller : callers) {
    caller->finish();
    EXPECT_EQ(caller->problem, "") << "seed " << seed << "\n" << daemon_->log();
    EXPECT_EQ(caller->missing.size(), 0U) << "seed " << seed;
    EXPECT_EQ(caller->doubled, 0U);
    answered += caller->answered;
  }
  // As good as before: every process takes new peers.
  for (unsigned i = 0; i < 4 * kProcesses; ++i) {
    auto stream = call_in();
    ASSERT_NE(stream, nullptr);
    SipStream sip(std::move(stream));
    EXPECT_TRUE(answers(sip, request_to("tcp.test", "after"), 200));
  }
  const Json now = status();
  for (const Address& peer : established) {
    EXPECT_EQ(connections(now, [&](const Json& c) { return c["peer"] == peer.text(); }).size(), 1U);
  }
  EXPECT_TRUE(eventually(
      [&] {
        const auto after = settled_descriptors();
        return std::ranges::all_of(before, [&](const auto& each) {
          const auto found = after.find(each.first);
          return found != after.end() && found->second <= each.second + (kernel ? 0 : 2);
        });
      },
      kLong))
      << "descriptors are left open";
  fmt::print("{} kills, {} new handshakes and {} messages meanwhile\n", kills, made.load(), answered);
}

}  // namespace
}  // namespace ktrunk::test
