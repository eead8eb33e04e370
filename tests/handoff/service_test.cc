// The handshake service as it is meant to be used; on any kernel, as relays are allowed.
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <fstream>
#include <map>

#include "service_fixture.h"

namespace ktrunk::test {
namespace {

using testing::HasSubstr;

TEST_F(HandoffServiceTest, AcceptsForAClient) {
  start();
  auto client = this->client();
  auto [ours, theirs] = tcp_pair();
  send(client, accept_wish(7), std::move(ours));
  const auto peer = this->peer(std::move(theirs));
  ASSERT_TRUE(peer);
  const auto reply = this->reply(client);
  EXPECT_EQ(reply.answer.number, 7u);
  EXPECT_EQ(reply.answer.version, handoff::Version::kTls13);
  EXPECT_EQ(reply.answer.cipher.view(), peer->cipher());
  EXPECT_EQ(reply.answer.session, handoff::Session::kFull);
  EXPECT_EQ(reply.answer.names_total, 0u) << "the peer showed no certificate";
  EXPECT_NE(reply.answer.record_layer, handoff::RecordLayer::kNone);
  expect_good(reply, *peer);
}

TEST_F(HandoffServiceTest, ConnectsForAClient) {
  start();
  auto client = this->client();
  auto [ours, theirs] = tcp_pair();
  send(client, connect_wish(), std::move(ours));
  const auto peer = TlsStream::accept(std::move(theirs), as_carrier());
  ASSERT_TRUE(peer) << peer.error().what;
  const auto reply = this->reply(client);
  EXPECT_EQ(reply.answer.names_total, 3u);
  EXPECT_EQ(reply.answer.names[0].view(), "sip:carrier.test");
  EXPECT_EQ(reply.answer.names[1].view(), "dns:carrier.test");
  EXPECT_EQ(reply.answer.names[2].view(), "dns:b.test");
  expect_good(reply, **peer);
}

TEST_F(HandoffServiceTest, NamesTheClientCertificate) {
  start();
  auto client = this->client();
  auto [ours, theirs] = tcp_pair();
  send(client, accept_wish(), std::move(ours));
  TlsOptions options = as_client();
  options.certificate = carrier_.certificate;
  options.key = carrier_.key;
  options.max_version = TLS1_2_VERSION;
  const auto peer = TlsStream::handshake(std::move(theirs), options);
  ASSERT_TRUE(peer) << peer.error().what;
  const auto reply = this->reply(client);
  EXPECT_EQ(reply.answer.version, handoff::Version::kTls12);
  EXPECT_EQ(reply.answer.names[0].view(), "sip:carrier.test");
  expect_good(reply, **peer);
}

TEST_F(HandoffServiceTest, RelayEndsWithCloseNotifyAndWhenTheServiceEnds) {
  config_.record_layer = config::RecordLayer::kRelay;
  start();
  auto client = this->client();
  for (const bool close : {true, false}) {
    auto [ours, theirs] = tcp_pair();
    send(client, accept_wish(), std::move(ours));
    const auto peer = this->peer(std::move(theirs));
    ASSERT_TRUE(peer);
    auto reply = this->reply(client);
    ASSERT_EQ(reply.answer.record_layer, handoff::RecordLayer::kRelay);
    EXPECT_EQ(reply.answer.what.view(), "configured");
    EXPECT_EQ(ask([](auto& service) { return service.relays(); }), 1u);
    if (close) {
      reply.connection.reset();
    } else {
      ask([](auto& service) { service.stop(); });
    }
    const auto end = peer->read_some();
    EXPECT_TRUE(end && end->empty()) << "close_notify";
    EXPECT_TRUE(eventually([&] { return ask([](auto& service) { return service.relays(); }) == 0; }));
  }
}

TEST_F(HandoffServiceTest, RefusedRelayIsAFailureThatSaysWhy) {
  config_.record_layer = config::RecordLayer::kRelay;
  start();
  auto client = this->client();
  auto [ours, theirs] = tcp_pair();
  auto wish = accept_wish();
  wish.relay = handoff::Relay::kRefused;
  send(client, wish, std::move(ours));
  const auto peer = this->peer(std::move(theirs));
  ASSERT_TRUE(peer);
  const auto reply = this->reply(client);
  EXPECT_EQ(reply.answer.outcome, handoff::Outcome::kFailed);
  EXPECT_THAT(reply.answer.what.view(), HasSubstr("the request allows no relay: configured"));
  const auto end = peer->read_some();
  EXPECT_TRUE(end && end->empty()) << "close_notify";
}

TEST_F(HandoffServiceTest, FailedHandshakesSayWhy) {
  start();
  auto client = this->client();
  auto [ours, theirs] = tcp_pair();
  auto wish = connect_wish();
  wish.host = "somebody.else";
  send(client, wish, std::move(ours));
  const auto peer = TlsStream::accept(std::move(theirs), as_carrier());
  const auto reply = this->reply(client);
  EXPECT_EQ(reply.answer.outcome, handoff::Outcome::kFailed);
  EXPECT_FALSE(reply.connection.valid());
  EXPECT_EQ(reply.answer.sent.seen, handoff::AlertSeen::Seen::kYes);
  EXPECT_THAT(reply.answer.what.view(), HasSubstr("somebody.else"));
  if (peer) {
    EXPECT_FALSE((*peer)->read_some()) << "a fatal alert";
  }
}

TEST_F(HandoffServiceTest, AlertOfThePeerIsPassedOn) {
  start();
  auto client = this->client();
  auto [ours, theirs] = tcp_pair();
  send(client, accept_wish(), std::move(ours));
  TlsOptions options = as_client();
  options.verify_name = "other.test";
  EXPECT_FALSE(TlsStream::handshake(std::move(theirs), options));
  const auto reply = this->reply(client);
  EXPECT_EQ(reply.answer.outcome, handoff::Outcome::kFailed);
  EXPECT_EQ(reply.answer.received.seen, handoff::AlertSeen::Seen::kYes) << reply.answer.what.view();
}

TEST_F(HandoffServiceTest, ManyAtOnceAnsweredAsTheyCome) {
  start();
  auto client = this->client();
  std::map<std::uint64_t, Fd> waiting;
  for (std::uint64_t number = 0; number < 24; ++number) {
    auto [ours, theirs] = tcp_pair();
    send(client, accept_wish(number), std::move(ours));
    waiting.emplace(number, std::move(theirs));
  }
  // The last asked is the first to be done.
  while (!waiting.empty()) {
    auto last = waiting.extract(std::prev(waiting.end()));
    const auto peer = this->peer(std::move(last.mapped()));
    ASSERT_TRUE(peer);
    const auto reply = this->reply(client);
    EXPECT_EQ(reply.answer.number, last.key());
    expect_good(reply, *peer);
  }
}

TEST_F(HandoffServiceTest, SlowPeersAreGivenUp) {
  config_.limits.handshake = milliseconds(100);
  start();
  auto client = this->client();
  auto [ours, theirs] = tcp_pair();
  send(client, accept_wish(), std::move(ours));
  const auto reply = this->reply(client);
  EXPECT_EQ(reply.answer.outcome, handoff::Outcome::kFailed);
  EXPECT_THAT(reply.answer.what.view(), HasSubstr("limits.handshake"));
}

TEST_F(HandoffServiceTest, SocketIsTheOwnersAndOnlyStaleOnesAreReplaced) {
  {
    std::ofstream(path_) << "precious";
    auto loop = EventLoop::create();
    EXPECT_FALSE(handshake::HandoffService::create(**loop, config_, path_, {})) << "no socket";
    std::string kept;
    std::ifstream(path_) >> kept;
    EXPECT_EQ(kept, "precious");
    std::filesystem::remove(path_);
  }
  {
    const Fd stale(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(stale.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  start();
  struct stat found{};
  ASSERT_EQ(::stat(path_.c_str(), &found), 0);
  EXPECT_EQ(found.st_mode & 0777u, 0600u);
  auto loop = EventLoop::create();
  const auto second = handshake::HandoffService::create(**loop, config_, path_, {});
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().what, HasSubstr("another handshake service"));
  auto client = this->client();  // the first still serves
  stop();
  EXPECT_NE(::stat(path_.c_str(), &found), 0) << "removed";
}

TEST_F(HandoffServiceTest, ReloadTakesGoodFilesAndKeepsTheOldOtherwise) {
  start();
  const auto handshake_with = [&](const std::string& name) {
    auto client = this->client();
    auto [ours, theirs] = tcp_pair();
    send(client, accept_wish(), std::move(ours));
    TlsOptions options = as_client();
    options.verify_name = name;
    const bool good = TlsStream::handshake(std::move(theirs), options).has_value();
    (void)reply(client);
    return good;
  };
  EXPECT_TRUE(handshake_with("edge.test"));
  (void)authority_.issue({.name = "edge", .common_name = "", .dns = {"new.test"}});  // the same files
  EXPECT_TRUE(ask([](auto& service) { return service.reload(); }));
  EXPECT_TRUE(handshake_with("new.test"));
  std::ofstream(edge_.key) << "no key";
  EXPECT_FALSE(ask([](auto& service) { return service.reload(); }));
  EXPECT_TRUE(handshake_with("new.test"));
}

TEST_F(HandoffServiceTest, BadFilesAreSaidAtTheStart) {
  config_.listeners[0].tls.certificate = folder_.write("bad.pem", "no certificate");
  auto loop = EventLoop::create();
  const auto made = handshake::HandoffService::create(**loop, config_, path_, {});
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().what, HasSubstr("bad.pem"));
}

}  // namespace
}  // namespace ktrunk::test
