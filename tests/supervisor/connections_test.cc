// A connection's life, with the children played by the test: every order of Held and Released, and deaths in between.
#include <algorithm>

#include "supervisor/connections_fixture.h"

namespace ktrunk::supervisor {
namespace {

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

// A handshake process that died before it was told finds its connection by these.
TEST_F(ConnectionsTest, TheSlotSaysWhoseConnectionItIs) {
  const ConnectionId id = open({.reference = 55, .by = h1});
  EXPECT_EQ(region.slot(id.slot).made_by, h1);
  EXPECT_EQ(region.slot(id.slot).reference, 55U);
}

TEST_F(ConnectionsTest, TheHomeWorkerEndsTheStreamLast) {
  const ConnectionId id = open({.reference = 77});
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
  EXPECT_TRUE(connections.fault(w0, fault(id, ipc::FaultReason::kBadRecord, EBADMSG)));
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
  establish({.reference = 9});
  EXPECT_EQ(mail.take(), (Notes{"refused"}));
}

TEST_F(ConnectionsTest, ListsOpenConnectionsOfATrunk) {
  const ConnectionId id = open({.trunk = TrunkId{0}});
  EXPECT_EQ(region.trunk(TrunkId{0}).connection(0), id);
  EXPECT_TRUE(connections.fault(w0, fault(id, ipc::FaultReason::kCloseNotify)));
  EXPECT_FALSE(region.trunk(TrunkId{0}).connection(0).valid());
}

TEST_F(ConnectionsTest, CapsDescriptorsInFlight) {
  auto wide = std::move(*ipc::SharedRegion::create({.workers = 1, .max_connections = 200, .trunks = 0}));
  Notebook notes;
  Connections many(config, wide, notes, 2);
  many.worker_ready(w0);
  ipc::Established made{.info = {}};
  made.info.role = ipc::ConnectionInfo::Role::kConnected;
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(many.established(h0, made, Fd(::eventfd(0, EFD_CLOEXEC))));
  EXPECT_EQ(notes.offers.size(), ipc::kMaxDescriptorsInFlight);
  for (std::size_t i = 0; i < 200; ++i) ASSERT_TRUE(many.held(w0, notes.offers[i].connection)) << i;
  EXPECT_EQ(notes.offers.size(), 200U);
  EXPECT_FALSE(many.held(w0, notes.offers[0].connection)) << "more acknowledged than offered";
}

TEST_F(ConnectionsTest, ADeathDuringTheOfferDoesNotHoldItUp) {
  const ConnectionId id = establish();
  ASSERT_EQ(home(id), w0);
  EXPECT_TRUE(connections.held(w1, id));
  connections.worker_ended(w0, kNothing);
  EXPECT_EQ(state(id), ipc::SlotState::kOpen);
  EXPECT_EQ(home(id), w1);
}

TEST_F(ConnectionsTest, WaitsForAWorkerWhenThereIsNone) {
  connections.worker_ended(w0, kNothing);
  connections.worker_ended(w1, kNothing);
  const ConnectionId id = establish();
  EXPECT_EQ(state(id), ipc::SlotState::kOffered);
  connections.worker_ready(w1);
  EXPECT_TRUE(connections.held(w1, id));
  EXPECT_EQ(state(id), ipc::SlotState::kOpen);
  EXPECT_EQ(home(id), w1);
}

TEST_F(ConnectionsTest, AConnectionOutlivesItsWorkers) {
  const ConnectionId at_w0 = open({.trunk = TrunkId{0}});
  const ConnectionId at_w1 = open();
  ASSERT_EQ(home(at_w0), w0);
  ipc::SendGate& gate = region.slot(at_w1.slot).gate;
  ASSERT_TRUE(gate.acquire(w0));
  gate.start_writing(w0);
  connections.worker_ended(w0, kEstate);
  EXPECT_EQ(state(at_w0), ipc::SlotState::kOpen);
  EXPECT_EQ(state(at_w1), ipc::SlotState::kOpen);
  EXPECT_TRUE(gate.owned_by_worker(w0)) << "its successor goes on with the message";
  EXPECT_EQ(home(at_w0), w0);
  EXPECT_EQ(region.trunk(TrunkId{0}).connection(0), at_w0);
  EXPECT_EQ(mail.take(), Notes());
  connections.worker_ready(w0);
  EXPECT_EQ(mail.take(), (Notes{"offer w0", "offer w0"}));
  EXPECT_TRUE(connections.held(w0, at_w0));
  EXPECT_EQ(mail.take(), Notes()) << "not before it has all of them: it may have something for each";
  EXPECT_TRUE(connections.held(w0, at_w1));
  EXPECT_EQ(mail.take(), (Notes{"start w0", "serve w0"}));
}

TEST_F(ConnectionsTest, ANewConnectionIsStartedWithTheOldOnes) {
  const ConnectionId old = open();
  connections.worker_ended(w0, kEstate);
  connections.worker_ended(w1, kEstate);
  connections.worker_ready(w1);
  connections.worker_ready(w0);
  const ConnectionId young = establish();
  mail.take();
  EXPECT_TRUE(connections.held(w1, old));
  EXPECT_TRUE(connections.held(w1, young));
  EXPECT_EQ(mail.take(), (Notes{"serve w1"}));
  EXPECT_TRUE(connections.held(w0, old));
  EXPECT_EQ(mail.take(), (Notes{"start w0", "serve w0"}));
  EXPECT_TRUE(connections.held(w0, young));
  EXPECT_EQ(mail.take(), (Notes{"start w1"}));
}

TEST_F(ConnectionsTest, OneThatIsClosedMeanwhileDoesNotHoldItUp) {
  const ConnectionId at_w0 = open();
  const ConnectionId at_w1 = open();
  connections.worker_ended(w0, kEstate);
  ipc::SendGate& gate = region.slot(at_w0.slot).gate;
  ASSERT_TRUE(gate.acquire(w0));
  connections.worker_ready(w0);
  mail.take();
  EXPECT_TRUE(connections.fault(w1, fault(at_w0, ipc::FaultReason::kReset)));
  mail.take();
  EXPECT_TRUE(connections.held(w0, at_w0));
  EXPECT_TRUE(connections.held(w0, at_w1));
  EXPECT_EQ(mail.take(), (Notes{"serve w0"}));
}

TEST_F(ConnectionsTest, WhoseMessagesKillWorkersIsClosedInTheEnd) {
  const ConnectionId id = open();
  for (int death = 1; death < 5; ++death) {
    connections.blame(id);
    EXPECT_EQ(state(id), ipc::SlotState::kOpen);
  }
  connections.blame(id);
  EXPECT_EQ(state(id), ipc::SlotState::kClosing);
  connections.blame({});
}

TEST_F(ConnectionsTest, KnowsWhoRelays) {
  EXPECT_EQ(connections.relaying(open({.layer = ipc::RecordLayerKind::kRelay})), HandshakeIndex{0});
  EXPECT_FALSE(connections.relaying(open()).valid());
  EXPECT_FALSE(connections.relaying({}).valid());
}

TEST_F(ConnectionsTest, SaysWhoseAMessageIs) {
  const ConnectionId id = open();
  EXPECT_THAT(connections.sender_of(id), testing::HasSubstr("connection, tls"));
  EXPECT_EQ(connections.sender_of({}), "a datagram's sender");
  EXPECT_EQ(connections.sender_of({.slot = id.slot, .generation = Generation{id.generation.value + 1}}),
            "a connection that is gone");
}

TEST_F(ConnectionsTest, WhatAHopelessWorkerReceivedFromIsClosed) {
  const ConnectionId at_w0 = open();
  const ConnectionId at_w1 = open();
  ASSERT_EQ(home(at_w1), w1);
  connections.worker_ended(w0, kNothing);
  EXPECT_EQ(state(at_w1), ipc::SlotState::kOpen);
  EXPECT_EQ(state(at_w0), ipc::SlotState::kClosing) << "what w0 had read of it is lost";
  mail.take();
  connections.worker_ready(w0);
  EXPECT_EQ(mail.take(), (Notes{"offer w0"})) << "the successor gets those that are open";
  EXPECT_TRUE(connections.held(w0, at_w1));
  EXPECT_EQ(mail.take(), (Notes{"serve w0"}));
}

TEST_F(ConnectionsTest, ADeathInTheMiddleOfALongMessageClosesItsConnection) {
  open();
  const ConnectionId id = open();
  ASSERT_EQ(home(id), w1);
  ipc::SendGate& gate = region.slot(id.slot).gate;
  ASSERT_TRUE(gate.acquire(w0));
  EXPECT_FALSE(gate.begin_record(w1).granted);
  gate.start_writing(w0);
  connections.worker_ended(w0, kNothing);
  EXPECT_EQ(state(id), ipc::SlotState::kClosing);
  EXPECT_NE(mail.rung & ipc::mask_of(w1), 0U);
}

TEST_F(ConnectionsTest, DeathsWhileClosingFreeTheSlot) {
  const ConnectionId id = open();
  connections.close_all();
  EXPECT_EQ(state(id), ipc::SlotState::kClosing);
  connections.worker_ended(w1, kNothing);
  connections.worker_ended(w0, kNothing);
  EXPECT_EQ(connections.count(), 0U);
}

TEST_F(ConnectionsTest, MessagesThatDoNotFitAreRefused) {
  const ConnectionId id = open();
  EXPECT_FALSE(connections.held(w0, id));
  EXPECT_FALSE(connections.released(w0, id)) << "it was not told to close";
}

TEST_F(ConnectionsTest, ANewHandshakeProcessHearsNoOldReferences) {
  const ConnectionId id = open({.reference = 55});
  const ConnectionId other = open({.reference = 56, .by = h1});
  connections.handshake_ended(h0, Connections::Cause::kItself);
  connections.close_all();
  mail.take();
  release(id);
  EXPECT_EQ(mail.take().back(), "gone 0");
  release(other);
  EXPECT_EQ(mail.take().back(), "gone 56 h1");
}

TEST_F(ConnectionsTest, TheProcessThatKeepsATrunkHearsOfItsConnections) {
  const ConnectionId id = open({.reference = 5, .trunk = TrunkId{1}, .by = h0});
  connections.close_all();
  mail.take();
  release(id);
  const Notes notes = mail.take();
  ASSERT_EQ(notes.size(), 3U);
  EXPECT_EQ(notes[1], "gone 5");
  EXPECT_EQ(notes[2], "gone 0 h1");
}

// What came before the break is still to be read: a worker says when it has been.
TEST_F(ConnectionsTest, ARelayThatBrokeEndsWhenAWorkerSeesIt) {
  const ConnectionId id = open({.layer = ipc::RecordLayerKind::kRelay});
  EXPECT_FALSE(connections.fault(h1, fault(id, ipc::FaultReason::kReset))) << "not its owner";
  EXPECT_TRUE(connections.fault(h0, fault(id, ipc::FaultReason::kReset)));
  EXPECT_EQ(mail.take(), Notes{});
  EXPECT_EQ(state(id), ipc::SlotState::kOpen);
  EXPECT_TRUE(connections.fault(home(id), fault(id, ipc::FaultReason::kCloseNotify)));
  EXPECT_EQ(mail.take().size(), 1u);
  release(id);
  EXPECT_EQ(mail.take().back(), "gone 1");
}

TEST_F(ConnectionsTest, WhatANewConnectionDoesAwayWithIsSaid) {
  using Reason = ipc::FaultReason;
  for (const Reason reason : {Reason::kNoRekey, Reason::kKeysFailed, Reason::kKeyLimit}) {
    const ConnectionId id = open();
    EXPECT_TRUE(connections.fault(h0, fault(id, reason)));
    release(id);
    EXPECT_EQ(mail.take().back(), "gone 1 again");
  }
  const ConnectionId id = open();
  const WorkerIndex victim = home(id);
  const WorkerIndex other{static_cast<std::uint8_t>(1 - victim.value)};
  connections.worker_ended(victim, kNothing);
  EXPECT_TRUE(connections.released(other, id));
  EXPECT_EQ(mail.take().back(), "gone 1 again");
}

// Of our own trunk, messages wait for the one that takes its place.
TEST_F(ConnectionsTest, WhatIsMadeAgainAtOnceIsWaitedFor) {
  constexpr auto kConnected = ipc::ConnectionInfo::Role::kConnected;
  const ipc::TrunkEntry& trunk = region.trunk(TrunkId{0});
  const auto awaited = [&](Clock::duration later = {}) { return trunk.awaits(Clock::now() + later).has_value(); };
  const ConnectionId id = open({.trunk = TrunkId{0}, .role = kConnected});
  EXPECT_FALSE(awaited());
  EXPECT_TRUE(connections.fault(h0, fault(id, ipc::FaultReason::kNoRekey)));
  EXPECT_EQ(mail.take(), (Notes{"flush w1 alert 80 keep"}));
  EXPECT_TRUE(awaited());
  EXPECT_EQ(trunk.awaits(Clock::now())->transport, config::Transport::kTls);
  EXPECT_FALSE(awaited(config.limits.handshake)) << "not for ever";
  release(id);
  EXPECT_EQ(mail.take().front(), "finish w0 alert 80 keep");
  EXPECT_TRUE(awaited());
  const ConnectionId next = establish({.trunk = TrunkId{0}, .role = kConnected});
  EXPECT_TRUE(connections.held(w0, next));
  EXPECT_TRUE(awaited()) << "it is not open yet";
  mail.rung = 0;
  EXPECT_TRUE(connections.held(w1, next));
  EXPECT_FALSE(awaited());
  EXPECT_EQ(mail.rung, ipc::mask_of(w0) | ipc::mask_of(w1));
}

TEST_F(ConnectionsTest, OthersAreNot) {
  using Role = ipc::ConnectionInfo::Role;
  const auto awaited_after = [&](const Made& made, ipc::FaultReason reason) {
    const ConnectionId id = open(made);
    EXPECT_TRUE(connections.fault(h0, fault(id, reason)));
    const bool keeps = std::ranges::any_of(mail.take(), [](const std::string& note) { return note.ends_with("keep"); });
    release(id);
    const bool awaited = region.trunk(TrunkId{0}).awaits(Clock::now()).has_value();
    EXPECT_EQ(keeps, awaited);
    return awaited;
  };
  EXPECT_FALSE(awaited_after({.trunk = TrunkId{0}, .role = Role::kAccepted}, ipc::FaultReason::kNoRekey));
  EXPECT_FALSE(awaited_after({.role = Role::kConnected}, ipc::FaultReason::kNoRekey));
  EXPECT_FALSE(awaited_after({.trunk = TrunkId{0}, .role = Role::kConnected}, ipc::FaultReason::kCloseNotify));
  const ConnectionId retired = open({.trunk = TrunkId{0}, .role = Role::kConnected});
  EXPECT_TRUE(connections.retire(h0, {.connection = retired}));
  EXPECT_TRUE(connections.fault(h0, fault(retired, ipc::FaultReason::kNoRekey)));
  EXPECT_FALSE(region.trunk(TrunkId{0}).awaits(Clock::now())) << "another has its place";
}

TEST_F(ConnectionsTest, OneThatIsRetiredBeforeItIsOpenIsNeverListed) {
  const ConnectionId id = establish({.trunk = TrunkId{0}});
  EXPECT_TRUE(connections.retire(h0, {.connection = id}));
  EXPECT_TRUE(connections.held(w0, id));
  EXPECT_TRUE(connections.held(w1, id));
  EXPECT_EQ(state(id), ipc::SlotState::kOpen);
  EXPECT_FALSE(region.trunk(TrunkId{0}).connection(0).valid());
}

TEST_F(ConnectionsTest, AHandshakeProcessSpeaksForItsOwnConnections) {
  const ConnectionId id = open({.by = h1});
  EXPECT_FALSE(connections.fault(h0, fault(id, ipc::FaultReason::kNoRekey)));
  EXPECT_FALSE(connections.retire(h0, {.connection = id}));
  EXPECT_FALSE(connections.send_control(h0, {.connection = id}));
  EXPECT_FALSE(connections.resume(h0, {.connection = id}));
  EXPECT_EQ(state(id), ipc::SlotState::kOpen);
  EXPECT_TRUE(connections.fault(h1, fault(id, ipc::FaultReason::kNoRekey)));
  EXPECT_EQ(state(id), ipc::SlotState::kClosing);
}

TEST_F(ConnectionsTest, AnAddressHasItsShareAndNoMore) {
  auto wide = std::move(*ipc::SharedRegion::create({.workers = 1, .max_connections = 100, .trunks = 0}));
  Notebook notes;
  Connections many(config, wide, notes, 2);
  ipc::Established one{.info = {}};
  one.info.peer = *Address::parse("192.0.2.1:5061");
  ipc::Established other = one;
  other.info.peer = *Address::parse("192.0.2.2:5061");
  ipc::Established ours = one;
  ours.info.role = ipc::ConnectionInfo::Role::kConnected;
  const auto establish = [&](const ipc::Established& message) {
    EXPECT_TRUE(many.established(h0, message, Fd(::eventfd(0, EFD_CLOEXEC))));
    return notes.take().back();
  };
  for (unsigned i = 0; i < config.limits.connections_per_address; ++i) EXPECT_EQ(establish(one), "admitted");
  const ConnectionId last = notes.last;
  EXPECT_EQ(establish(one), "refused, address");
  EXPECT_EQ(establish(other), "admitted");
  EXPECT_EQ(establish(ours), "admitted") << "those that we make do not count";
  // Nobody holds it, so it is gone at once.
  EXPECT_TRUE(many.fault(h0, fault(last, ipc::FaultReason::kReset)));
  EXPECT_EQ(notes.take().back(), "gone 0");
  EXPECT_EQ(establish(one), "admitted");
  EXPECT_EQ(establish(one), "refused, address");
}

}  // namespace
}  // namespace ktrunk::supervisor
