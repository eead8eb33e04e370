// Trunks whose peers are asked whether they serve, fail and come back; and what is sent to them at most.
#include "system/daemon_fixture.h"
#include "system/trunk_peer.h"

namespace ktrunk::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class TrunkStateTest : public DaemonTest {
 protected:
  // A TCP listener and a UDP one, a trunk "pbx" with these lines, and everything routed to it.
  void launch_with(const std::string& trunk, const std::string& listener = {}) {
    launch(
        fmt::format("[[listen]]\nname = \"edge-tcp\"\ntransport = \"tcp\"\naddress = \"{}\"\n{}\n"
                    "[[listen]]\nname = \"edge-udp\"\ntransport = \"udp\"\naddress = \"{}\"\n{}\n"
                    "[[trunk]]\nname = \"pbx\"\n{}\n[[route]]\nto = \"pbx\"\n",
                    edge_tcp_.text(), listener, edge_udp_.text(), listener, trunk));
  }
  [[nodiscard]] static std::string tcp(const Address& address) { return fmt::format("\"tcp:{}\"", address.text()); }
  [[nodiscard]] static std::string udp(const Address& address) { return fmt::format("\"udp:{}\"", address.text()); }
  testing::AssertionResult becomes(std::string_view state) {
    const Status waited = daemon_->wait_status([&](const Json& now) { return now["trunks"][0]["state"] == state; });
    if (waited) return testing::AssertionSuccess();
    return testing::AssertionFailure() << waited.error().what;
  }
  [[nodiscard]] std::unique_ptr<SipStream> caller() const { return std::make_unique<SipStream>(call_in_tcp()); }
  [[nodiscard]] static SipMessage message(const std::string& method = "MESSAGE") {
    return make_request(
        {.method = method, .uri = "sip:bob@pbx.test", .transport = "TCP", .branch = "", .call_id = "", .body = ""});
  }
  // The status of the answer; 0 if none comes.
  [[nodiscard]] static int ask(SipStream& stream) {
    const auto response = stream.exchange(message(), kLong);
    return response ? response->status() : 0;
  }
};

TEST_F(TrunkStateTest, OptionsTellWhetherAPeerServes) {
  const Address address = fresh_address();
  TrunkPeer peer(TrunkPeer::Kind::kTcp, address);
  ASSERT_NO_FATAL_FAILURE(launch_with(
      "targets = [" + tcp(address) + "]\noptions_interval = \"1s\"\noptions_timeout = \"1s\"\noptions_failures = 2\n"));
  ASSERT_TRUE(becomes("up"));
  const Status answered = daemon_->wait_status([](const Json& now) {
    const Json& answer = now["trunks"][0]["options_answer"];
    return answer.is_object() && answer["status"] == 200;
  });
  ASSERT_TRUE(answered) << answered.error().what;
  EXPECT_THAT(peer.last_options(),
              AllOf(HasSubstr("OPTIONS sip:" + address.text() + ";transport=tcp SIP/2.0\r\n"),
                    HasSubstr("\r\nMax-Forwards: 70\r\n"), HasSubstr("\r\nVia: SIP/2.0/TCP " + edge_tcp_.text() + ";"),
                    HasSubstr("\r\nFrom: <sip:" + edge_tcp_.text() + ">;tag="),
                    HasSubstr("\r\nContact: <sip:" + edge_tcp_.text() + ";transport=tcp>\r\n")));
  const auto stream = caller();
  EXPECT_EQ(ask(*stream), 200);

  peer.options_status = 0;
  ASSERT_TRUE(becomes("degraded"));
  EXPECT_EQ(ask(*stream), 200);
  ASSERT_TRUE(becomes("down"));
  EXPECT_EQ(ask(*stream), 503);
  peer.options_status = 404;  // it has no such user, but it serves
  ASSERT_TRUE(becomes("up"));
  EXPECT_EQ(ask(*stream), 200);
  peer.options_status = 503;
  ASSERT_TRUE(becomes("down"));
  peer.options_status = 200;
  ASSERT_TRUE(becomes("up"));
  EXPECT_EQ(peer.connections, 1);
}

