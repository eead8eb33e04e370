// A connection's life, with the children played by the test: every order of Held and Released, and deaths in between.
#include "supervisor/connections.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <string>
#include <vector>

namespace ktrunk::supervisor {
namespace {

using How = ipc::Close::How;

// Writes down what the children are told.
class Notebook final : public ChildMail {
 public:
  void to_worker(WorkerIndex worker, const ipc::Offer& offer, Fd) override {
    offers.push_back({worker, offer.connection});
    notes.push_back(fmt::format("offer w{}", worker.value));
  }
  void to_worker(WorkerIndex worker, const ipc::Start&) override {
    notes.push_back(fmt::format("start w{}", worker.value));
  }
  void to_worker(WorkerIndex worker, const ipc::Close& close) override {
    const char* how = close.how == How::kFlush ? "flush" : close.how == How::kFinish ? "finish" : "abort";
    notes.push_back(
        fmt::format("{} w{}{}", how, worker.value, close.alert != 0 ? fmt::format(" alert {}", close.alert) : ""));
  }
  void to_handshake(HandshakeIndex, const ipc::Admitted& admitted) override {
    last = admitted.connection;
    notes.push_back("admitted");
  }
  void to_handshake(HandshakeIndex, const ipc::Refused&) override { notes.push_back("refused"); }
  void to_handshake(HandshakeIndex, const ipc::Gone& gone) override {
    notes.push_back(fmt::format("gone {}", gone.reference));
  }
  void ring(ipc::WorkerMask workers) override { rung |= workers; }

  using Notes = std::vector<std::string>;
  Notes take() { return std::exchange(notes, {}); }

  struct Offered {
    WorkerIndex worker;
    ConnectionId connection;
  };
  std::vector<Offered> offers;
  Notes notes;
  ConnectionId last;
  ipc::WorkerMask rung = 0;
};
using Notes = Notebook::Notes;

constexpr WorkerIndex w0{0}, w1{1};
constexpr HandshakeIndex h0{0};

class ConnectionsTest : public testing::Test {
 protected:
  ConnectionsTest() {
    connections.worker_ready(w0);
    connections.worker_ready(w1);
  }
  ConnectionId establish(std::uint64_t reference = 1, TrunkId trunk = {}) {
    ipc::Established message{.reference = reference, .info = {}};
    message.info.trunk = trunk;
    connections.established(h0, message, Fd(::eventfd(0, EFD_CLOEXEC)));
    return mail.last;
  }
  ConnectionId open(std::uint64_t reference = 1, TrunkId trunk = {}) {
    const ConnectionId id = establish(reference, trunk);
    EXPECT_TRUE(connections.held(w0, id));
    EXPECT_TRUE(connections.held(w1, id));
    mail.take();
    return id;
  }
  [[nodiscard]] ipc::SlotState state(ConnectionId id) const { return region.slot(id.slot).state().state; }
  [[nodiscard]] WorkerIndex home(ConnectionId id) const { return region.slot(id.slot).state().home; }
  ipc::Fault fault(ConnectionId id, ipc::FaultReason reason) {
    return {.connection = id, .reason = reason, .detail = 0};
  }

