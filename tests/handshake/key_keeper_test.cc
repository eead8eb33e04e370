// The key keeper's answers, on a fake kernel.
#include "handshake/key_keeper.h"

#include <gtest/gtest.h>
#include <linux/tls.h>

#include <array>
#include <string>

#include "handshake/keeper_bench.h"

namespace ktrunk::test {
namespace {

using handshake::KeyKeeper;
using ipc::FaultReason;
using What = ipc::Resume::What;

KeeperBench::Scene tls12(ktls::Endpoint self) { return {.version = ktls::Version::kTls12, .self = self}; }

void expect_fault(KeeperBench& bench, const std::string& record, FaultReason reason, int detail) {
  bench.record(record);
  ASSERT_EQ(bench.faults.size(), 1u);
  EXPECT_EQ(bench.faults[0].connection, kConnection);
  EXPECT_EQ(ipc::fault_text(bench.faults[0].reason), ipc::fault_text(reason));
  EXPECT_EQ(bench.faults[0].detail, detail);
  EXPECT_TRUE(bench.resumes.empty());
  bench.record(key_update(Asks::kNo));  // silence from here on
  EXPECT_EQ(bench.faults.size(), 1u);
  EXPECT_TRUE(bench.resumes.empty());
}

class EveryCipher : public testing::TestWithParam<std::pair<ktls::Aead, ktls::Hash>> {};

TEST_P(EveryCipher, FollowsAndMakesKeyUpdates) {
  KeeperBench bench({.aead = GetParam().first, .hash = GetParam().second});
  for (unsigned i = 1; i <= 20; ++i) {
    bench.record(key_update(Asks::kYes));
    ASSERT_TRUE(bench.faults.empty());
    EXPECT_TRUE(bench.receives_under(i));
    EXPECT_TRUE(bench.sends_under(i - 1)) << "not before the record has gone out";
    ASSERT_EQ(bench.controls.size(), i);
    const ipc::SendControl& sent = bench.controls.back();
    EXPECT_EQ(sent.record_type, 22);
    EXPECT_EQ(sent.after, ipc::SendControl::After::kHoldSends);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(sent.octets.data()), sent.bytes), key_update(Asks::kNo));
    bench.control_sent();
    EXPECT_TRUE(bench.sends_under(i));
    ASSERT_EQ(bench.resumes.size(), 2 * i);
    EXPECT_EQ(bench.resumes[2 * i - 2].what, What::kReceiveRekeyed);
    EXPECT_EQ(bench.resumes[2 * i - 1].what, What::kSendRekeyed);
  }
  EXPECT_EQ(bench.stats.receive_rekeyed.read(), 20u);
  EXPECT_EQ(bench.stats.transmit_rekeyed.read(), 20u);
}
INSTANTIATE_TEST_SUITE_P(Ciphers, EveryCipher,
                         testing::Values(std::pair(ktls::Aead::kAes128Gcm, ktls::Hash::kSha256),
                                         std::pair(ktls::Aead::kAes256Gcm, ktls::Hash::kSha384),
                                         std::pair(ktls::Aead::kChaCha20Poly1305, ktls::Hash::kSha256)));

TEST(KeyKeeper, AnswersOnlyWhenAsked) {
  KeeperBench bench;
  bench.record(key_update(Asks::kNo));
  EXPECT_TRUE(bench.controls.empty());
  EXPECT_TRUE(bench.receives_under(1));
  EXPECT_TRUE(bench.sends_under(0));
}

TEST(KeyKeeper, HasOneUpdateUnderWayAndOneWaiting) {
  KeeperBench bench;
  for (int i = 0; i < 10; ++i) bench.record(key_update(Asks::kYes));
  EXPECT_TRUE(bench.receives_under(10));
  EXPECT_EQ(bench.controls.size(), 1u);
  bench.control_sent();
  EXPECT_TRUE(bench.sends_under(1));
  EXPECT_EQ(bench.controls.size(), 2u) << "what was asked for meanwhile is answered once";
  bench.control_sent();
  EXPECT_TRUE(bench.sends_under(2));
  EXPECT_EQ(bench.controls.size(), 2u);
  EXPECT_FALSE(bench.update_under_way());
}

