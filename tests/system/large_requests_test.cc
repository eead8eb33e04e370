// trunk.large_requests = "tcp": requests to udp targets that are too large for a datagram (RFC 3261 18.1.1).
#include "system/daemon_fixture.h"

namespace ktrunk::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class LargeRequests : public DaemonTest {
 protected:
  static constexpr std::size_t kLarge = 2000;  // octets of a body

  void SetUp() override {
    auto udp = SipDatagrams::bind(fresh_address());
    ASSERT_TRUE(udp) << udp.error().what;
    udp_ = std::move(*udp);
    auto listener = TcpListener::bind(udp_->address());
    ASSERT_TRUE(listener) << listener.error().what;
    listener_ = std::move(*listener);
    ASSERT_NO_FATAL_FAILURE(launch(fmt::format(R"(
[[listen]]
name = "edge-tcp"
transport = "tcp"
address = "{}"

[[listen]]
name = "edge-udp"
transport = "udp"
address = "{}"

[[trunk]]
name = "pbx"
targets = ["udp:{}"]
large_requests = "tcp"

[[route]]
to = "pbx"
)",
                                               edge_tcp_.text(), edge_udp_.text(), udp_->address().text())));
    ASSERT_NO_FATAL_FAILURE(accept());
    caller_ = std::make_unique<SipStream>(call_in_tcp());
  }
  // ktrunkd's connection for what is large.
  void accept() {
    auto socket = listener_->accept(kLong);
    ASSERT_TRUE(socket) << daemon_->log();
    tcp_ = std::make_unique<SipStream>(std::make_unique<TcpStream>(std::move(*socket)));
    const Status ready =
        daemon_->wait_status([](const Json& status) { return status["trunks"][0]["connections"] == 1; });
    ASSERT_TRUE(ready) << ready.error().what;
  }
  [[nodiscard]] SipMessage request(const std::string& method, std::size_t body = 0) const {
    return make_request({.method = method,
                         .uri = "sip:bob@pbx.test",
                         .transport = "TCP",
                         .sent_by = caller_->stream().local().text(),
                         .branch = "",
                         .call_id = "",
                         .body = std::string(body, 'x')});
  }
  // As a request of the INVITE's transaction.
  [[nodiscard]] static SipMessage following(const SipMessage& invite, const std::string& method) {
    SipMessage made = invite;
    made.start_line = method + invite.start_line.substr(invite.start_line.find(' '));
    made.set("CSeq", "1 " + method);
    made.body.clear();
    return made;
  }
  // The next that comes by each of them.
  SipMessage by_tcp() {
    auto message = tcp_->receive(kLong);
    EXPECT_TRUE(message) << message.error().what << daemon_->log();
    return message ? *message : SipMessage();
  }
  SipMessage by_udp() {
    auto message = udp_->receive(kLong);
    EXPECT_TRUE(message) << message.error().what << daemon_->log();
    return message ? message->first : SipMessage();
  }
  [[nodiscard]] std::string via(const std::string& transport) const {
    return "SIP/2.0/" + transport + " " + edge_udp_.text();
  }
  static std::string branch_of(const SipMessage& message) {
    const std::string via = message.header("Via");
    const std::size_t at = via.find("branch=");
    return via.substr(at, via.find(';', at) - at);
  }

  std::optional<SipDatagrams> udp_;
  std::optional<TcpListener> listener_;
  std::unique_ptr<SipStream> tcp_;
  std::unique_ptr<SipStream> caller_;
};

TEST_F(LargeRequests, GoByTcpFromThirteenHundredOctets) {
  SipMessage small = request("OPTIONS", 500);
  ASSERT_TRUE(caller_->send(small));
  const SipMessage seen = by_udp();
  EXPECT_THAT(seen.header("Via"), StartsWith(via("UDP")));
  const std::size_t others = seen.text().size() - 500;
  ASSERT_LT(others, 1200u);
  SipMessage just = request("OPTIONS", 1300 - others);
  ASSERT_TRUE(caller_->send(just));
  EXPECT_EQ(by_udp().text().size(), 1300u);
  SipMessage over = request("OPTIONS", 1301 - others);
  ASSERT_TRUE(caller_->send(over));
  const SipMessage request = by_tcp();
  EXPECT_THAT(request.header("Via"), StartsWith(via("TCP")));
  EXPECT_EQ(request.body, over.body);
  ASSERT_TRUE(tcp_->send(make_response(request, 200, "OK")));
  const auto answer = caller_->receive(kLong);
  ASSERT_TRUE(answer) << answer.error().what;
  EXPECT_EQ(answer->status(), 200);
  EXPECT_EQ(answer->all("Via").size(), 1u);
}

