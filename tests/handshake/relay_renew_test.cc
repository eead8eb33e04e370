// New keys on a relayed connection: KeyUpdates of the relay's own, between the packets of the workers.
#include <gtest/gtest.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <array>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "handshake/relay.h"
#include "handshake/tls_test_peer.h"
#include "handshake/tls_test_pki.h"

namespace ktrunk::test {
namespace {

using handshake::KeyRenewal;
using handshake::Relay;
using handshake::Role;
using handshake::TlsContext;
using handshake::TlsSession;

// KeyUpdates that a peer received, by their request.
struct Seen {
  int plain = 0;
  int asking = 0;
};
void on_message(int write, int, int type, const void* data, std::size_t size, SSL*, void* seen) {
  const auto* octets = static_cast<const unsigned char*>(data);
  if (write != 0 || type != SSL3_RT_HANDSHAKE || size != 5 || octets[0] != 24) return;
  ++(octets[4] != 0 ? static_cast<Seen*>(seen)->asking : static_cast<Seen*>(seen)->plain);
}

class RelayRenew : public testing::Test {
 protected:
  void start(unsigned version) {
    config::Listener listener = pki_.listener(files_);
    listener.tls.allow_tls13 = version == TLS1_3_VERSION;
    listener.tls.allow_tls12 = !listener.tls.allow_tls13;
    context_.emplace(TlsContext::for_listener(listener).value());
    theirs_ = client_context(pki_.authority_file());
    auto [near, far] = tcp_pair();
    peer_ = std::make_unique<Peer>(theirs_.get(), std::move(far), Role::kConnect);
    auto session = TlsSession::accept(*context_, std::move(near)).value();
    ASSERT_EQ(shake(session, *peer_), TlsSession::Step::kDone) << session.failure().error.what;
    SSL_set_msg_callback(peer_->get(), on_message);
    SSL_set_msg_callback_arg(peer_->get(), &seen_);
    auto made =
        Relay::create(*loop_, closing_, std::move(session), "test", std::chrono::seconds(10), [this](const auto&) {
          ended_ = true;
        }).value();
    relay_ = std::move(made.relay);
    workers_ = std::move(made.workers_end);
  }
  void turn(int times = 5) {
    for (int i = 0; i < times; ++i) ASSERT_TRUE(loop_->turn(std::chrono::milliseconds(5)));
  }
  void exchange(const std::string& text) {
    ASSERT_EQ(::send(workers_.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
    turn();
    ASSERT_EQ(peer_->receive(), text);
    ASSERT_TRUE(peer_->send(text));
    turn();
    std::array<char, 100> buffer = {};
    ASSERT_EQ(::recv(workers_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT), static_cast<ssize_t>(text.size()));
    ASSERT_FALSE(ended_);
  }

  Pki pki_;
  Pki::Files files_ = pki_.issue({});
  std::unique_ptr<EventLoop> loop_ = EventLoop::create().value();
  handshake::Closing closing_{*loop_};
  std::optional<TlsContext> context_;
  Context theirs_;
  std::unique_ptr<Peer> peer_;
  Seen seen_;
  bool ended_ = false;
  std::unique_ptr<Relay> relay_;
  Fd workers_;
};

TEST_F(RelayRenew, SendsKeyUpdatesOfItsOwn) {
  start(TLS1_3_VERSION);
  exchange("before");
  for (int i = 1; i <= 20; ++i) {
    ASSERT_EQ(relay_->renew(ipc::Renew::Which::kTransmit), KeyRenewal::kBegun);
    exchange("under new transmit keys");
    ASSERT_EQ(seen_.plain, i);
    ASSERT_EQ(relay_->renew(ipc::Renew::Which::kReceive), KeyRenewal::kBegun);
    exchange("under new keys both ways");
    ASSERT_EQ(seen_.asking, i);
  }
}

TEST_F(RelayRenew, OneUpdateServesAllThatAskForIt) {
  start(TLS1_3_VERSION);
  for (int i = 0; i < 10; ++i) {
    ASSERT_EQ(relay_->renew(ipc::Renew::Which::kReceive), KeyRenewal::kBegun);
    ASSERT_EQ(relay_->renew(ipc::Renew::Which::kTransmit), KeyRenewal::kBegun);
  }
  exchange("once");
  EXPECT_EQ(seen_.asking, 1);
  EXPECT_EQ(seen_.plain, 0);
}

// The peer reads nothing: the update waits behind what is on its way, and nothing breaks.
TEST_F(RelayRenew, WaitsForAPeerThatDoesNotRead) {
  start(TLS1_3_VERSION);
  const std::string packet(16384, 'p');
  std::size_t sent = 0;
  for (int idle = 0; idle < 20;) {
    if (::send(workers_.get(), packet.data(), packet.size(), MSG_DONTWAIT | MSG_NOSIGNAL) > 0) {
      sent += packet.size();
      idle = 0;
    } else {
      turn(1);
      ++idle;
    }
  }
  ASSERT_EQ(relay_->renew(ipc::Renew::Which::kTransmit), KeyRenewal::kBegun);
  turn();
  EXPECT_EQ(seen_.plain, 0);
  for (std::size_t received = 0; received < sent;) {
    turn(1);
    const std::string part = peer_->receive();
    ASSERT_FALSE(part.empty());
    received += part.size();
  }
  exchange("and on");
  EXPECT_EQ(seen_.plain, 1);
}

TEST_F(RelayRenew, CannotUnderTls12) {
  start(TLS1_2_VERSION);
  EXPECT_EQ(relay_->renew(ipc::Renew::Which::kTransmit), KeyRenewal::kCannot);
  exchange("as before");
}

}  // namespace
}  // namespace ktrunk::test