TEST(KeyKeeper, RenewsEitherDirection) {
  KeeperBench bench;
  bench.ask(ipc::Renew::Which::kTransmit);
  bench.ask(ipc::Renew::Which::kTransmit);
  ASSERT_EQ(bench.controls.size(), 1u);
  EXPECT_EQ(bench.controls[0].octets[4], std::byte{0});
  bench.ask(ipc::Renew::Which::kReceive);
  bench.control_sent();
  ASSERT_EQ(bench.controls.size(), 2u);
  EXPECT_EQ(bench.controls[1].octets[4], std::byte{1}) << "the peer is asked for keys of its own";
  bench.control_sent();
  bench.record(key_update(Asks::kNo));
  EXPECT_TRUE(bench.sends_under(2) && bench.receives_under(1));
  EXPECT_EQ(bench.controls.size(), 2u);
}

TEST(KeyKeeper, CannotRenewWithoutTls13OrRekeyOrEntry) {
  KeeperBench old_kernel({.rekey = false});
  EXPECT_EQ(old_kernel.keeper->update(kConnection, ipc::Renew::Which::kTransmit), KeyKeeper::Update::kCannot);
  KeeperBench old_version(tls12(ktls::Endpoint::kServer));
  EXPECT_EQ(old_version.keeper->update(kConnection, ipc::Renew::Which::kTransmit), KeyKeeper::Update::kCannot);
  KeeperBench bench;
  for (const ConnectionId other :
       {ConnectionId{{3}, {8}}, ConnectionId{{4}, {7}}, ConnectionId{{800}, {7}}, ConnectionId{}})
    EXPECT_EQ(bench.keeper->update(other, ipc::Renew::Which::kTransmit), KeyKeeper::Update::kCannot);
  EXPECT_TRUE(bench.controls.empty());
}

TEST(KeyKeeper, NeedsAKernelThatTakesNewKeys) {
  KeeperBench bench({.rekey = false});
  expect_fault(bench, key_update(Asks::kYes), FaultReason::kNoRekey, 0);
  EXPECT_TRUE(bench.controls.empty());
  EXPECT_TRUE(bench.receives_under(0));
}

TEST(KeyKeeper, TakesTicketsOnAnyKernel) {
  for (const bool rekey : {false, true}) {
    KeeperBench bench({.self = ktls::Endpoint::kClient, .rekey = rekey});
    bench.record(ticket() + ticket(500));
    ASSERT_EQ(bench.resumes.size(), 1u);
    EXPECT_EQ(bench.resumes[0].what, What::kReceive);
    EXPECT_EQ(bench.installs(TLS_RX), 1);
  }
}

TEST(KeyKeeper, SaysWhyAMessageEndsTheConnection) {
  struct Case {
    std::string record;
    FaultReason reason;
    int detail;
  };
  const std::array cases = {Case{ticket(), FaultReason::kUnexpectedHandshake, 4},
                            Case{std::string("\x18\0\0\1\2", 5), FaultReason::kBadKeyUpdate, 24},
                            Case{std::string("\x18\0\0\0", 4), FaultReason::kBadHandshake, 24},
                            Case{key_update(Asks::kNo) + key_update(Asks::kNo), FaultReason::kUnexpectedHandshake, 24},
                            Case{std::string("\x0d\0\0\0", 4), FaultReason::kUnexpectedHandshake, 13},
                            Case{std::string("\x14\0\0\0", 4), FaultReason::kUnexpectedHandshake, 20},
                            Case{std::string("\1\0\0\0", 4), FaultReason::kUnexpectedHandshake, 1},
                            Case{std::string(), FaultReason::kUnexpectedHandshake, 0}};
  for (const Case& each : cases) {
    SCOPED_TRACE(each.detail);
    KeeperBench bench;
    expect_fault(bench, each.record, each.reason, each.detail);
    EXPECT_TRUE(bench.receives_under(0));
    bench.keeper->gone(kConnection);
    EXPECT_FALSE(bench.entry().holder());
  }
}

