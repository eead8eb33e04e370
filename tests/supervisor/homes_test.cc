// Who receives from which connection: new ones, and those that move because their home has far more to do than another.
#include <algorithm>
#include <array>
#include <chrono>

#include "supervisor/connections_fixture.h"

namespace ktrunk::supervisor {
namespace {

using namespace std::chrono_literals;
using Outcome = ipc::Moved::Outcome;

class HomesTest : public ConnectionsTest {
 protected:
  HomesTest() {
    for (ConnectionId& id : ids) id = open({.layer = ipc::RecordLayerKind::kNone});
  }
  // One second, in which worker 0 has handled so many messages, of its two connections in these shares.
  void second(std::uint64_t messages, std::uint64_t first, std::uint64_t second) {
    region.worker(w0).messages_received.add(messages);
    received(ids[0], first);
    received(ids[2], second);
    now += 1s;
    connections.look(now);
  }
  // Connections 0 and 2 are at home at worker 0, the others at worker 1.
  std::array<ConnectionId, 4> ids;
  Clock::time_point now{};
};

TEST_F(HomesTest, NewConnectionsGoWhereThereIsLeastToDo) {
  ASSERT_EQ(home(ids[0]), w0);
  ASSERT_EQ(home(ids[1]), w1);
  ASSERT_EQ(home(ids[2]), w0);
  ASSERT_EQ(home(ids[3]), w1);
  EXPECT_EQ(connections.least_loaded(), w0);
  second(1000, 10, 10);
  EXPECT_EQ(connections.least_loaded(), w1);
  second(0, 0, 0);
  EXPECT_EQ(connections.least_loaded(), w0);
}

TEST_F(HomesTest, NoMoreWorkersReceiveThanThereAreProcessors) {
  Connections few(config, region, mail, 1);
  few.worker_ready(w1);
  EXPECT_EQ(few.least_loaded(), w1) << "the first that is there";
  few.worker_ready(w0);
  region.worker(w0).messages_received.add(1000);
  few.look(now += 1s);
  EXPECT_EQ(few.least_loaded(), w0) << "whatever it has to do";
  few.worker_ended(w0, kEstate);
  EXPECT_EQ(few.least_loaded(), w1);
}

TEST_F(HomesTest, AConnectionMovesFromAWorkerThatHasFarMoreToDo) {
  second(1000, 60, 40);
  second(1000, 60, 40);
  EXPECT_EQ(mail.take(), (Notes{"move w0"}));
  ASSERT_EQ(mail.moves, (std::vector{ids[0]}));
  second(1000, 60, 40);
  EXPECT_EQ(mail.take(), Notes{}) << "one at a time";
  EXPECT_EQ(home(ids[0]), w0) << "until it has stopped receiving";
  region.slot(ids[0].slot).octets_number = 77;
  EXPECT_TRUE(connections.moved(w0, {.connection = ids[0]}));
  EXPECT_EQ(mail.take(), (Notes{"start w1"}));
  EXPECT_EQ(home(ids[0]), w1);
  EXPECT_EQ(region.slot(ids[0].slot).octets_number, 0U);
  EXPECT_FALSE(connections.moved(w0, {.connection = ids[0]})) << "it is not its home any more";
}

TEST_F(HomesTest, OneThatDoesEverythingStaysAndSoDoesASpreadOne) {
  for (int i = 0; i < 5; ++i) second(1000, 60, 1);
  EXPECT_EQ(mail.take(), Notes{}) << "the other worker would have as much to do as this one has";
  region.slot(ids[0].slot).spread = 1;
  region.slot(ids[2].slot).spread = 1;
  for (int i = 0; i < 5; ++i) second(1000, 60, 40);
  EXPECT_EQ(mail.take(), Notes{});
}

TEST_F(HomesTest, SmallOrShortDifferencesAreLeftAlone) {
  for (int i = 0; i < 10; ++i) {
    second(i % 2 == 0 ? 1000 : 0, 60, 40);
    region.worker(w1).messages_received.add(600);
  }
  for (int i = 0; i < 10; ++i) second(30, 60, 40);
  EXPECT_EQ(mail.take(), Notes{});
}

TEST_F(HomesTest, AHomeMayKeepIt) {
  second(1000, 60, 40);
  second(1000, 60, 40);
  mail.take();
  EXPECT_TRUE(connections.moved(w0, {.connection = ids[0], .outcome = Outcome::kKept}));
  EXPECT_EQ(mail.take(), Notes{});
  EXPECT_EQ(home(ids[0]), w0);
  second(1000, 60, 40);
  EXPECT_EQ(mail.take(), Notes{});
  for (int i = 0; i < 3; ++i) second(1000, 60, 40);
  EXPECT_EQ(mail.take(), (Notes{"move w0"})) << "later once more";
}

TEST_F(HomesTest, AnAnswerThatNobodyAskedForIsABreach) {
  EXPECT_FALSE(connections.moved(w0, {.connection = ids[0]}));
  second(1000, 60, 40);
  second(1000, 60, 40);
  EXPECT_FALSE(connections.moved(w0, {.connection = ids[2]}));
  EXPECT_FALSE(connections.moved(w1, {.connection = ids[0]}));
}

TEST_F(HomesTest, TheOldHomeGoesOnWhereTheNewOneHasDied) {
  second(1000, 60, 40);
  second(1000, 60, 40);
  connections.worker_ended(w1, kEstate);
  mail.take();
  EXPECT_TRUE(connections.moved(w0, {.connection = ids[0]}));
  EXPECT_EQ(mail.take(), (Notes{"start w0"}));
  EXPECT_EQ(home(ids[0]), w0);
}

TEST_F(HomesTest, TheSuccessorOfADeadHomeKeepsIt) {
  second(1000, 60, 40);
  second(1000, 60, 40);
  connections.worker_ended(w0, kEstate);
  mail.take();
  connections.worker_ready(w0);
  for (const ConnectionId id : ids) EXPECT_TRUE(connections.held(w0, id));
  const Notes notes = mail.take();
  EXPECT_EQ(std::ranges::count(notes, "start w0"), 2);
  EXPECT_EQ(home(ids[0]), w0);
  EXPECT_FALSE(connections.moved(w0, {.connection = ids[0]})) << "it knows nothing of it";
}

TEST_F(HomesTest, AConnectionThatEndsMeanwhileMovesNoMore) {
  second(1000, 60, 40);
  second(1000, 60, 40);
  EXPECT_TRUE(connections.fault(w0, fault(ids[0], ipc::FaultReason::kReset)));
  mail.take();
  EXPECT_TRUE(connections.moved(w0, {.connection = ids[0], .outcome = Outcome::kKept}));
  EXPECT_TRUE(connections.moved(w0, {.connection = ids[0]}));
  EXPECT_EQ(mail.take(), Notes{});
}

}  // namespace
}  // namespace ktrunk::supervisor
