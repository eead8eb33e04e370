// Rules of RFC 3261 and its updates that take more than one connection to see: transactions that come by several
// connections of a trunk, loops, sips, who may answer, flows that have gone.
#include <set>

#include "system/daemon_fixture.h"

namespace ktrunk::test {
namespace {

using testing::HasSubstr;

std::string branch_of(const SipMessage& message) {
  const std::string via = message.header("Via");
  const std::size_t at = via.find(";branch=");
  return at == std::string::npos ? "" : via.substr(at, via.find(';', at + 1) - at);
}

// The request of another method in the same transaction: same top Via, From, To, Call-ID and CSeq number.
SipMessage same_transaction(SipMessage invite, const std::string& method) {
  invite.start_line.replace(0, invite.start_line.find(' '), method);
  invite.set("CSeq", "1 " + method);
  invite.remove("Contact");
  return invite;
}

class SipRules : public DaemonTest {
 protected:
  std::unique_ptr<SipStream> new_carrier() {
    auto stream = call_in();
    return stream ? std::make_unique<SipStream>(std::move(stream)) : nullptr;
  }
  static SipMessage invite_to(const std::string& host) {
    return make_request({.method = "INVITE", .uri = "sip:bob@" + host, .branch = "", .call_id = "", .body = "v=0\r\n"});
  }
};

// A PBX with four connections.
class SipRulesFourConnections : public SipRules {
 protected:
  static constexpr int kConnections = 4;

  void SetUp() override {
    auto listener = TcpListener::bind(fresh_address());
    ASSERT_TRUE(listener);
    std::vector<std::unique_ptr<SipStream>> accepted;
    std::jthread acceptor([&] {
      for (int i = 0; i < kConnections; ++i)
        if (auto stream = accept_tls(*listener)) accepted.push_back(std::make_unique<SipStream>(std::move(stream)));
    });
    const Certificates& files = certificates();
    ASSERT_NO_FATAL_FAILURE(
        start({.limits = "",
               .tables = fmt::format("[[trunk]]\nname = \"four\"\ntargets = [\"tls:{}\"]\nverify_name = \"pbx.test\"\n"
                                     "ca = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\nlisten = \"edge-tls\"\n"
                                     "connections = {}\n[[route]]\nhost = \"four.test\"\nto = \"four\"\n",
                                     listener->address().text(), files.ca.file(), files.edge.certificate,
                                     files.edge.key, kConnections),
               .ktrunk_lines = "",
               .workers = {}}));
    acceptor.join();
    four_ = std::move(accepted);
    ASSERT_EQ(four_.size(), std::size_t{kConnections});
  }

  // The next message at any of the four, and at which.
  std::pair<std::size_t, SipMessage> receive() {
    std::pair<std::size_t, SipMessage> got{four_.size(), {}};
    (void)eventually(
        [&] {
          for (std::size_t i = 0; i < four_.size(); ++i) {
            auto message = four_[i]->receive(milliseconds(20));
            if (!message) continue;
            got = {i, std::move(*message)};
            return true;
          }
          return false;
        },
        kLong);
    return got;
  }