TEST_F(TrunkStateTest, OfUdpTargetsTheFirstThatAnswersIsUsed) {
  const Address first = fresh_address();
  const Address second = fresh_address();
  auto one = std::make_unique<TrunkPeer>(TrunkPeer::Kind::kUdp, first);
  TrunkPeer two(TrunkPeer::Kind::kUdp, second);
  ASSERT_NO_FATAL_FAILURE(
      launch_with("targets = [" + udp(first) + ", " + udp(second) +
                  "]\noptions_interval = \"1s\"\noptions_timeout = \"1s\"\noptions_failures = 2\n"));
  ASSERT_TRUE(becomes("up"));
  const auto stream = caller();
  EXPECT_EQ(ask(*stream), 200);
  EXPECT_EQ(one->requests, 1);
  one.reset();
  ASSERT_TRUE(
      eventually([&] { return daemon_->log().find("down, it gets no new requests") != std::string::npos; }, kLong))
      << daemon_->log();
  EXPECT_TRUE(becomes("degraded"));
  EXPECT_EQ(ask(*stream), 200);
  EXPECT_EQ(two.requests, 1);
  one = std::make_unique<TrunkPeer>(TrunkPeer::Kind::kUdp, first);
  ASSERT_TRUE(becomes("up"));
  EXPECT_EQ(ask(*stream), 200);
  EXPECT_EQ(one->requests, 1);
}

class TrunkFailover : public TrunkStateTest, public testing::WithParamInterface<TrunkPeer::Kind> {
 protected:
  [[nodiscard]] std::unique_ptr<TrunkPeer> peer_at(const Address& address) const {
    return std::make_unique<TrunkPeer>(GetParam(), address, as_pbx());
  }
};

TEST_P(TrunkFailover, CallsGoToTheSecondTargetAndBackToTheFirst) {
  const Address first = fresh_address();
  const Address second = fresh_address();
  const bool tls = GetParam() == TrunkPeer::Kind::kTls;
  auto one = peer_at(first);
  const auto other = peer_at(second);
  TrunkPeer& two = *other;
  ASSERT_NO_FATAL_FAILURE(launch_with(fmt::format(
      "targets = [\"{0}:{1}\", \"{0}:{2}\"]\nfailback = \"1s\"\n{3}", tls ? "tls" : "tcp", first.text(), second.text(),
      tls ? fmt::format("verify_name = \"pbx.test\"\nca = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
                        certificates().ca.file(), certificates().edge.certificate, certificates().edge.key)
          : "")));
  ASSERT_TRUE(becomes("up"));
  // Load all the while.
  std::atomic<int> served = 0;
  std::atomic<int> refused = 0;
  std::atomic<int> lost = 0;
  const std::jthread load([&](const std::stop_token& stop) {
    const auto stream = caller();
    while (!stop.stop_requested()) {
      const auto response = stream->exchange(message(), milliseconds(3000));
      ++(!response ? lost : response->status() == 200 ? served : refused);
      std::this_thread::sleep_for(milliseconds(2));
    }
  });
  ASSERT_TRUE(eventually([&] { return one->requests > 50; }, kLong));
  EXPECT_EQ(two.requests, 0);
  if (tls) {
    EXPECT_EQ(of_trunk(status(), "pbx").at(0)["record_layer"], ktls_missing().empty() ? "kernel" : "relay");
  }
  using std::chrono::steady_clock;
  const auto since = [](steady_clock::time_point then) {
    return std::chrono::duration_cast<milliseconds>(steady_clock::now() - then).count();
  };
  auto begin = steady_clock::now();
  one.reset();
  const auto another = caller();  // it waits for no answer of the first one's
  ASSERT_TRUE(eventually([&] { return ask(*another) == 200; }, kLong)) << daemon_->log();
  const auto to_second = since(begin);
  ASSERT_TRUE(eventually([&] { return two.requests > 50; }, kLong)) << daemon_->log();
  begin = steady_clock::now();
  one = peer_at(first);
  ASSERT_TRUE(eventually([&] { return one->requests > 0; }, kLong)) << daemon_->log();
  std::printf("to the second target after %lld ms, back after %lld ms (failback 1000 ms)\n",
              static_cast<long long>(to_second), static_cast<long long>(since(begin)));
  ASSERT_TRUE(eventually([&] { return one->requests > 50; }, kLong)) << daemon_->log();
  const int left = two.requests;
  ASSERT_TRUE(eventually([&] { return one->requests > 100; }, kLong));
  EXPECT_LE(two.requests, left + 1);
  EXPECT_LE(lost, 1);  // what the first one had not answered when it was killed
  EXPECT_GT(served, 150);
  EXPECT_TRUE(becomes("up"));
}

