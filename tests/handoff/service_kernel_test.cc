// The handshake service where the kernel has TLS: connections come back as kTLS sockets.
#include <sys/socket.h>

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

}  // namespace
}  // namespace ktrunk::test
