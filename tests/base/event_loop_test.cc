// The event loop: handlers that end themselves and others, descriptors that hang up, timers.
#include "base/event_loop.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <vector>

namespace ktrunk {
namespace {

using std::chrono::milliseconds;

class EventLoopTest : public testing::Test {
 protected:
  EventLoopTest() : loop_(std::move(*EventLoop::create())) {}
  struct Pair {
    Fd near;
    Fd far;
  };
  static Pair pair() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    return {Fd(ends[0]), Fd(ends[1])};
  }
  static void poke(const Fd& fd) { EXPECT_EQ(::write(fd.get(), "x", 1), 1); }
  void turn(milliseconds wait = milliseconds(0)) { ASSERT_TRUE(loop_->turn(wait)); }
  std::unique_ptr<EventLoop> loop_;
};

TEST_F(EventLoopTest, TellsWhatIsReadyAndOnlyWhatIsWanted) {
  const Pair sockets = pair();
  std::vector<Ready> seen;
  auto watch = loop_->watch(sockets.near.get(), Interest::kRead, [&](Ready ready) { seen.push_back(ready); });
  ASSERT_TRUE(watch);
  turn();
  EXPECT_TRUE(seen.empty());
  poke(sockets.far);
  turn(milliseconds(1000));
  ASSERT_EQ(seen.size(), 1U);
  EXPECT_TRUE(seen[0].read);
  EXPECT_FALSE(seen[0].write);
  watch->set(Interest::kWrite);
  turn(milliseconds(1000));
  ASSERT_EQ(seen.size(), 2U);
  EXPECT_TRUE(seen[1].write);
  EXPECT_FALSE(seen[1].read);
  watch->set(Interest::kNothing);
  turn();
  EXPECT_EQ(seen.size(), 2U);
}

TEST_F(EventLoopTest, AHangUpIsSilentWhereNothingIsWanted) {
  Pair sockets = pair();
  int calls = 0;
  auto watch = loop_->watch(sockets.near.get(), Interest::kNothing, [&](Ready) { ++calls; });
  ASSERT_TRUE(watch);
  sockets.far.reset();
  for (int i = 0; i < 3; ++i) turn();
  EXPECT_EQ(calls, 0);
  watch->set(Interest::kWrite);
  turn(milliseconds(1000));
  EXPECT_EQ(calls, 1);
}

TEST_F(EventLoopTest, AHandlerMayEndItselfAndTheOthers) {
  std::array<Pair, 4> sockets;
  std::array<EventLoop::Watch, 4> watches;
  int calls = 0;
  for (std::size_t i = 0; i < sockets.size(); ++i) {
    sockets[i] = pair();
    auto canary = std::make_shared<int>(7);
    auto watch = loop_->watch(sockets[i].near.get(), Interest::kRead, [&, canary](Ready) {
      ++calls;
      for (auto& each : watches) each.reset();
      for (auto& each : sockets) each.near.reset();
      EXPECT_EQ(*canary, 7);  // what it has captured lives until it returns
      // A new watch on a descriptor of the same number must not get the old one's event.
      sockets[0] = pair();
      auto fresh = loop_->watch(sockets[0].near.get(), Interest::kRead, [](Ready) { FAIL() << "nothing to read"; });
      watches[0] = std::move(*fresh);
    });
    watches[i] = std::move(*watch);
    poke(sockets[i].far);
  }
  turn(milliseconds(1000));
  EXPECT_EQ(calls, 1);
  turn();
}

TEST_F(EventLoopTest, TimersComeInOrderAndOnce) {
  std::vector<int> order;
  const auto third = loop_->after(milliseconds(20), [&] { order.push_back(3); });
  const auto first = loop_->after(milliseconds(0), [&] { order.push_back(1); });
  const auto second = loop_->after(milliseconds(10), [&] { order.push_back(2); });
  EXPECT_TRUE(first.pending());
  for (int i = 0; i < 200 && order.size() < 3; ++i) turn(milliseconds(5));
  EXPECT_EQ(order, (std::vector{1, 2, 3}));
  EXPECT_FALSE(first.pending());
  turn();
  EXPECT_EQ(order.size(), 3U);
}

TEST_F(EventLoopTest, AnEndedTimerNeverComes) {
  bool called = false;
  {
    const auto timer = loop_->after(milliseconds(0), [&] { called = true; });
  }
  EventLoop::Timer victim;
  const auto killer = loop_->after(milliseconds(0), [&] { victim.reset(); });
  victim = loop_->after(milliseconds(0), [&] { called = true; });
  turn(milliseconds(5));
  turn(milliseconds(5));
  EXPECT_FALSE(called);
}

TEST_F(EventLoopTest, ATimerThatSetsItselfAgainLeavesTheTurn) {
  EventLoop::Timer timer;
  int calls = 0;
  std::function<void()> again = [&] {
    ++calls;
    timer = loop_->after(milliseconds(0), again);
  };
  again();
  turn();
  EXPECT_EQ(calls, 2);
  turn();
  EXPECT_EQ(calls, 3);
}

TEST_F(EventLoopTest, OneOfSeveralMayBeWokenAlone) {
  const auto other = std::move(*EventLoop::create());
  const Pair sockets = pair();
  int calls = 0;
  const auto count = [&](Ready) { ++calls; };
  auto watch = loop_->watch(sockets.near.get(), Interest::kRead, count, EventLoop::Wakes::kOne);
  auto others = other->watch(sockets.near.get(), Interest::kRead, count, EventLoop::Wakes::kOne);
  ASSERT_TRUE(watch && others);
  poke(sockets.far);
  turn();
  ASSERT_TRUE(other->turn(milliseconds(0)));
  EXPECT_GE(calls, 1);
  // Whoever stops watching leaves it to the other; whoever begins again sees what is there.
  watch->set(Interest::kNothing);
  others->set(Interest::kNothing);
  calls = 0;
  turn();
  ASSERT_TRUE(other->turn(milliseconds(0)));
  EXPECT_EQ(calls, 0);
  others->set(Interest::kRead);
  turn();
  ASSERT_TRUE(other->turn(milliseconds(1000)));
  EXPECT_EQ(calls, 1);
  others->set(Interest::kReadWrite);
  ASSERT_TRUE(other->turn(milliseconds(1000)));
  EXPECT_EQ(calls, 2);
}

TEST_F(EventLoopTest, ADescriptorThatCannotBeWatchedIsAnError) {
  EXPECT_FALSE(loop_->watch(-1, Interest::kRead, [](Ready) {}));
  const Pair sockets = pair();
  auto once = loop_->watch(sockets.near.get(), Interest::kRead, [](Ready) {});
  ASSERT_TRUE(once);
  EXPECT_FALSE(loop_->watch(sockets.near.get(), Interest::kRead, [](Ready) {}));
}

}  // namespace
}  // namespace ktrunk
