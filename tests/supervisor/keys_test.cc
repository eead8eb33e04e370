// Key limits, connections that take another's place, and those that are let run dry.
#include <fcntl.h>

#include <chrono>

#include "supervisor/connections_fixture.h"

namespace ktrunk::supervisor {
namespace {

using namespace std::chrono_literals;

class KeysTest : public ConnectionsTest {
 protected:
  void after(Clock::duration time) {
    now += time;
    connections.look(now);
  }
  // Our KeyUpdate, from first to last.
  void renew_transmit(ConnectionId id) {
    EXPECT_TRUE(connections.send_control(
        h0, {.connection = id, .record_type = 22, .bytes = 5, .after = ipc::SendControl::After::kHoldSends}));
    EXPECT_TRUE(connections.control_sent(home(id), {.connection = id}));
    EXPECT_TRUE(connections.resume(h0, {.connection = id, .what = ipc::Resume::What::kSendRekeyed}));
    mail.take();
  }
  [[nodiscard]] ConnectionId listed(unsigned place) const { return region.trunk(TrunkId{0}).connection(place); }
  Clock::time_point now{};
};

TEST_F(KeysTest, TheOwnerIsAskedOnceWhenTheWorkersTogetherReachTheLimit) {
  const ConnectionId id = open({.reference = 7, .by = h1});
  sent(id, w0, 60);
  after(1s);
  EXPECT_EQ(mail.take(), Notes{});
  sent(id, w1, 40);
  after(1s);
  EXPECT_EQ(mail.take(), (Notes{"renew 7 tx h1"}));
  after(59s);
  EXPECT_EQ(mail.take(), Notes{});
  after(1s);
  EXPECT_EQ(mail.take(), (Notes{"renew 7 tx h1"})) << "nothing has come of it";
}

TEST_F(KeysTest, EachDirectionHasItsOwnKeys) {
  const ConnectionId id = open();
  received(id, 100);
  after(1s);
  EXPECT_EQ(mail.take(), (Notes{"renew 1 rx"}));
  sent(id, w0, 100);
  after(1s);
  EXPECT_EQ(mail.take(), (Notes{"renew 1 tx"}));
}

TEST_F(KeysTest, RenewedKeysStartFromNothing) {
  const ConnectionId id = open();
  sent(id, w0, 150);
  after(1s);
  renew_transmit(id);
  sent(id, w0, 99);
  after(1s);
  EXPECT_EQ(mail.take(), Notes{});
  sent(id, w0, 1);
  after(1s);
  EXPECT_EQ(mail.take(), (Notes{"renew 1 tx"}));
  EXPECT_EQ(connections.view(id.slot).transmit_renewals, 1U);
}

TEST_F(KeysTest, RelaysRenewByThemselves) {
  const ConnectionId id = open({.layer = ipc::RecordLayerKind::kRelay});
  sent(id, w0, 500);
  after(1s);
  EXPECT_EQ(mail.take(), (Notes{"renew 1 tx"}));
  sent(id, w0, 99);
  after(100s);
  EXPECT_EQ(mail.take(), Notes{});
  sent(id, w0, 1);
  after(1s);
  EXPECT_EQ(mail.take(), (Notes{"renew 1 tx"}));
  EXPECT_EQ(connections.view(id.slot).transmit_renewals, 2U);
}

TEST_F(KeysTest, PlainTcpHasNoKeys) {
  const ConnectionId id = open({.layer = ipc::RecordLayerKind::kNone});
  sent(id, w0, 1000);
  received(id, 1000);
  after(1s);
  EXPECT_EQ(mail.take(), Notes{});
}

TEST_F(KeysTest, KeysThatCannotBeRenewedEndTheConnection) {
  const ConnectionId id = open();
  sent(id, w0, 5000);
  after(1s);
  EXPECT_EQ(mail.take(), (Notes{"renew 1 tx"})) << "however many there are at first, the owner gets its chance";
  after(4s);
  EXPECT_EQ(state(id), ipc::SlotState::kOpen);
  after(1s);
  EXPECT_EQ(state(id), ipc::SlotState::kClosing);
  EXPECT_EQ(mail.take(), (Notes{"flush w1"})) << "in order";
  release(id);
  EXPECT_EQ(mail.take().back(), "gone 1 again");
}

TEST_F(KeysTest, UnderTwiceTheLimitItIsOnlyAskedAgain) {
  const ConnectionId id = open();
  sent(id, w0, 199);
  for (int i = 0; i < 10; ++i) after(60s);
  EXPECT_EQ(state(id), ipc::SlotState::kOpen);
  EXPECT_EQ(mail.take().size(), 10U);
}

TEST_F(KeysTest, ASuccessorIsAskedAtOnce) {
  const ConnectionId id = open();
  sent(id, w0, 100);
  after(1s);
  mail.take();
  connections.handshake_ended(h0, Connections::Cause::kItself);
  connections.handshake_ready(h0);
  EXPECT_EQ(mail.take(), (Notes{"renew 0 tx"}));
  EXPECT_TRUE(connections.send_control(
      h0, {.connection = id, .record_type = 22, .bytes = 5, .after = ipc::SendControl::After::kHoldSends}));
  mail.take();
  connections.handshake_ended(h0, Connections::Cause::kItself);
  connections.handshake_ready(h0);
  EXPECT_EQ(mail.take(), Notes{}) << "the KeyUpdate is on its way";
}

TEST_F(KeysTest, ASlotsNextLifeHasFreshKeys) {
  const ConnectionId first = open();
  sent(first, w0, 100);
  after(1s);
  connections.close_all();
  release(first);
  const ConnectionId second = open();
  ASSERT_EQ(first.slot, second.slot);
  after(100s);
  EXPECT_EQ(mail.take(), Notes{});
}

TEST_F(KeysTest, AReplacementTakesTheOthersPlaceWhenItIsOpen) {
  const ConnectionId keeps = open({.trunk = TrunkId{0}});
  const ConnectionId old = open({.trunk = TrunkId{0}});
  ASSERT_EQ(listed(1), old);
  const ConnectionId fresh = establish({.reference = 2, .trunk = TrunkId{0}, .replaces = old});
  EXPECT_TRUE(connections.held(w0, fresh));
  EXPECT_EQ(listed(1), old) << "not yet";
  EXPECT_TRUE(connections.held(w1, fresh));
  EXPECT_EQ(listed(0), keeps);
  EXPECT_EQ(listed(1), fresh);
  EXPECT_FALSE(listed(2).valid());
  EXPECT_EQ(state(old), ipc::SlotState::kOpen) << "it goes on for what is under way";
  EXPECT_TRUE(connections.view(old.slot).retired);
  mail.take();
  after(1s);
  after(1s);
  EXPECT_EQ(mail.take(), (Notes{fmt::format("flush w{}", 1 - home(old).value)}));
  release(old);
  EXPECT_EQ(listed(1), fresh);
}

TEST_F(KeysTest, AReplacementOfWhatIsGoneIsListedAsAnyOther) {
  const ConnectionId old = open({.trunk = TrunkId{0}});
  const ConnectionId fresh = establish({.trunk = TrunkId{0}, .replaces = old});
  EXPECT_TRUE(connections.fault(w0, fault(old, ipc::FaultReason::kReset)));
  EXPECT_TRUE(connections.held(w0, fresh));
  EXPECT_TRUE(connections.held(w1, fresh));
  EXPECT_EQ(listed(0), fresh);
}

TEST_F(KeysTest, AReplacementThatNeverOpensChangesNothing) {
  const ConnectionId old = open({.trunk = TrunkId{0}});
  const ConnectionId fresh = establish({.trunk = TrunkId{0}, .replaces = old});
  EXPECT_TRUE(connections.fault(h0, fault(fresh, ipc::FaultReason::kReset)));
  EXPECT_EQ(listed(0), old);
  EXPECT_FALSE(connections.view(old.slot).retired);
}

TEST_F(KeysTest, NoTrunkTakesAnotherTrunksPlace) {
  const ConnectionId old = open({.trunk = TrunkId{0}});
  ipc::Established message{.replaces = old, .info = {}};
  message.info.trunk = TrunkId{1};
  EXPECT_FALSE(connections.established(h1, message, Fd(::eventfd(0, EFD_CLOEXEC))));
  message.info.trunk = {};
  EXPECT_FALSE(connections.established(h1, message, Fd(::eventfd(0, EFD_CLOEXEC))));
}

TEST_F(KeysTest, ARetiredConnectionIsClosedWhenItIsQuiet) {
  const ConnectionId id = open({.trunk = TrunkId{0}});
  EXPECT_TRUE(connections.retire(h0, {.connection = id}));
  EXPECT_TRUE(connections.retire(h0, {.connection = id})) << "once more is no matter";
  EXPECT_FALSE(listed(0).valid());
  EXPECT_EQ(state(id), ipc::SlotState::kOpen);
  after(100ms);
  sent(id, w1, 1);
  after(900ms);
  received(id, 1);
  after(900ms);
  after(900ms);
  EXPECT_EQ(state(id), ipc::SlotState::kOpen);
  EXPECT_EQ(mail.take(), Notes{});
  after(100ms);
  EXPECT_EQ(state(id), ipc::SlotState::kClosing);
  EXPECT_EQ(mail.take(), (Notes{"flush w1"}));
  after(10s);
  EXPECT_EQ(mail.take(), Notes{});
}

TEST_F(KeysTest, ABusyRetiredConnectionIsClosedAfterItsTime) {
  const ConnectionId id = open();
  EXPECT_TRUE(connections.retire(h0, {.connection = id}));
  after(100ms);
  for (int i = 0; i < 9; ++i) {
    received(id, 1);
    after(500ms);
    EXPECT_EQ(state(id), ipc::SlotState::kOpen);
  }
  received(id, 1);
  after(500ms);
  EXPECT_EQ(state(id), ipc::SlotState::kClosing);
}

TEST_F(KeysTest, ARetiredConnectionsKeysAreNotRenewed) {
  const ConnectionId id = open();
  EXPECT_TRUE(connections.retire(h0, {.connection = id}));
  sent(id, w0, 150);
  after(100ms);
  EXPECT_EQ(mail.take(), Notes{});
}

TEST_F(KeysTest, ARetiredConnectionMayEndByItself) {
  const ConnectionId id = open();
  EXPECT_TRUE(connections.retire(h0, {.connection = id}));
  EXPECT_TRUE(connections.fault(w0, fault(id, ipc::FaultReason::kCloseNotify)));
  release(id);
  const ConnectionId next = open();
  ASSERT_EQ(next.slot, id.slot);
  after(1s);
  after(10s);
  EXPECT_EQ(state(next), ipc::SlotState::kOpen);
}

// What one look costs with every slot open: run it by hand with --gtest_also_run_disabled_tests.
TEST_F(KeysTest, DISABLED_LookAtManyConnections) {
  for (const std::uint32_t workers : {2U, 8U, 32U}) {
    auto wide = std::move(*ipc::SharedRegion::create({.workers = workers, .max_connections = 16384, .trunks = 0}));
    Notebook notes;
    config::Config many_allowed = config;
    many_allowed.limits.connections_per_address = 16384;
    Connections many(many_allowed, wide, notes, 2);
    many.worker_ready(w0);
    const int shared = ::eventfd(0, EFD_CLOEXEC);
    ipc::Established message{.info = {}};
    message.info.record_layer = ipc::RecordLayerKind::kKernel;
    for (std::uint32_t i = 0; i < 16384; ++i) {
      // Without descriptors of their own; what is not there cannot be duplicated, so they are opened by hand.
      ASSERT_TRUE(many.established(h0, message, Fd(::fcntl(shared, F_DUPFD_CLOEXEC, 0))));
      ASSERT_TRUE(many.held(w0, notes.last));
    }
    const auto begin = Clock::now();
    for (int i = 0; i < 100; ++i) many.look(begin);
    const auto took = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - begin) / 100;
    fmt::print("{} workers, {} connections: {} us a look\n", workers, many.count(), took.count() / 1000);
    ::close(shared);
  }
}

}  // namespace
}  // namespace ktrunk::supervisor