TEST_F(LargeRequests, CancelAndAckGoAsTheirInviteWent) {
  for (const std::size_t body : {kLarge, std::size_t{10}}) {
    const bool large = body == kLarge;
    const auto next = [&] { return large ? by_tcp() : by_udp(); };
    const auto answer = [&](const SipMessage& response) {
      return large ? tcp_->send(response) : udp_->send(response, edge_udp_);
    };
    const SipMessage invite = request("INVITE", body);
    ASSERT_TRUE(caller_->send(invite));
    const SipMessage its = next();
    ASSERT_TRUE(caller_->send(following(invite, "CANCEL")));
    const SipMessage cancel = next();
    EXPECT_EQ(cancel.method(), "CANCEL");
    EXPECT_EQ(branch_of(cancel), branch_of(its));
    EXPECT_THAT(cancel.header("Via"), StartsWith(via(large ? "TCP" : "UDP")));
    ASSERT_TRUE(answer(make_response(its, 487, "Request Terminated")));
    const auto ended = caller_->receive(kLong);
    ASSERT_TRUE(ended) << ended.error().what;
    EXPECT_EQ(ended->status(), 487);
    ASSERT_TRUE(caller_->send(following(invite, "ACK")));
    const SipMessage ack = next();
    EXPECT_EQ(ack.method(), "ACK");
    EXPECT_EQ(branch_of(ack), branch_of(its));
    EXPECT_THAT(ack.header("Via"), StartsWith(via(large ? "TCP" : "UDP")));
  }
}

TEST_F(LargeRequests, TheDialogGoesByUdpButForWhatIsLarge) {
  const SipMessage invite = request("INVITE", kLarge);
  ASSERT_TRUE(caller_->send(invite));
  const SipMessage its = by_tcp();
  const auto routes = its.all("Record-Route");
  ASSERT_EQ(routes.size(), 2u);
  EXPECT_THAT(routes[0], HasSubstr(edge_udp_.text() + ";transport=udp"));
  ASSERT_TRUE(tcp_->send(make_response(its, 200, "OK")));
  const auto answer = caller_->receive(kLong);
  ASSERT_TRUE(answer) << answer.error().what;
  const auto inside = [&](const std::string& method, std::size_t body) {
    SipMessage made = request(method, body);
    made.set("Call-ID", invite.header("Call-ID"));
    made.set("To", answer->header("To"));
    made.add("Route", routes[1]);
    made.add("Route", routes[0]);
    return made;
  };
  ASSERT_TRUE(caller_->send(inside("ACK", 0)));
  EXPECT_EQ(by_udp().method(), "ACK");
  ASSERT_TRUE(caller_->send(inside("INVITE", kLarge)));
  const SipMessage again = by_tcp();
  EXPECT_EQ(again.all("Route").size(), 0u);
  ASSERT_TRUE(tcp_->send(make_response(again, 200, "OK")));
  EXPECT_TRUE(caller_->receive(kLong));
  // The PBX's own, by either way.
  SipMessage theirs = make_request({.method = "INFO",
                                    .uri = "sip:alice@127.0.0.1",
                                    .transport = "TCP",
                                    .sent_by = udp_->address().text(),
                                    .branch = "",
                                    .call_id = "",
                                    .to = "<sip:alice@example.com>;tag=a1",
                                    .body = ""});
  theirs.add("Route", routes[0]);
  theirs.add("Route", routes[1]);
  ASSERT_TRUE(tcp_->send(theirs));
  auto info = caller_->receive(kLong);
  ASSERT_TRUE(info) << info.error().what << daemon_->log();
  ASSERT_TRUE(caller_->send(make_response(*info, 200, "OK")));
  EXPECT_EQ(by_tcp().status(), 200);
  theirs.set("Via", "SIP/2.0/UDP " + udp_->address().text() + ";branch=z9hG4bK-by-udp");
  ASSERT_TRUE(udp_->send(theirs, edge_udp_));
  info = caller_->receive(kLong);
  ASSERT_TRUE(info) << info.error().what << daemon_->log();
  ASSERT_TRUE(caller_->send(make_response(*info, 200, "OK")));
  EXPECT_EQ(by_udp().status(), 200);
}

TEST_F(LargeRequests, GoByUdpWhileThereIsNoConnection) {
  const Address at = listener_->address();
  listener_.reset();
  tcp_.reset();
  const Status down = daemon_->wait_status([](const Json& now) { return now["trunks"][0]["connections"] == 0; });
  ASSERT_TRUE(down) << down.error().what;
  EXPECT_EQ(status()["trunks"][0]["state"], "up");
  const SipMessage invite = request("INVITE", kLarge);
  ASSERT_TRUE(caller_->send(invite));
  EXPECT_THAT(by_udp().header("Via"), StartsWith(via("UDP")));
  auto listener = TcpListener::bind(at);
  ASSERT_TRUE(listener) << listener.error().what;
  listener_ = std::move(*listener);
  ASSERT_NO_FATAL_FAILURE(accept());
  // What follows it goes as it went.
  ASSERT_TRUE(caller_->send(following(invite, "CANCEL")));
  EXPECT_THAT(by_udp().header("Via"), StartsWith(via("UDP")));
  ASSERT_TRUE(caller_->send(request("INVITE", kLarge)));
  EXPECT_THAT(by_tcp().header("Via"), StartsWith(via("TCP")));
}

}  // namespace
}  // namespace ktrunk::test
