// The handshake service where the kernel has TLS: connections come back as kTLS sockets.
#include <sys/socket.h>

#include <array>
#include <optional>
#include <span>
#include <utility>

#include "ktls/control_record.h"
#include "service_fixture.h"
#include "support/ktls_available.h"

namespace ktrunk::test {
namespace {

class HandoffKernelTest : public HandoffServiceTest {
 protected:
  void SetUp() override {
    KTRUNK_REQUIRE_KTLS();
    start();
  }
};

TEST_F(HandoffKernelTest, EveryVersionAndRoleComesBackInTheKernel) {
  auto client = this->client();
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    for (const bool accept : {true, false}) {
      auto [ours, theirs] = tcp_pair();
      auto wish = accept ? accept_wish() : connect_wish();
      wish.relay = handoff::Relay::kRefused;
      send(client, wish, std::move(ours));
      TlsOptions options = accept ? as_client() : as_carrier();
      options.min_version = options.max_version = version;
      const auto peer =
          accept ? TlsStream::handshake(std::move(theirs), options) : TlsStream::accept(std::move(theirs), options);
      ASSERT_TRUE(peer) << peer.error().what;
      const auto reply = this->reply(client);
      ASSERT_EQ(reply.answer.record_layer, handoff::RecordLayer::kKernel) << reply.answer.what.view();
      expect_good(reply, **peer);
    }
  }
}

TEST_F(HandoffKernelTest, ConnectionOutlivesTheService) {
  auto client = this->client();
  auto [ours, theirs] = tcp_pair();
  send(client, accept_wish(), std::move(ours));
  const auto peer = this->peer(std::move(theirs));
  ASSERT_TRUE(peer);
  auto reply = this->reply(client);
  stop();
  expect_good(reply, *peer);
  const ktls::AlertMessage close_notify(ktls::kCloseNotify);
  EXPECT_EQ(::sendmsg(reply.connection.get(), close_notify.header(), MSG_NOSIGNAL), 2);
  const auto end = peer->read_some();
  EXPECT_TRUE(end && end->empty());
}

TEST_F(HandoffKernelTest, SuiteThatTheKernelDoesNotDoIsRelayedOrRefused) {
  // The fixture's service was started with ktrunk's own suites; one that is not the kernel's needs another context.
  stop();
  config_.listeners[0].tls.ciphers = "ECDHE-ECDSA-AES128-SHA256";
  config_.listeners[0].tls.allow_tls13 = false;
  start();
  auto client = this->client();
  for (const handoff::Relay relay : {handoff::Relay::kAllowed, handoff::Relay::kRefused}) {
    auto [ours, theirs] = tcp_pair();
    auto wish = accept_wish();
    wish.relay = relay;
    send(client, wish, std::move(ours));
    const auto peer = this->peer(std::move(theirs));
    ASSERT_TRUE(peer);
    const auto reply = this->reply(client);
    if (relay == handoff::Relay::kAllowed) {
      EXPECT_EQ(reply.answer.record_layer, handoff::RecordLayer::kRelay);
      expect_good(reply, *peer);
    } else {
      EXPECT_EQ(reply.answer.outcome, handoff::Outcome::kFailed);
      EXPECT_THAT(reply.answer.what.view(), testing::HasSubstr("allows no relay"));
    }
  }
}

// Connections whose keys the service keeps: both ends make new ones.
class HandoffKeysTest : public HandoffKernelTest {
 protected:
  using What = handoff::Instruction::What;

  void SetUp() override {
    HandoffKernelTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    client_.emplace(client());
    auto [ours, theirs] = tcp_pair();
    auto wish = accept_wish();
    wish.keys = handoff::Keys::kKeep;
    send(*client_, wish, std::move(ours));
    peer_ = this->peer(std::move(theirs));
    ASSERT_TRUE(peer_);
    reply_ = reply(*client_);
    ASSERT_NE(reply_.answer.connection, 0u);
    EXPECT_EQ(kept(), 1u);
  }
  void TearDown() override {
    client_.reset();
    peer_.reset();
    reply_ = {};
    HandoffKernelTest::TearDown();
  }
  [[nodiscard]] std::size_t kept() {
    return ask([](const handshake::HandoffService& service) { return service.kept(); });
  }
  [[nodiscard]] std::uint64_t name() const { return reply_.answer.connection; }