INSTANTIATE_TEST_SUITE_P(, TrunkFailover, testing::Values(TrunkPeer::Kind::kTcp, TrunkPeer::Kind::kTls),
                         [](const auto& kind) { return kind.param == TrunkPeer::Kind::kTls ? "Tls" : "Tcp"; });

TEST_F(TrunkStateTest, APeerThatAnswersNoOptionsIsLeftForTheNextTarget) {
  const Address first = fresh_address();
  const Address second = fresh_address();
  TrunkPeer one(TrunkPeer::Kind::kTcp, first);
  TrunkPeer two(TrunkPeer::Kind::kTcp, second);
  ASSERT_NO_FATAL_FAILURE(launch_with("targets = [" + tcp(first) + ", " + tcp(second) +
                                      "]\noptions_interval = \"1s\"\noptions_timeout = \"1s\"\noptions_failures = 1\n"
                                      "failback = \"4s\"\n"));
  ASSERT_TRUE(eventually([&] { return one.options > 0; }, kLong)) << daemon_->log();
  one.options_status = 0;
  ASSERT_TRUE(eventually([&] { return two.options > 0; }, kLong)) << daemon_->log();
  const auto stream = caller();
  EXPECT_EQ(ask(*stream), 200);
  EXPECT_EQ(two.requests, 1);
  one.options_status = 200;
  ASSERT_TRUE(eventually([&] { return one.connections > 1; }, kLong)) << daemon_->log();
  ASSERT_TRUE(eventually([&] { return ask(*stream) == 200 && one.requests > 0; }, kLong));
}

TEST_F(TrunkStateTest, KeepalivesAreAnsweredOrEndTheConnection) {
  const Address address = fresh_address();
  const auto listener = TcpListener::bind(address);
  ASSERT_TRUE(listener);
  ASSERT_NO_FATAL_FAILURE(launch_with("targets = [" + tcp(address) + "]\nkeepalive = \"1s\"\n"));
  auto socket = listener->accept(kLong);
  ASSERT_TRUE(socket);
  TcpStream stream(std::move(*socket));
  // Pongs that come in a row are not taken for pings, which would be answered.
  for (int i = 0; i < 3; ++i) {
    std::string ping;
    while (ping.size() < 4) {
      const auto some = stream.read_some(kLong);
      ASSERT_TRUE(some) << some.error().what;
      ping += *some;
    }
    EXPECT_EQ(ping, "\r\n\r\n");
    ASSERT_TRUE(stream.write_all("\r\n"));
  }
  EXPECT_TRUE(becomes("up"));
  EXPECT_EQ(status()["trunks"][0]["connections"], 1);
  // None any more: after 10 s it is dead.
  auto again = listener->accept(kLong);
  ASSERT_TRUE(again) << daemon_->log();
  EXPECT_THAT(daemon_->log(), HasSubstr("the peer did not answer a keepalive"));
}

