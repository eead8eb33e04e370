// Handshake records after the handshake, and new keys: every step, and the death of the handshake process at each.
#include <cstring>

#include "supervisor/connections_fixture.h"

namespace ktrunk::supervisor {
namespace {

using Place = ipc::HandshakeOctets::Place;
using What = ipc::Resume::What;

class RecordsTest : public ConnectionsTest {
 protected:
  static ipc::HandshakeOctets octets(ConnectionId id, std::string_view text, Place place = Place::kEndOfRecord) {
    ipc::HandshakeOctets message{
        .connection = id, .bytes = static_cast<std::uint16_t>(text.size()), .place = place, .octets = {}};
    std::memcpy(message.octets.data(), text.data(), text.size());
    return message;
  }
  static ipc::SendControl key_update(ConnectionId id) {
    return {.connection = id, .record_type = 22, .bytes = 5, .after = ipc::SendControl::After::kHoldSends};
  }
  void restart(HandshakeIndex process = h0) {
    connections.handshake_ended(process, Connections::Cause::kItself);
    connections.handshake_ready(process);
  }
};

TEST_F(RecordsTest, ATicketGoesToTheOwnerAndIsAnswered) {
  const ConnectionId id = open({.by = h1});
  EXPECT_TRUE(connections.handshake_octets(home(id), octets(id, "ticket")));
  EXPECT_EQ(mail.take(), (Notes{"octets ticket h1"}));
  EXPECT_TRUE(connections.resume(h1, {.connection = id, .what = What::kReceive}));
  EXPECT_EQ(mail.take(), (Notes{"resume w0 0"}));
  restart(h1);
  EXPECT_EQ(mail.take(), Notes{}) << "nothing is unanswered";
}

TEST_F(RecordsTest, WhatIsUnansweredIsToldToTheSuccessor) {
  const ConnectionId id = open();
  EXPECT_TRUE(connections.handshake_octets(w0, octets(id, "a", Place::kMore)));
  EXPECT_TRUE(connections.handshake_octets(w0, octets(id, "b")));
  connections.handshake_ended(h0, Connections::Cause::kItself);
  EXPECT_TRUE(connections.handshake_octets(w0, octets(id, "c")));
  mail.take();
  connections.handshake_ready(h0);
  EXPECT_EQ(mail.take(), (Notes{"octets a...", "octets b", "octets c"}));
  EXPECT_TRUE(connections.resume(h0, {.connection = id}));
  EXPECT_EQ(mail.take(), (Notes{"resume w0 0"}));
  restart();
  EXPECT_EQ(mail.take(), (Notes{"octets c"})) << "the first record was answered, the second was not";
  EXPECT_TRUE(connections.resume(h0, {.connection = id, .what = What::kReceiveRekeyed}));
  EXPECT_EQ(mail.take(), (Notes{"resume w0 1"}));
  EXPECT_EQ(connections.view(id.slot).receive_renewals, 1U);
  restart();
  EXPECT_EQ(mail.take(), Notes{});
}

TEST_F(RecordsTest, WhatKillsOneProcessAfterTheOtherIsNotToldForEver) {
  connections.handshake_ready(h0);
  const ConnectionId id = open();
  const ConnectionId other = open();
  EXPECT_TRUE(connections.handshake_octets(w0, octets(id, "poison")));
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(state(id), ipc::SlotState::kOpen);
    connections.handshake_ended(h0, Connections::Cause::kItself);
    connections.handshake_ended(h0, Connections::Cause::kItself);  // before it was ready: this says nothing
    connections.handshake_ready(h0);
    EXPECT_TRUE(connections.handshake_octets(home(other), octets(other, "harmless")));
    EXPECT_TRUE(connections.resume(h0, {.connection = other}));
  }
  connections.handshake_ended(h0, Connections::Cause::kItself);
  EXPECT_EQ(state(id), ipc::SlotState::kClosing);
  EXPECT_EQ(state(other), ipc::SlotState::kOpen);
  mail.take();
  connections.handshake_ready(h0);
  EXPECT_EQ(mail.take(), Notes{});
}

TEST_F(RecordsTest, WhoeverIsKilledFromOutsideBlamesNoConnection) {
  connections.handshake_ready(h0);
  const ConnectionId id = open();
  EXPECT_TRUE(connections.handshake_octets(w0, octets(id, "harmless")));
  for (int i = 0; i < 10; ++i) {
    connections.handshake_ended(h0, Connections::Cause::kKilled);
    connections.handshake_ready(h0);
  }
  EXPECT_EQ(state(id), ipc::SlotState::kOpen);
}

TEST_F(RecordsTest, AnAnswerShowsThatItDoesNotKill) {
  connections.handshake_ready(h0);
  const ConnectionId id = open();
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(connections.handshake_octets(w0, octets(id, "ticket")));
    restart();
    EXPECT_TRUE(connections.resume(h0, {.connection = id}));
  }
  EXPECT_EQ(state(id), ipc::SlotState::kOpen);
}

