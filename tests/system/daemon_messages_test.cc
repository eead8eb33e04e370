// What ktrunkd answers itself, and messages of every size and shape through connections that all workers write to.
#include "system/daemon_fixture.h"

namespace ktrunk::test {
namespace {

using testing::Each;
using testing::Gt;
using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;

class DaemonMessages : public DaemonTest {
 protected:
  void SetUp() override { ASSERT_NO_FATAL_FAILURE(start()); }

  // The stream ends in order: close_notify on TLS, FIN on TCP.
  static testing::AssertionResult ends(SipStream& stream) {
    const auto end = stream.receive_or_end(kLong);
    if (!end) return testing::AssertionFailure() << end.error().what;
    if (*end) return testing::AssertionFailure() << "one more message: " << (*end)->text();
    return testing::AssertionSuccess();
  }
};

TEST_F(DaemonMessages, AnswersWhatIsForItself) {
  auto tls = call_in();
  auto tcp = call_in_tcp();
  ASSERT_TRUE(tls && tcp);
  SipStream secured(std::move(tls));
  SipStream plain(std::move(tcp));
  for (SipStream* stream : {&secured, &plain}) {
    EXPECT_TRUE(answers(*stream, options_to_us(), 200));

    // RFC 5626 3.5.1: ping and pong; what follows is a message again.
    ASSERT_TRUE(stream->send_bytes("\r\n\r\n"));
    EXPECT_TRUE(answers(*stream, options_to_us(), 200));
    EXPECT_EQ(stream->crlfs_seen(), 1);

    SipMessage last_hop = request_to("tls.test");
    last_hop.set("Max-Forwards", "0");
    EXPECT_TRUE(answers(*stream, last_hop, 483));

    SipMessage twice = request_to("tls.test");
    twice.add("From", "<sip:mallory@example.com>;tag=2");
    EXPECT_TRUE(answers(*stream, twice, 400));

    EXPECT_TRUE(answers(*stream, request_to("nowhere.test"), 404));

    const auto down = stream->exchange(request_to("absent.test"), kLong);
    ASSERT_TRUE(down) << down.error().what;
    EXPECT_EQ(down->status(), 503);
    EXPECT_NE(down->header("Retry-After"), "") << down->text();
  }
}

TEST_F(DaemonMessages, AnswersDatagrams) {
  const auto socket = SipDatagrams::bind(fresh_address());
  ASSERT_TRUE(socket);
  const SipMessage request = make_request({.uri = "sip:" + edge_udp_.text(),
                                           .transport = "UDP",
                                           .sent_by = "192.0.2.1:5060",
                                           .branch = "",
                                           .call_id = "",
                                           .body = ""});
  // Garbage first: it is dropped and nobody is harmed.
  ASSERT_TRUE(socket->send_bytes("garbage", edge_udp_));
  ASSERT_TRUE(socket->send_bytes(std::string(2000, '\0'), edge_udp_));
  ASSERT_TRUE(socket->send(request, edge_udp_));
  const auto response = socket->receive(kLong);
  ASSERT_TRUE(response) << response.error().what;
  EXPECT_EQ(response->first.status(), 200);
  // RFC 3581: to where it came from, not to what Via claims.
  EXPECT_THAT(response->first.header("Via"), HasSubstr(";received=" + socket->address().ip()));
  EXPECT_THAT(response->first.header("Via"), HasSubstr(fmt::format(";rport={}", socket->address().port())));
}

TEST_F(DaemonMessages, ABrokenStreamIsAnsweredAndEnded) {
  for (const std::string length : {"abc", "-1", "99999999999999999999"}) {
    auto tls = call_in();
    ASSERT_NE(tls, nullptr);
    SipStream stream(std::move(tls));
    ASSERT_TRUE(answers(stream, options_to_us(), 200));
    SipMessage request = options_to_us();
    request.set("Content-Length", length);
    const auto refused = stream.exchange(request, kLong);
    ASSERT_TRUE(refused) << length << ": " << refused.error().what;
    EXPECT_THAT(refused->status(), testing::AnyOf(400, 413)) << refused->text();
    EXPECT_TRUE(ends(stream)) << length;
  }
  auto tcp = call_in_tcp();
  ASSERT_NE(tcp, nullptr);
  SipStream plain(std::move(tcp));
  SipMessage request = options_to_us();
  request.set("Content-Length", "1x");
  EXPECT_TRUE(answers(plain, request, 400));
  EXPECT_TRUE(ends(plain));
}

TEST_F(DaemonMessages, GarbageEndsItsConnectionAlone) {
  auto other_stream = call_in();
  auto tls = call_in();
  auto tcp = call_in_tcp();
  ASSERT_TRUE(other_stream && tls && tcp);
  SipStream other(std::move(other_stream));
  ASSERT_TRUE(answers(other, options_to_us(), 200));
  SipStream secured(std::move(tls));
  SipStream plain(std::move(tcp));
  for (SipStream* stream : {&secured, &plain}) {
    ASSERT_TRUE(answers(*stream, options_to_us(), 200));
    ASSERT_TRUE(stream->send_bytes("\x01\x02 no SIP at all\r\n\r\n"));
    EXPECT_TRUE(ends(*stream));
  }
  EXPECT_TRUE(answers(other, options_to_us(), 200));
}

TEST_F(DaemonMessages, EveryWorkerSendsOnOneConnection) {
  Echo pbx(*pbx_tls_);
  std::vector<std::unique_ptr<SipStream>> callers;
  for (int i = 0; i < 4; ++i) {
    auto stream = call_in();
    ASSERT_NE(stream, nullptr);
    callers.push_back(std::make_unique<SipStream>(std::move(stream)));
  }
  for (int round = 0; round < 5; ++round)
    for (const auto& caller : callers)
      EXPECT_TRUE(answers(*caller, request_to("tls.test", fmt::format("round {}", round)), 200));
  const auto trunk = of_trunk(status(), "pbx-tls");
  ASSERT_THAT(trunk, SizeIs(1));
  EXPECT_THAT(trunk[0]["messages_sent"].get<std::vector<unsigned>>(), Each(Gt(0U))) << trunk[0].dump(2);
  EXPECT_EQ(of_trunk(status(), "carrier").size(), 4U);
}

TEST_F(DaemonMessages, HoweverTheStreamIsCut) {
  Echo pbx(*pbx_tls_);
  auto stream = call_in();
  ASSERT_NE(stream, nullptr);
  SipStream caller(std::move(stream));
  const auto expect_answers = [&](const std::vector<SipMessage>& requests) {
    for (const SipMessage& request : requests) {
      const auto response = caller.receive(kLong);
      ASSERT_TRUE(response) << response.error().what;
      EXPECT_EQ(response->header("Call-ID"), request.header("Call-ID"));
      EXPECT_EQ(response->body, request.body);
    }
  };

  std::vector<SipMessage> requests = {request_to("tls.test", "in one byte records")};
  for (const char octet : requests[0].text()) ASSERT_TRUE(caller.send_bytes({&octet, 1}));
  expect_answers(requests);

  requests.clear();
  std::string together = "\r\n";  // a keepalive's half is skipped (RFC 3261 7.5)
  for (int i = 0; i < 20; ++i) {
    requests.push_back(request_to("tls.test", fmt::format("number {} of one record", i)));
    together += requests.back().text();
  }
  ASSERT_TRUE(caller.send_bytes(together));
  expect_answers(requests);

  // Cuts that have nothing to do with the messages.
  constexpr std::size_t kOdd = 97;
  for (std::size_t from = 0; from < together.size(); from += kOdd)
    ASSERT_TRUE(caller.send_bytes(std::string_view(together).substr(from, kOdd)));
  expect_answers(requests);
}

TEST_F(DaemonMessages, LongMessagesAndShortOnesShareAConnection) {
  Echo pbx(*pbx_tls_);
  constexpr std::size_t kLongBody = 60'000;
  constexpr int kCallers = 4;  // the first sends long messages
  constexpr int kMessages = 15;
  std::vector<std::jthread> threads;
  for (int i = 0; i < kCallers; ++i) {
    threads.emplace_back([this, i] {
      auto stream = call_in();
      ASSERT_NE(stream, nullptr);
      SipStream caller(std::move(stream));
      for (int k = 0; k < kMessages; ++k) {
        std::string body = fmt::format("{}/{} ", i, k);
        if (i == 0) body.resize(kLongBody, static_cast<char>('a' + k));
        const auto response = caller.exchange(request_to("tls.test", body), kLong);
        ASSERT_TRUE(response) << response.error().what;
        ASSERT_EQ(response->status(), 200);
        ASSERT_TRUE(response->body == body) << "caller " << i << ", message " << k;
      }
    });
  }
  threads.clear();
  const auto trunk = of_trunk(status(), "pbx-tls");
  ASSERT_THAT(trunk, SizeIs(1));
  EXPECT_THAT(trunk[0]["messages_sent"].get<std::vector<unsigned>>(), Each(Gt(0U)));
}

TEST_F(DaemonMessages, LongMessagesOverPlainTcp) {
  Echo pbx(*pbx_tcp_);
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([this, i] {
      auto stream = call_in_tcp();
      ASSERT_NE(stream, nullptr);
      SipStream caller(std::move(stream));
      for (int k = 0; k < 10; ++k) {
        const std::string body(i % 2 == 0 ? 50'000 : 500, static_cast<char>('a' + i));
        const auto response = caller.exchange(request_to("tcp.test", body), kLong);
        ASSERT_TRUE(response) << response.error().what;
        ASSERT_EQ(response->status(), 200);
        ASSERT_TRUE(response->body == body);
      }
    });
  }
  threads.clear();
  EXPECT_THAT(of_trunk(status(), "pbx-tcp"), SizeIs(1));
}

}  // namespace
}  // namespace ktrunk::test