TEST(KeyKeeper, RefusesRenegotiationWithAWarning) {
  struct Case {
    ktls::Endpoint self;
    std::string record;
  };
  for (const Case& each : {Case{ktls::Endpoint::kClient, std::string(4, '\0')},
                           Case{ktls::Endpoint::kServer, std::string("\1\0\0\x20", 4) + std::string(32, 'x')}}) {
    KeeperBench bench(tls12(each.self));
    bench.record(each.record, 7);
    ASSERT_EQ(bench.controls.size(), 1u);
    EXPECT_EQ(bench.controls[0].record_type, 21);
    EXPECT_EQ(bench.controls[0].bytes, 2);
    EXPECT_EQ(bench.controls[0].octets[0], std::byte{1});
    EXPECT_EQ(bench.controls[0].octets[1], std::byte{100});
    EXPECT_EQ(bench.controls[0].after, ipc::SendControl::After::kGoOn);
    ASSERT_EQ(bench.resumes.size(), 1u);
    EXPECT_EQ(bench.resumes[0].what, What::kReceive);
    EXPECT_TRUE(bench.faults.empty());
  }
  KeeperBench client(tls12(ktls::Endpoint::kClient));
  expect_fault(client, ticket(), FaultReason::kUnexpectedHandshake, 4);
  KeeperBench server(tls12(ktls::Endpoint::kServer));
  expect_fault(server, key_update(Asks::kNo), FaultReason::kUnexpectedHandshake, 24);
}

// The kernel stops behind a record that begins with 24, whatever follows: it must be set going again.
TEST(KeyKeeper, SetsTheKernelGoingBehindTheBeginningOfAKeyUpdate) {
  const std::string update = key_update(Asks::kYes);
  for (std::size_t cut = 1; cut < update.size(); ++cut) {
    SCOPED_TRACE(cut);
    KeeperBench bench;
    bench.kernel.carry(bench.socket.get(), TLS_RX, 41);
    bench.record(update.substr(0, cut));
    ASSERT_EQ(bench.resumes.size(), 1u);
    EXPECT_EQ(bench.installs(TLS_RX), 2) << "the same keys";
    EXPECT_TRUE(bench.receives_under(0));
    EXPECT_EQ(bench.kernel.installed(bench.socket.get(), TLS_RX)->value.back(), 42) << "with the next record's number";
    bench.record(update.substr(cut));
    EXPECT_TRUE(bench.receives_under(1));
    EXPECT_EQ(bench.controls.size(), 1u);
    EXPECT_EQ(bench.resumes.back().what, What::kReceiveRekeyed);
    EXPECT_FALSE(bench.entry().stream() && bench.entry().stream()->have > 0);
  }
}

TEST(KeyKeeper, FindsAKeyUpdateBehindATicket) {
  KeeperBench bench({.self = ktls::Endpoint::kClient});
  bench.record(ticket() + key_update(Asks::kNo));
  EXPECT_TRUE(bench.receives_under(1));
  ASSERT_EQ(bench.resumes.size(), 1u);
  EXPECT_EQ(bench.resumes[0].what, What::kReceiveRekeyed);
}

TEST(KeyKeeper, EndsAConnectionWhoseKeysCannotBeInstalled) {
  for (int call = 0; call < 2; ++call) {  // getsockopt, setsockopt
    KeeperBench bench;
    bench.kernel.fail_call = bench.kernel.calls + call;
    bench.kernel.fail_with = ENOMEM;
    expect_fault(bench, key_update(Asks::kYes), FaultReason::kKeysFailed, ENOMEM);
    EXPECT_TRUE(bench.receives_under(0));
    EXPECT_EQ(bench.entry().receive.pending(), nullptr);
    EXPECT_TRUE(bench.controls.empty());
  }
  for (int call = 0; call < 2; ++call) {
    KeeperBench bench;
    bench.ask(ipc::Renew::Which::kTransmit);
    bench.kernel.fail_call = bench.kernel.calls + call;
    bench.kernel.fail_with = ENOMEM;
    bench.control_sent();
    ASSERT_EQ(bench.faults.size(), 1u);
    EXPECT_EQ(bench.faults[0].reason, FaultReason::kKeysFailed);
    EXPECT_EQ(bench.faults[0].detail, ENOMEM);
    EXPECT_TRUE(bench.sends_under(0));
  }
}