TEST_F(RecordsTest, AnotherProcessesDeathChangesNothing) {
  const ConnectionId id = open();
  EXPECT_TRUE(connections.handshake_octets(w0, octets(id, "a")));
  mail.take();
  restart(h1);
  EXPECT_EQ(mail.take(), Notes{});
}

TEST_F(RecordsTest, ResumeNeedsAWholeRecord) {
  const ConnectionId id = open();
  EXPECT_FALSE(connections.resume(h0, {.connection = id}));
  EXPECT_TRUE(connections.handshake_octets(w0, octets(id, "a", Place::kMore)));
  EXPECT_FALSE(connections.resume(h0, {.connection = id}));
  EXPECT_FALSE(connections.resume(h0, {.connection = id, .what = What::kSendRekeyed}));
}

TEST_F(RecordsTest, OctetsComeFromTheHomeWorkerOfAKernelConnection) {
  const ConnectionId id = open();
  EXPECT_FALSE(connections.handshake_octets(w1, octets(id, "a")));
  ipc::HandshakeOctets long_one = octets(id, "a");
  long_one.bytes = long_one.octets.size() + 1;
  EXPECT_FALSE(connections.handshake_octets(w0, long_one));
  const ConnectionId relayed = open({.layer = ipc::RecordLayerKind::kRelay});
  EXPECT_FALSE(connections.handshake_octets(home(relayed), octets(relayed, "a")));
  EXPECT_FALSE(connections.send_control(h0, key_update(relayed)));
  EXPECT_EQ(mail.take(), Notes{});
}

TEST_F(RecordsTest, AFloodOfMessagesClosesTheConnection) {
  const ConnectionId id = open();
  for (int i = 0; i < 64; ++i) ASSERT_TRUE(connections.handshake_octets(w0, octets(id, "")));
  EXPECT_EQ(state(id), ipc::SlotState::kOpen);
  mail.take();
  EXPECT_TRUE(connections.handshake_octets(w0, octets(id, "")));
  EXPECT_EQ(state(id), ipc::SlotState::kClosing);
  EXPECT_EQ(mail.take(), (Notes{"flush w1 alert 10"}));
  EXPECT_TRUE(connections.handshake_octets(w0, octets(id, ""))) << "it was on its way";
  EXPECT_TRUE(connections.resume(h0, {.connection = id})) << "this too";
  EXPECT_EQ(mail.take(), Notes{});
}

TEST_F(RecordsTest, AFloodOfOctetsClosesTheConnection) {
  const ConnectionId id = open();
  const std::string most(2048, 'x');
  for (int i = 0; i < 32; ++i) ASSERT_TRUE(connections.handshake_octets(w0, octets(id, most)));
  EXPECT_EQ(state(id), ipc::SlotState::kOpen);
  // What is answered makes room.
  EXPECT_TRUE(connections.resume(h0, {.connection = id}));
  EXPECT_TRUE(connections.handshake_octets(w0, octets(id, most)));
  EXPECT_EQ(state(id), ipc::SlotState::kOpen);
  EXPECT_TRUE(connections.handshake_octets(w0, octets(id, "x")));
  EXPECT_EQ(state(id), ipc::SlotState::kClosing);
}