  // The next record, which must be a handshake record, goes to the service.
  void pass_record_on() {
    std::array<std::byte, ktls::kMaxRecordBytes> data;
    alignas(cmsghdr) std::array<std::byte, ktls::kControlBytes> control;
    iovec part{data.data(), data.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t got = ::recvmsg(reply_.connection.get(), &message, 0);
    ASSERT_GT(got, 0) << errno_text(errno);
    const auto type = ktls::record_type(std::span(control).first(message.msg_controllen), message.msg_flags);
    ASSERT_TRUE(type && *type == ktls::RecordType::kHandshake);
    ASSERT_TRUE(client_->record(name(), std::span(data).first(static_cast<std::size_t>(got)), reply_.connection));
  }
  // Does what the service wants before new transmit keys.
  void send_and_hold(const handoff::Instruction& instruction) {
    ASSERT_EQ(instruction.what, What::kSendAndHold) << instruction.why.view();
    const ktls::ControlMessage record(static_cast<ktls::RecordType>(instruction.record_type),
                                      std::span(instruction.octets).first(instruction.bytes));
    ASSERT_EQ(::sendmsg(reply_.connection.get(), record.header(), MSG_NOSIGNAL), ssize_t{instruction.bytes});
    ASSERT_TRUE(client_->sent(name(), reply_.connection));
    EXPECT_EQ(instruction_what(), What::kSendRekeyed);
  }
  [[nodiscard]] What instruction_what() { return instruction(*client_).what; }

  std::optional<handoff::Client> client_;
  std::unique_ptr<TlsStream> peer_;
  handoff::Reply reply_;
};

TEST_F(HandoffKeysTest, FollowsThePeersKeyUpdate) {
  ASSERT_TRUE(peer_->key_update(SSL_KEY_UPDATE_REQUESTED));
  ASSERT_TRUE(peer_->write_all("under new keys"));
  ASSERT_NO_FATAL_FAILURE(pass_record_on());
  if (!ktls_support().rekey) {
    const auto instruction = this->instruction(*client_);
    EXPECT_EQ(instruction.what, What::kClose);
    EXPECT_EQ(instruction.alert, static_cast<std::uint8_t>(ktls::AlertDescription::kInternalError));
    EXPECT_THAT(instruction.why.view(), testing::HasSubstr("KeyUpdate"));
    return;
  }
  // Ours, as was requested, and leave to receive: in either order.
  auto first = instruction(*client_);
  auto second = instruction(*client_);
  if (first.what == What::kReceiveRekeyed) std::swap(first, second);
  EXPECT_EQ(second.what, What::kReceiveRekeyed);
  ASSERT_NO_FATAL_FAILURE(send_and_hold(first));
  EXPECT_EQ(receive_data(reply_.connection), "under new keys");
  expect_good(reply_, *peer_);
}

TEST_F(HandoffKeysTest, RenewsOurKeys) {
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(client_->renew(name(), handoff::Renew::Which::kTransmit));
    const auto instruction = this->instruction(*client_);
    if (!ktls_support().rekey) {
      EXPECT_EQ(instruction.what, What::kCannotRenew);
      return;
    }
    ASSERT_NO_FATAL_FAILURE(send_and_hold(instruction));
    expect_good(reply_, *peer_);
  }
}

TEST_F(HandoffKeysTest, RecordsThatAreNoneEndTheConnection) {
  const std::vector<std::byte> nonsense(16384, std::byte{0x55});
  ASSERT_TRUE(client_->record(name(), nonsense, reply_.connection));
  const auto instruction = this->instruction(*client_);
  EXPECT_EQ(instruction.what, What::kClose);
  EXPECT_NE(instruction.alert, 0);
  ASSERT_TRUE(client_->gone(name()));
  EXPECT_TRUE(eventually([&] { return kept() == 0; }));
}

TEST_F(HandoffKeysTest, GoneIsForgottenAndOthersHaveNoSay) {
  auto other = client();
  ASSERT_TRUE(other.gone(name()));
  ASSERT_TRUE(other.renew(name(), handoff::Renew::Which::kTransmit));
  EXPECT_EQ(instruction(other).what, What::kCannotRenew);
  EXPECT_EQ(kept(), 1u);
  ASSERT_TRUE(client_->gone(name()));
  ASSERT_TRUE(client_->renew(name(), handoff::Renew::Which::kTransmit));
  EXPECT_EQ(instruction_what(), What::kCannotRenew);
  EXPECT_EQ(kept(), 0u);
  expect_good(reply_, *peer_);
}

TEST_F(HandoffKeysTest, ClientThatGoesTakesItsKeysAlong) {
  client_.reset();
  EXPECT_TRUE(eventually([&] { return kept() == 0; }));
  expect_good(reply_, *peer_);
}

}  // namespace
}  // namespace ktrunk::test