TEST_F(TrunkStateTest, MoreRequestsPerSecondThanATrunkTakesAreRefused) {
  const Address address = fresh_address();
  TrunkPeer peer(TrunkPeer::Kind::kTcp, address);
  ASSERT_NO_FATAL_FAILURE(launch_with("targets = [" + tcp(address) + "]\nmax_requests_per_second = 5\n"));
  ASSERT_TRUE(becomes("up"));
  const auto stream = caller();
  constexpr int kRequests = 60;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < kRequests; ++i) ASSERT_TRUE(stream->send(message()));
  int refused = 0;
  for (int i = 0; i < kRequests; ++i) {
    const auto response = stream->receive(kLong);
    ASSERT_TRUE(response) << response.error().what;
    if (response->status() != 503) continue;
    ++refused;
    EXPECT_NE(response->header("Retry-After"), "");
  }
  const auto took = std::chrono::ceil<std::chrono::seconds>(std::chrono::steady_clock::now() - begin).count();
  EXPECT_EQ(peer.requests, kRequests - refused);
  EXPECT_GE(peer.requests, 5);
  EXPECT_LE(peer.requests, 5 + 5 * took);
}

TEST_F(TrunkStateTest, MoreInvitesThanATrunkTakesAreRefused) {
  const Address address = fresh_address();
  TrunkPeer peer(TrunkPeer::Kind::kTcp, address);
  peer.answers_invites = false;
  ASSERT_NO_FATAL_FAILURE(launch_with("targets = [" + tcp(address) + "]\nmax_invites = 2\n"));
  ASSERT_TRUE(becomes("up"));
  const auto stream = caller();
  const SipMessage first = message("INVITE");
  ASSERT_TRUE(stream->send(first));
  ASSERT_TRUE(stream->send(message("INVITE")));
  ASSERT_TRUE(eventually([&] { return peer.requests == 2; }, kLong));
  EXPECT_EQ(status()["trunks"][0]["invites"], 2);
  EXPECT_TRUE(answers(*stream, message("INVITE"), 503));
  EXPECT_EQ(ask(*stream), 200);  // others than INVITE are not counted
  peer.answers_invites = true;
  EXPECT_TRUE(answers(*stream, first, 200));  // the same again is no third one, and its answer makes room
  EXPECT_EQ(status()["trunks"][0]["invites"], 1);
  EXPECT_TRUE(answers(*stream, message("INVITE"), 200));
}

TEST_F(TrunkStateTest, StrangersAreRejected) {
  const Address address = fresh_address();
  TrunkPeer peer(TrunkPeer::Kind::kUdp, address);
  ASSERT_NO_FATAL_FAILURE(launch_with("targets = [" + udp(address) + "]\n", "strangers = \"reject\""));
  ASSERT_TRUE(becomes("up"));
  const auto stream = caller();
  EXPECT_EQ(ask(*stream), 403);
  const auto stranger = SipDatagrams::bind(fresh_address());
  ASSERT_TRUE(stranger);
  SipMessage request = message();
  ASSERT_TRUE(stranger->send(request, edge_udp_));
  const auto response = stranger->receive(kLong);
  ASSERT_TRUE(response);
  EXPECT_EQ(response->first.status(), 403);
  EXPECT_EQ(peer.requests, 0);
}

TEST_F(TrunkStateTest, StrangersAreIgnoredButNotATrunksOwnPeer) {
  auto peer = SipDatagrams::bind(fresh_address());
  ASSERT_TRUE(peer);
  ASSERT_NO_FATAL_FAILURE(launch_with("targets = [" + udp(peer->address()) + "]\n", "strangers = \"ignore\""));
  ASSERT_TRUE(becomes("up"));
  const auto stream = caller();
  ASSERT_TRUE(stream->send(message()));
  EXPECT_FALSE(stream->receive(milliseconds(500)));
  // It comes back to itself by the route: it was taken.
  SipMessage request = make_request({.method = "MESSAGE",
                                     .uri = "sip:bob@pbx.test",
                                     .transport = "UDP",
                                     .sent_by = peer->address().text(),
                                     .branch = "",
                                     .call_id = "",
                                     .body = ""});
  ASSERT_TRUE(peer->send(request, edge_udp_));
  const auto back = peer->receive(kLong);
  ASSERT_TRUE(back) << back.error().what;
  EXPECT_EQ(back->first.method(), "MESSAGE");
}

}  // namespace
}  // namespace ktrunk::test