TEST_F(RecordsTest, OurKeyUpdate) {
  const ConnectionId id = open({.by = h1});
  EXPECT_TRUE(connections.send_control(h1, key_update(id)));
  EXPECT_EQ(mail.take(), (Notes{"control w0 22 hold"}));
  EXPECT_TRUE(connections.control_sent(w0, {.connection = id}));
  EXPECT_EQ(mail.take(), (Notes{"install h1"}));
  EXPECT_TRUE(connections.resume(h1, {.connection = id, .what = What::kSendRekeyed}));
  EXPECT_EQ(mail.take(), (Notes{"resume w0 2"}));
  EXPECT_EQ(connections.view(id.slot).transmit_renewals, 1U);
  EXPECT_TRUE(connections.send_control(h1, key_update(id))) << "and the next one";
  EXPECT_EQ(mail.take(), (Notes{"control w0 22 hold"}));
}

TEST_F(RecordsTest, AControlRecordThatHoldsNothingNeedsNoAnswer) {
  const ConnectionId id = open();
  EXPECT_TRUE(connections.send_control(h0, {.connection = id, .record_type = 21, .bytes = 2}));
  EXPECT_EQ(mail.take(), (Notes{"control w0 21"}));
  restart();
  EXPECT_EQ(mail.take(), Notes{});
}

TEST_F(RecordsTest, ADeathWhileTheKeyUpdateIsBeingSent) {
  const ConnectionId id = open();
  EXPECT_TRUE(connections.send_control(h0, key_update(id)));
  restart();
  EXPECT_EQ(mail.take(), (Notes{"control w0 22 hold"})) << "the home worker has not said that it is out";
  EXPECT_TRUE(connections.send_control(h0, key_update(id)));
  EXPECT_EQ(mail.take(), Notes{}) << "the successor may say it again: one is under way";
  EXPECT_TRUE(connections.control_sent(w0, {.connection = id}));
  EXPECT_EQ(mail.take(), (Notes{"install"}));
}

TEST_F(RecordsTest, ADeathBetweenSentAndInstalled) {
  const ConnectionId id = open();
  EXPECT_TRUE(connections.send_control(h0, key_update(id)));
  connections.handshake_ended(h0, Connections::Cause::kItself);
  EXPECT_TRUE(connections.control_sent(w0, {.connection = id}));
  mail.take();
  connections.handshake_ready(h0);
  EXPECT_EQ(mail.take(), (Notes{"install"}));
  restart();
  EXPECT_EQ(mail.take(), (Notes{"install"})) << "as often as it takes";
  EXPECT_TRUE(connections.resume(h0, {.connection = id, .what = What::kSendRekeyed}));
  EXPECT_EQ(mail.take(), (Notes{"resume w0 2"}));
  restart();
  EXPECT_EQ(mail.take(), Notes{});
}

TEST_F(RecordsTest, OnlyTheHomeWorkerSendsAndOnlyWhatItWasTold) {
  const ConnectionId id = open();
  EXPECT_FALSE(connections.control_sent(w1, {.connection = id}));
  EXPECT_TRUE(connections.send_control(h0, key_update(id)));
  EXPECT_FALSE(connections.control_sent(w1, {.connection = id}));
  EXPECT_FALSE(connections.resume(h0, {.connection = id, .what = What::kSendRekeyed})) << "it is not out yet";
  EXPECT_TRUE(connections.control_sent(w0, {.connection = id}));
  EXPECT_TRUE(connections.control_sent(w0, {.connection = id})) << "a successor of the worker says it again";
  ipc::SendControl long_one = key_update(id);
  long_one.bytes = 9;
  EXPECT_FALSE(connections.send_control(h0, long_one));
}