TEST(KeyKeeper, DoesNotTouchKeysThatTheVaultDoesNotKnow) {
  KeeperBench bench;
  bench.entry().receive.begin(bench.transmit.bytes());
  expect_fault(bench, key_update(Asks::kYes), FaultReason::kKeysFailed, EKEYREJECTED);
  EXPECT_TRUE(bench.receives_under(0));
}

TEST(KeyKeeper, KnowsOnlyItsOwnConnections) {
  KeeperBench bench;
  const auto tell = [&](ConnectionId id) {
    ipc::PostHandshake message{};
    message.record.connection = id;
    message.record.bytes = 5;
    const std::string update = key_update(Asks::kYes);
    std::ranges::copy(std::as_bytes(std::span(update)), message.record.octets.begin());
    bench.keeper->post_handshake(message, Fd());
    bench.keeper->install_transmit({.connection = id}, Fd());
  };
  for (const ConnectionId id : {ConnectionId{{3}, {8}}, ConnectionId{{4}, {7}}, ConnectionId{{4000}, {7}}}) tell(id);
  EXPECT_EQ(bench.faults.size(), 6u);
  for (const ipc::Fault& fault : bench.faults) EXPECT_EQ(fault.reason, FaultReason::kKeysFailed);
  bench.entry().publish({kConnection.generation, {1}});  // another process's
  tell(kConnection);
  EXPECT_EQ(bench.faults.size(), 8u);
  EXPECT_TRUE(bench.receives_under(0));
}

TEST(KeyKeeper, BoundsHandshakeRecords) {
  KeeperBench bench({.self = ktls::Endpoint::kClient, .limits = {.records_burst = 20, .records_per_second = 0}});
  for (int i = 0; i < 20; ++i) bench.record(ticket(1));
  EXPECT_TRUE(bench.faults.empty());
  EXPECT_EQ(bench.resumes.size(), 20u);
  bench.record(ticket(1));
  ASSERT_EQ(bench.faults.size(), 1u);
  EXPECT_EQ(bench.faults[0].reason, FaultReason::kControlFlood);
}

TEST(KeyKeeper, BoundsWhatWaitsForItsRest) {
  KeeperBench bench({.self = ktls::Endpoint::kClient, .limits = {.most_octets = 40000}});
  const std::string whole = ticket(60000);
  bench.record(whole.substr(0, 16000));
  bench.record(whole.substr(16000, 16000));
  EXPECT_TRUE(bench.faults.empty());
  bench.record(whole.substr(32000, 16000));
  ASSERT_EQ(bench.faults.size(), 1u);
  EXPECT_EQ(bench.faults[0].reason, FaultReason::kControlFlood);

  KeeperBench more({.self = ktls::Endpoint::kClient});
  for (int i = 0; i < 40; ++i) {  // far more than the bound altogether, but each time all of it comes
    for (std::size_t at = 0; at < whole.size(); at += 16000) more.record(whole.substr(at, 16000));
  }
  EXPECT_TRUE(more.faults.empty());
}

TEST(KeyKeeper, LeavesNoSecretBehind) {
  KeeperBench bench;
  for (unsigned i = 0; i < 3; ++i) {
    bench.record(key_update(Asks::kYes));
    bench.control_sent();
    for (unsigned j = 0; j <= i; ++j) {
      EXPECT_FALSE(bench.octets_in_vault(bench.secret(bench.receive, j)));
      EXPECT_FALSE(bench.octets_in_vault(bench.secret(bench.transmit, j)));
    }
    EXPECT_TRUE(bench.octets_in_vault(bench.secret(bench.receive, i + 1)));
  }
  bench.keeper->gone({kConnection.slot, {6}});
  EXPECT_TRUE(bench.entry().holder()) << "another life of the slot";
  bench.keeper->gone(kConnection);
  EXPECT_FALSE(bench.octets_in_vault(bench.secret(bench.receive, 3)));
  EXPECT_FALSE(bench.octets_in_vault(bench.secret(bench.transmit, 3)));
}