  ipc::SharedRegion region = std::move(*ipc::SharedRegion::create({.workers = 2, .max_connections = 4, .trunks = 1}));
  Notebook mail;
  Connections connections{region, mail};
};

TEST_F(ConnectionsTest, OpensWhenEveryWorkerHoldsIt) {
  const ConnectionId id = establish();
  EXPECT_EQ(mail.take(), (Notes{"admitted", "offer w0", "offer w1"}));
  EXPECT_EQ(state(id), ipc::SlotState::kOffered);
  EXPECT_TRUE(connections.held(w1, id));
  EXPECT_EQ(state(id), ipc::SlotState::kOffered);
  EXPECT_TRUE(connections.held(w0, id));
  EXPECT_EQ(state(id), ipc::SlotState::kOpen);
  EXPECT_EQ(mail.take(), (Notes{fmt::format("start w{}", home(id).value)}));
}

TEST_F(ConnectionsTest, SharesHomesOut) {
  const ConnectionId a = open();
  const ConnectionId b = open();
  EXPECT_NE(home(a), home(b));
}

TEST_F(ConnectionsTest, TheHomeWorkerEndsTheStreamLast) {
  const ConnectionId id = open(77);
  ASSERT_EQ(home(id), w0);
  EXPECT_TRUE(connections.fault(w0, fault(id, ipc::FaultReason::kCloseNotify)));
  EXPECT_EQ(state(id), ipc::SlotState::kClosing);
  EXPECT_EQ(mail.take(), (Notes{"flush w1"}));
  EXPECT_TRUE(connections.released(w1, id));
  EXPECT_EQ(mail.take(), (Notes{"finish w0"}));
  EXPECT_TRUE(connections.released(w0, id));
  EXPECT_EQ(mail.take(), (Notes{"gone 77"}));
  EXPECT_EQ(connections.count(), 0U);
}

TEST_F(ConnectionsTest, ABrokenStreamIsAbortedEverywhereAtOnce) {
  const ConnectionId id = open();
  EXPECT_TRUE(connections.fault(w1, fault(id, ipc::FaultReason::kReset)));
  EXPECT_EQ(mail.take(), (Notes{"abort w0", "abort w1"}));
  EXPECT_TRUE(connections.released(w0, id));
  EXPECT_TRUE(connections.released(w1, id));
  EXPECT_EQ(mail.take(), (Notes{"gone 1"}));
}

TEST_F(ConnectionsTest, BadRecordsAreAnsweredWithTheirAlert) {
  const ConnectionId id = open();
  EXPECT_TRUE(connections.fault(w0, fault(id, ipc::FaultReason::kBadRecord)));
  EXPECT_TRUE(connections.released(w1, id));
  EXPECT_EQ(mail.take(), (Notes{"flush w1 alert 20", "finish w0 alert 20"}));
}

TEST_F(ConnectionsTest, ASlotsNextLifeHasAnotherName) {
  const ConnectionId first = open();
  EXPECT_TRUE(connections.fault(w0, fault(first, ipc::FaultReason::kReset)));
  EXPECT_TRUE(connections.released(w0, first));
  EXPECT_TRUE(connections.released(w1, first));
  const ConnectionId second = open();
  EXPECT_EQ(first.slot, second.slot);
  EXPECT_NE(first.generation, second.generation);
  mail.take();
  EXPECT_TRUE(connections.fault(w0, fault(first, ipc::FaultReason::kReset))) << "late, and of no consequence";
  EXPECT_EQ(mail.take(), Notes{});
  EXPECT_EQ(state(second), ipc::SlotState::kOpen);
}

TEST_F(ConnectionsTest, RefusesWhenFull) {
  for (int i = 0; i < 4; ++i) open();
  establish(9);
  EXPECT_EQ(mail.take(), (Notes{"refused"}));
}

TEST_F(ConnectionsTest, ListsOpenConnectionsOfATrunk) {
  const ConnectionId id = open(1, TrunkId{0});
  EXPECT_EQ(region.trunk(TrunkId{0}).connection(0), id);
  EXPECT_TRUE(connections.fault(w0, fault(id, ipc::FaultReason::kCloseNotify)));
  EXPECT_FALSE(region.trunk(TrunkId{0}).connection(0).valid());
}

TEST_F(ConnectionsTest, CapsDescriptorsInFlight) {
  auto wide = std::move(*ipc::SharedRegion::create({.workers = 1, .max_connections = 200, .trunks = 0}));
  Notebook notes;
  Connections many(wide, notes);
  many.worker_ready(w0);
  for (int i = 0; i < 200; ++i) many.established(h0, {}, Fd(::eventfd(0, EFD_CLOEXEC)));
  EXPECT_EQ(notes.offers.size(), ipc::kMaxDescriptorsInFlight);
  for (std::size_t i = 0; i < 200; ++i) ASSERT_TRUE(many.held(w0, notes.offers[i].connection)) << i;
  EXPECT_EQ(notes.offers.size(), 200U);
  EXPECT_FALSE(many.held(w0, notes.offers[0].connection)) << "more acknowledged than offered";
}

TEST_F(ConnectionsTest, ADeathDuringTheOfferDoesNotHoldItUp) {
  const ConnectionId id = establish();
  ASSERT_EQ(home(id), w0);
  EXPECT_TRUE(connections.held(w1, id));
  connections.worker_ended(w0);
  EXPECT_EQ(state(id), ipc::SlotState::kOpen);
  EXPECT_EQ(home(id), w1);
}

TEST_F(ConnectionsTest, WaitsForAWorkerWhenThereIsNone) {
  connections.worker_ended(w0);
  connections.worker_ended(w1);
  const ConnectionId id = establish();
  EXPECT_EQ(state(id), ipc::SlotState::kOffered);
  connections.worker_ready(w1);
  EXPECT_TRUE(connections.held(w1, id));
  EXPECT_EQ(state(id), ipc::SlotState::kOpen);
  EXPECT_EQ(home(id), w1);
}

TEST_F(ConnectionsTest, AConnectionOutlivesAWorkerThatOnlySentOnIt) {
  const ConnectionId at_w0 = open();
  const ConnectionId at_w1 = open();
  ASSERT_EQ(home(at_w1), w1);
  connections.worker_ended(w0);
  EXPECT_EQ(state(at_w1), ipc::SlotState::kOpen);
  EXPECT_EQ(state(at_w0), ipc::SlotState::kClosing) << "what w0 had read of it is lost";
  mail.take();
  connections.worker_ready(w0);
  EXPECT_EQ(mail.take(), (Notes{"offer w0"})) << "the successor gets those that are open";
  EXPECT_TRUE(connections.held(w0, at_w1));
}

TEST_F(ConnectionsTest, ADeathInTheMiddleOfALongMessageClosesItsConnection) {
  open();
  const ConnectionId id = open();
  ASSERT_EQ(home(id), w1);
  ipc::SendGate& gate = region.slot(id.slot).gate;
  ASSERT_TRUE(gate.acquire(w0));
  EXPECT_FALSE(gate.begin_record(w1).granted);
  gate.start_writing(w0);
  connections.worker_ended(w0);
  EXPECT_EQ(state(id), ipc::SlotState::kClosing);
  EXPECT_NE(mail.rung & ipc::mask_of(w1), 0U);
}

TEST_F(ConnectionsTest, DeathsWhileClosingFreeTheSlot) {
  const ConnectionId id = open();
  connections.close_all();
  EXPECT_EQ(state(id), ipc::SlotState::kClosing);
  connections.worker_ended(w1);
  connections.worker_ended(w0);
  EXPECT_EQ(connections.count(), 0U);
}

TEST_F(ConnectionsTest, MessagesThatDoNotFitAreRefused) {
  const ConnectionId id = open();
  EXPECT_FALSE(connections.held(w0, id));
  EXPECT_FALSE(connections.released(w0, id)) << "it was not told to close";
}

TEST_F(ConnectionsTest, ANewHandshakeProcessHearsNoOldReferences) {
  const ConnectionId id = open(55);
  connections.handshake_ended(h0);
  connections.close_all();
  EXPECT_TRUE(connections.released(w1, id));
  EXPECT_TRUE(connections.released(w0, id));
  EXPECT_EQ(mail.take().back(), "gone 0");
}

}  // namespace
}  // namespace ktrunk::supervisor