TEST_F(RecordsTest, TheGateIsGivenBackAlsoWhileClosing) {
  const ConnectionId id = open();
  EXPECT_TRUE(connections.send_control(h0, key_update(id)));
  connections.close_all();
  EXPECT_EQ(mail.take(), (Notes{"control w0 22 hold", "flush w1"}));
  EXPECT_TRUE(connections.control_sent(w0, {.connection = id}));
  EXPECT_EQ(mail.take(), (Notes{"install"}));
  restart();
  EXPECT_EQ(mail.take(), (Notes{"install"}));
  EXPECT_TRUE(connections.resume(h0, {.connection = id, .what = What::kSendRekeyed}));
  EXPECT_EQ(mail.take(), (Notes{"resume w0 2"}));
  EXPECT_TRUE(connections.released(w1, id));
  EXPECT_EQ(mail.take(), (Notes{"finish w0"}));
}

TEST_F(RecordsTest, TheHomeWorkersSuccessorGoesOnWithAKeyUpdate) {
  const ConnectionId id = open();
  const auto successor = [&] {
    connections.worker_ended(w0, kEstate);
    connections.worker_ready(w0);
    EXPECT_TRUE(connections.held(w0, id));
    return mail.take();
  };
  EXPECT_TRUE(connections.handshake_octets(w0, octets(id, "a")));
  EXPECT_TRUE(connections.send_control(h0, key_update(id)));
  mail.take();
  EXPECT_EQ(successor(), (Notes{"offer w0", "start w0 unanswered 1", "control w0 22 hold", "serve w0"}));
  EXPECT_TRUE(connections.control_sent(w0, {.connection = id}));
  EXPECT_EQ(mail.take(), (Notes{"install"}));
  EXPECT_EQ(successor(), (Notes{"offer w0", "start w0 unanswered 1", "serve w0"}));
  EXPECT_TRUE(connections.control_sent(w0, {.connection = id}));
  EXPECT_EQ(mail.take(), Notes());
  connections.worker_ended(w0, kEstate);
  EXPECT_TRUE(connections.resume(h0, {.connection = id, .what = What::kSendRekeyed}));
  EXPECT_TRUE(connections.resume(h0, {.connection = id}));
  EXPECT_EQ(mail.take(), Notes()) << "nobody is there to hear it";
  EXPECT_EQ(successor(), (Notes{"offer w0", "start w0", "serve w0"}));
  EXPECT_TRUE(connections.control_sent(w0, {.connection = id}));
  EXPECT_EQ(mail.take(), (Notes{"resume w0 2"})) << "the keys are in since";
}

TEST_F(RecordsTest, TheHomeWorkersDeathInAKeyUpdateBreaksTheStream) {
  const ConnectionId id = open();
  EXPECT_TRUE(connections.send_control(h0, key_update(id)));
  mail.take();
  connections.worker_ended(w0, kNothing);
  EXPECT_EQ(mail.take(), (Notes{"abort w1"})) << "under which keys a close_notify would have to go is not known";
}

TEST_F(RecordsTest, LateMessagesOfAConnectionThatIsGoneAreNoBreach) {
  const ConnectionId id = open();
  connections.close_all();
  release(id);
  mail.take();
  EXPECT_TRUE(connections.handshake_octets(w0, octets(id, "a")));
  EXPECT_TRUE(connections.control_sent(w0, {.connection = id}));
  EXPECT_TRUE(connections.send_control(h0, key_update(id)));
  EXPECT_TRUE(connections.resume(h0, {.connection = id}));
  EXPECT_TRUE(connections.retire(h0, {.connection = id}));
  EXPECT_TRUE(connections.fault(h0, fault(id, ipc::FaultReason::kNoRekey)));
  EXPECT_EQ(mail.take(), Notes{});
}

}  // namespace
}  // namespace ktrunk::supervisor