// Handed over, and dead before the supervisor's answer: the successor finds the slot by the reference.
TEST(KeyKeeper, TakesOverWhatWasNotAnswered) {
  auto region = ipc::SharedRegion::create({.workers = 1, .handshakes = 2, .max_connections = 8, .trunks = 1}).value();
  KeeperBench bench;
  bench.entry().wipe();
  const auto secrets = [&] {
    return handshake::KernelSecrets{bench.scene.version,
                                    bench.scene.aead,
                                    bench.scene.hash,
                                    bench.scene.self,
                                    ktls::TrafficSecret(bench.transmit.bytes()),
                                    ktls::TrafficSecret(bench.receive.bytes())};
  };
  const std::uint64_t ours = bench.keeper->next_reference();
  const std::uint64_t refused = bench.keeper->next_reference();
  const std::uint64_t lost = bench.keeper->next_reference();
  for (const std::uint64_t reference : {ours, refused, lost}) bench.keeper->hand_over(reference, secrets());
  bench.keeper->answered(refused);
  const auto offer = [&](std::uint32_t slot, std::uint32_t generation, unsigned by, std::uint64_t reference) {
    region.slot({slot}).made_by = {static_cast<std::uint8_t>(by)};
    region.slot({slot}).reference = reference;
    region.slot({slot}).word.store(ipc::SlotWord{{generation}, ipc::SlotState::kOffered, {0}}.pack());
  };
  offer(1, 5, 1, ours);  // another process's
  offer(2, 5, 0, refused);
  offer(kConnection.slot.value, kConnection.generation.value, 0, ours);
  bench.restart();
  bench.keeper->tidy(region);
  EXPECT_EQ(bench.entry().holder(), (ipc::VaultEntry::Holder{kConnection.generation, {0}}));
  for (const std::uint32_t other : {1u, 2u}) EXPECT_FALSE(bench.vault.entry({other}).holder()) << other;
  for (const auto& place : bench.vault.unanswered({0}).places) EXPECT_EQ(place.reference.load(), 0u);
  EXPECT_EQ(bench.keeper->next_reference(), lost + 1) << "none is given out twice";
  bench.record(key_update(Asks::kYes));
  EXPECT_TRUE(bench.receives_under(1));
  bench.control_sent();
  EXPECT_TRUE(bench.sends_under(1));
  EXPECT_TRUE(bench.faults.empty());
  // Told of it once more, it keeps what it has by now.
  bench.keeper->hand_over(ours, secrets());
  bench.restart();
  bench.keeper->tidy(region);
  bench.record(key_update(Asks::kNo));
  EXPECT_TRUE(bench.receives_under(2));
  bench.keeper->gone(kConnection);
  EXPECT_FALSE(bench.octets_in_vault(bench.transmit));
}

TEST(KeyKeeper, TidiesUpWhatEndedWithoutIt) {
  auto region = ipc::SharedRegion::create({.workers = 1, .handshakes = 2, .max_connections = 8, .trunks = 1}).value();
  const auto live = [&](std::uint32_t slot, std::uint32_t generation, ipc::SlotState state) {
    region.slot({slot}).word.store(ipc::SlotWord{{generation}, state, {0}}.pack());
  };
  KeeperBench bench;
  for (std::uint32_t i = 0; i < 8; ++i) bench.vault.entry({i}).publish({{5}, {static_cast<std::uint8_t>(i == 7)}});
  live(0, 5, ipc::SlotState::kOpen);
  live(1, 5, ipc::SlotState::kClosing);
  live(2, 5, ipc::SlotState::kOffered);
  live(3, 6, ipc::SlotState::kOpen);
  live(4, 5, ipc::SlotState::kFree);
  live(5, 6, ipc::SlotState::kFree);
  live(7, 9, ipc::SlotState::kOpen);
  bench.keeper->tidy(region);
  for (const std::uint32_t kept : {0u, 1u, 2u, 7u}) EXPECT_TRUE(bench.vault.entry({kept}).holder()) << kept;
  for (const std::uint32_t ended : {3u, 4u, 5u}) EXPECT_FALSE(bench.vault.entry({ended}).holder()) << ended;
}

}  // namespace
}  // namespace ktrunk::test