  std::vector<std::unique_ptr<SipStream>> four_;
};

TEST_F(SipRulesFourConnections, CancelAndAckFollowTheirInviteWhicheverWayTheyCome) {
  const auto first = new_carrier();
  const auto second = new_carrier();
  ASSERT_TRUE(first && second);
  std::set<std::size_t> used;
  for (int call = 0; call < 12; ++call) {
    SCOPED_TRACE(call);
    const SipMessage invite = invite_to("four.test");
    ASSERT_TRUE(first->send(invite));
    const auto [place, at_pbx] = receive();
    ASSERT_LT(place, four_.size());
    used.insert(place);
    ASSERT_EQ(at_pbx.method(), "INVITE");

    ASSERT_TRUE(second->send(same_transaction(invite, "CANCEL")));
    const auto [cancel_place, cancel] = receive();
    ASSERT_EQ(cancel.method(), "CANCEL") << cancel.text();
    EXPECT_EQ(cancel_place, place);
    EXPECT_EQ(branch_of(cancel), branch_of(at_pbx));

    // Each response goes to the connection that its request came by (RFC 3261 18.2.2).
    ASSERT_TRUE(four_[place]->send(make_response(cancel, 200, "OK")));
    ASSERT_TRUE(four_[place]->send(make_response(at_pbx, 487, "Request Terminated")));
    const auto cancelled = second->receive(kLong);
    ASSERT_TRUE(cancelled) << cancelled.error().what;
    EXPECT_EQ(cancelled->status(), 200);
    EXPECT_EQ(cancelled->header("CSeq"), "1 CANCEL");
    const auto terminated = first->receive(kLong);
    ASSERT_TRUE(terminated) << terminated.error().what;
    EXPECT_EQ(terminated->status(), 487);

    SipMessage ack = same_transaction(invite, "ACK");
    ack.set("To", terminated->header("To"));
    ASSERT_TRUE(second->send(ack));
    const auto [ack_place, acknowledged] = receive();
    EXPECT_EQ(acknowledged.method(), "ACK");
    EXPECT_EQ(ack_place, place);
    EXPECT_EQ(branch_of(acknowledged), branch_of(at_pbx));
  }
  EXPECT_GT(used.size(), 1U) << "transactions are spread over the connections";
}

// The INVITE's connection goes: the response takes another one of the trunk, and so does the answer's answer.
TEST_F(SipRulesFourConnections, AResponseTakesAnotherConnectionOfItsTrunk) {
  auto first = new_carrier();
  const auto second = new_carrier();
  ASSERT_TRUE(first && second);
  // The far end's handshake is done before the workers have the connection: once it answers, they have.
  ASSERT_TRUE(second->exchange(request_to("nowhere.test"), kLong));
  ASSERT_TRUE(first->send(invite_to("four.test")));
  const auto [place, at_pbx] = receive();
  ASSERT_LT(place, four_.size());
  const Address address = first->stream().local();
  ASSERT_TRUE(first->stream().finish());
  first.reset();
  ASSERT_TRUE(gone(address));
  // The PBX answers by another of its connections, too.
  ASSERT_TRUE(four_[(place + 1) % four_.size()]->send(make_response(at_pbx, 200, "OK")));
  const auto response = second->receive(kLong);
  ASSERT_TRUE(response) << response.error().what;
  EXPECT_EQ(response->status(), 200);
}

TEST_F(SipRules, ALoopIsDetectedBeforeItHasUsedUpItsHops) {
  const Certificates& files = certificates();
  ASSERT_NO_FATAL_FAILURE(
      start({.limits = "",
             .tables = fmt::format("[[trunk]]\nname = \"self\"\ntargets = [\"tls:{}\"]\nverify_name = \"edge.test\"\n"
                                   "ca = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\nlisten = \"edge-tls\"\n"
                                   "[[route]]\nhost = \"loop.test\"\nto = \"self\"\n",
                                   edge_tls_.text(), files.ca.file(), files.edge.certificate, files.edge.key),
             .ktrunk_lines = "",
             .workers = {}}));
  const auto caller = new_carrier();
  ASSERT_NE(caller, nullptr);
  for (int i = 0; i < 3; ++i) {
    const auto response = caller->exchange(request_to("loop.test"), kLong);
    ASSERT_TRUE(response) << response.error().what;
    EXPECT_EQ(response->status(), 482) << response->text();
    EXPECT_EQ(response->all("Via").size(), 1U);
  }
}

TEST_F(SipRules, SipsGoesOverTlsAlone) {
  ASSERT_NO_FATAL_FAILURE(start());
  Echo pbx(*pbx_tls_);
  const auto caller = new_carrier();
  auto tcp = call_in_tcp();
  ASSERT_TRUE(caller && tcp);
  SipStream insecure(std::move(tcp));
  const auto sips_to = [](const std::string& host) {
    return make_request({.method = "MESSAGE", .uri = "sips:bob@" + host, .branch = "", .call_id = "", .body = ""});
  };
  EXPECT_TRUE(answers(*caller, sips_to("tls.test"), 200));
  for (const std::string host : {"tcp.test", "udp.test"}) {
    const auto refused = caller->exchange(sips_to(host), kLong);
    ASSERT_TRUE(refused) << refused.error().what;
    EXPECT_EQ(refused->status(), 480) << refused->text();
    EXPECT_THAT(refused->header("Warning"), HasSubstr("380"));
  }
  EXPECT_TRUE(answers(insecure, sips_to("tls.test"), 480));
  EXPECT_TRUE(answers(*caller, request_to("tls.test"), 200));
}

TEST_F(SipRules, AResponseIsTakenFromWhereItsRequestWentAlone) {
  ASSERT_NO_FATAL_FAILURE(start());
  const auto caller = new_carrier();
  auto tcp = call_in_tcp();
  ASSERT_TRUE(caller && tcp);
  SipStream stranger(std::move(tcp));
  ASSERT_TRUE(caller->send(request_to("tls.test")));
  const auto at_pbx = pbx_tls_->receive(kLong);
  ASSERT_TRUE(at_pbx) << at_pbx.error().what;
  // Whoever has seen the request knows its token: a stranger, and another trunk's peer.
  ASSERT_TRUE(stranger.send(make_response(*at_pbx, 603, "Decline")));
  EXPECT_TRUE(answers(stranger, options_to_us(), 200));
  ASSERT_TRUE(pbx_tcp_->send(make_response(*at_pbx, 603, "Decline")));
  EXPECT_TRUE(answers(*pbx_tcp_, options_to_us(), 200));
  ASSERT_TRUE(pbx_tls_->send(make_response(*at_pbx, 200, "OK")));
  const auto response = caller->receive(kLong);
  ASSERT_TRUE(response) << response.error().what;
  EXPECT_EQ(response->status(), 200);
}

// What stands beside the branch is not authenticated: it can only name another connection of the same trunk.
TEST_F(SipRules, AForgedHintLeadsNowhereElse) {
  ASSERT_NO_FATAL_FAILURE(start());
  const auto caller = new_carrier();
  ASSERT_NE(caller, nullptr);
  for (const std::string hint : {"", ";flow=0-1", ";flow=1-1", ";flow=ffffffff-1", ";flow=-", ";flow"}) {
    SCOPED_TRACE(hint);
    const SipMessage request = request_to("tls.test");
    ASSERT_TRUE(caller->send(request));
    const auto at_pbx = pbx_tls_->receive(kLong);
    ASSERT_TRUE(at_pbx) << at_pbx.error().what;
    SipMessage answer = make_response(*at_pbx, 200, "OK");
    std::string via = answer.header("Via");
    ASSERT_NE(via.find(";flow="), std::string::npos) << via;
    answer.set("Via", via.substr(0, via.find(";flow=")) + hint);
    ASSERT_TRUE(pbx_tls_->send(answer));
    const auto response = caller->receive(kLong);
    ASSERT_TRUE(response) << response.error().what;
    EXPECT_EQ(response->header("Call-ID"), request.header("Call-ID"));
  }
}

TEST_F(SipRules, AStrangersFlowThatHasGoneIsSaidToHaveFailed) {
  ASSERT_NO_FATAL_FAILURE(start());
  auto tcp = call_in_tcp();
  ASSERT_NE(tcp, nullptr);
  auto watcher = std::make_unique<SipStream>(std::move(tcp));
  ASSERT_TRUE(watcher->send(make_request({.method = "SUBSCRIBE",
                                          .uri = "sip:bob@tls.test",
                                          .transport = "TCP",
                                          .branch = "",
                                          .call_id = "",
                                          .body = ""})));
  const auto subscribe = pbx_tls_->receive(kLong);
  ASSERT_TRUE(subscribe) << subscribe.error().what;
  const auto notify = [&] {
    SipMessage request =
        make_request({.method = "NOTIFY", .uri = "sip:alice@example.com", .branch = "", .call_id = "", .body = ""});
    for (const std::string& route : subscribe->all("Record-Route")) request.add("Route", route);
    return request;
  };
  ASSERT_TRUE(pbx_tls_->send(notify()));
  const auto notified = watcher->receive(kLong);
  ASSERT_TRUE(notified) << notified.error().what;
  EXPECT_EQ(notified->method(), "NOTIFY");
  const Address address = watcher->stream().local();
  watcher.reset();
  ASSERT_TRUE(gone(address));
  const auto failed = pbx_tls_->exchange(notify(), kLong);
  ASSERT_TRUE(failed) << failed.error().what;
  EXPECT_EQ(failed->status(), 430) << failed->text();
}

}  // namespace
}  // namespace ktrunk::test
