// What a HEP collector gets of a running ktrunkd, and what becomes of SIP when the collector is not there.
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/socket.h>

#include <csignal>
#include <map>
#include <vector>

#include "cli/control_client.h"
#include "cli/status_report.h"
#include "support/hep.h"
#include "system/daemon_fixture.h"
#include "worker/tracer.h"

namespace ktrunk::test {
namespace {

using testing::HasSubstr;

// The collector: a UDP socket.
class Collector {
 public:
  Collector() : address_(fresh_address()), socket_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    EXPECT_EQ(::bind(socket_.get(), address_.data(), address_.size()), 0);
  }
  [[nodiscard]] const Address& address() const { return address_; }
  void close() { socket_.reset(); }

  // The next one; nothing, and a failure, if none comes.
  [[nodiscard]] std::optional<HepDatagram> next(milliseconds limit = kLong) {
    auto octets = wait(limit);
    if (!octets) {
      ADD_FAILURE() << "no datagram has come";
      return std::nullopt;
    }
    auto datagram = HepDatagram::parse(*octets);
    EXPECT_TRUE(datagram) << datagram.error().what;
    return datagram ? std::optional(*datagram) : std::nullopt;
  }
  [[nodiscard]] std::vector<HepDatagram> take(std::size_t count) {
    std::vector<HepDatagram> all;
    while (all.size() < count) {
      auto datagram = next();
      if (!datagram) break;
      all.push_back(std::move(*datagram));
    }
    return all;
  }
  [[nodiscard]] bool silent() { return !wait(milliseconds(300)); }

 private:
  std::optional<std::string> wait(milliseconds limit) {
    pollfd entry{.fd = socket_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&entry, 1, static_cast<int>(limit.count())) != 1) return std::nullopt;
    std::string octets(70'000, '\0');
    const ssize_t got = ::recv(socket_.get(), octets.data(), octets.size(), 0);
    if (got < 0) return std::nullopt;
    octets.resize(static_cast<std::size_t>(got));
    return octets;
  }
  Address address_;
  Fd socket_;
};

std::string call_id_of(const HepDatagram& datagram) {
  const auto message = SipMessage::parse(datagram.payload());
  return message ? message->header("Call-ID") : "";
}

class HepExport : public DaemonTest {
 protected:
  void start_with(const std::string& hep_lines, const std::string& more = {}) {
    DaemonTest::start(
        {.tables = fmt::format("[hep]\ncollector = \"udp:{}\"\n{}\n{}", collector_.address().text(), hep_lines, more)});
  }
  [[nodiscard]] std::uint64_t counted(const char* name) const {
    std::uint64_t sum = 0;
    const Json now = status();
    for (const Json& worker : now["workers"]) sum += worker[name].get<std::uint64_t>();
    return sum;
  }
  Collector collector_;
};

TEST_F(HepExport, EveryMessageComesAsItIsOutsideTls) {
  ASSERT_NO_FATAL_FAILURE(start_with("capture_id = 4242\nauth_key = \"secret\""));
  auto stream = call_in();
  ASSERT_NE(stream, nullptr);
  const std::string carrier = stream->local().text();
  SipStream caller(std::move(stream));
  const std::string pbx_side = pbx_tls_->stream().remote().text();

  const SipMessage request = request_to("tls.test", std::string(3000, 'b'));
  ASSERT_TRUE(caller.send(request));
  const auto forwarded = pbx_tls_->receive(kLong);
  ASSERT_TRUE(forwarded) << forwarded.error().what;
  const SipMessage response = make_response(*forwarded, 200, "OK");
  ASSERT_TRUE(pbx_tls_->send(response));
  const auto answer = caller.receive(kLong);
  ASSERT_TRUE(answer) << answer.error().what;

  // Two workers may have had a part in it, so in any order.
  const auto datagrams = collector_.take(4);
  ASSERT_EQ(datagrams.size(), 4u);
  std::map<std::string, HepDatagram> by_way;
  for (const HepDatagram& datagram : datagrams) {
    EXPECT_EQ(datagram.number(1), 2u);
    EXPECT_EQ(datagram.number(2), 6u);
    EXPECT_EQ(datagram.number(11), 1u);
    EXPECT_EQ(datagram.number(12), 4242u);
    EXPECT_EQ(datagram.text(14), "secret");
    EXPECT_NEAR(static_cast<double>(datagram.number(9)), static_cast<double>(::time(nullptr)), 120);
    EXPECT_LT(datagram.number(10), 1'000'000u);
    by_way[datagram.source() + " " + datagram.destination()] = datagram;
  }
  const std::string pbx = pbx_tls_listener_->address().text();
  EXPECT_EQ(by_way[carrier + " " + edge_tls_.text()].payload(), request.text());
  EXPECT_EQ(by_way[pbx + " " + pbx_side].payload(), response.text());
  const auto same = [](const HepDatagram& datagram, const SipMessage& message) {
    const auto parsed = SipMessage::parse(datagram.payload());
    return parsed && parsed->text() == message.text();
  };
  EXPECT_TRUE(same(by_way[pbx_side + " " + pbx], *forwarded));
  EXPECT_TRUE(same(by_way[edge_tls_.text() + " " + carrier], *answer));
  EXPECT_TRUE(daemon_->wait_status([&](const Json&) { return counted("hep_sent") == 4; }));
  EXPECT_EQ(counted("hep_dropped"), 0u);

  // ktrunkd's own answers, to a message that it cannot frame, too.
  ASSERT_TRUE(caller.send(options_to_us()));
  ASSERT_TRUE(caller.receive(kLong));
  EXPECT_THAT(collector_.next()->payload(), HasSubstr("OPTIONS"));
  EXPECT_THAT(collector_.next()->payload(), HasSubstr("SIP/2.0 200"));
  ASSERT_TRUE(caller.send_bytes("OPTIONS sip:x SIP/2.0\r\nCall-ID: bad\r\nContent-Length: -1\r\n\r\n"));
  EXPECT_THAT(collector_.next()->payload(), HasSubstr("Content-Length: -1"));
}

TEST_F(HepExport, DatagramsAndStrangersComeToo) {
  ASSERT_NO_FATAL_FAILURE(start_with(""));
  const auto socket = SipDatagrams::bind(fresh_address());
  ASSERT_TRUE(socket);
  const SipMessage request = make_request({.uri = "sip:bob@udp.test",
                                           .transport = "UDP",
                                           .sent_by = socket->address().text(),
                                           .branch = "",
                                           .call_id = "",
                                           .body = ""});
  ASSERT_TRUE(socket->send(request, edge_udp_));
  auto forwarded = pbx_udp_->receive(kLong);
  ASSERT_TRUE(forwarded) << forwarded.error().what;
  ASSERT_TRUE(pbx_udp_->send(make_response(forwarded->first, 200, "OK"), forwarded->second));
  ASSERT_TRUE(socket->receive(kLong));
  std::map<std::string, unsigned> ways;
  for (const HepDatagram& datagram : collector_.take(4)) {
    EXPECT_EQ(datagram.number(2), 17u);
    EXPECT_FALSE(datagram.has(14));
    ++ways[datagram.source() + " " + datagram.destination()];
  }
  const std::string us = edge_udp_.text();
  const std::string caller = socket->address().text();
  const std::string pbx = pbx_udp_->address().text();
  EXPECT_EQ(ways, (std::map<std::string, unsigned>{
                      {caller + " " + us, 1}, {us + " " + pbx, 1}, {pbx + " " + us, 1}, {us + " " + caller, 1}}));
}

TEST_F(HepExport, CallsAreSampledWhole) {
  ASSERT_NO_FATAL_FAILURE(start_with("sample = \"50%\""));
  auto stream = call_in();
  ASSERT_NE(stream, nullptr);
  SipStream caller(std::move(stream));
  Echo pbx(*pbx_tls_);
  constexpr unsigned kCalls = 24;  // what the collector's socket holds
  std::map<std::string, unsigned> messages;
  for (unsigned i = 0; i < kCalls; ++i) {
    SipMessage request = request_to("tls.test");
    for (unsigned cseq = 1; cseq <= 2; ++cseq) {
      request.set("CSeq", fmt::format("{} {}", cseq, request.method()));
      request.set("Via", fmt::format("SIP/2.0/TLS 127.0.0.1:5061;branch=z9hG4bK{}-{}", i, cseq));
      ASSERT_TRUE(answers(caller, request, 200));
    }
    messages[request.header("Call-ID")] = 0;
  }
  ASSERT_EQ(messages.size(), kCalls);
  // Any program picks the same calls.
  std::uint64_t sent = 0;
  for (const auto& [call_id, count] : messages) sent += worker::is_sampled({500'000}, call_id) ? 8 : 0;
  EXPECT_GT(sent, 0u);
  EXPECT_LT(sent, 8u * kCalls);
  const Status counts = daemon_->wait_status([&](const Json&) { return counted("hep_sent") == sent; });
  ASSERT_TRUE(counts) << counts.error().what;
  for (const HepDatagram& datagram : collector_.take(sent)) ++messages.at(call_id_of(datagram));
  EXPECT_TRUE(collector_.silent());
  for (const auto& [call_id, count] : messages) EXPECT_TRUE(count == 0 || count == 8) << call_id << ": " << count;
}

TEST_F(HepExport, TrunksHaveSharesOfTheirOwn) {
  const auto peer = SipDatagrams::bind(fresh_address());
  ASSERT_TRUE(peer);
  ASSERT_NO_FATAL_FAILURE(start_with(
      "sample = \"0%\"", fmt::format("[[trunk]]\nname = \"watched\"\ntargets = [\"udp:{}\"]\nlisten = \"edge-udp\"\n"
                                     "hep_sample = \"100%\"\n[[route]]\nhost = \"watched.test\"\nto = \"watched\"\n",
                                     peer->address().text())));
  auto stream = call_in();
  ASSERT_NE(stream, nullptr);
  SipStream caller(std::move(stream));
  ASSERT_TRUE(caller.send(request_to("watched.test")));
  const auto forwarded = peer->receive(kLong);
  ASSERT_TRUE(forwarded) << forwarded.error().what;
  ASSERT_TRUE(peer->send(make_response(forwarded->first, 200, "OK"), forwarded->second));
  ASSERT_TRUE(caller.receive(kLong));
  const std::string them = peer->address().text();
  std::vector<std::string> ends;
  for (const HepDatagram& datagram : collector_.take(2)) {
    EXPECT_TRUE(datagram.source() == them || datagram.destination() == them);
    ends.push_back(datagram.source());
  }
  EXPECT_THAT(ends, testing::UnorderedElementsAre(them, edge_udp_.text()));
  EXPECT_TRUE(collector_.silent()) << "the carrier's side is not exported";
}

TEST_F(HepExport, WithoutACollectorCallsGoOnAndTheCopiesAreCounted) {
  ASSERT_NO_FATAL_FAILURE(start_with(""));
  collector_.close();
  auto stream = call_in();
  ASSERT_NE(stream, nullptr);
  SipStream caller(std::move(stream));
  Echo pbx(*pbx_tls_);
  for (unsigned i = 0; i < 50; ++i) ASSERT_TRUE(answers(caller, request_to("tls.test", "body"), 200));
  ASSERT_TRUE(daemon_->wait_status(
      [&](const Json&) { return counted("hep_dropped") > 0 && counted("hep_dropped") + counted("hep_sent") == 200; }));
  const auto status = cli::ask(daemon_->control_socket(), "status");
  ASSERT_TRUE(status);
  EXPECT_THAT(cli::status_report(*status), HasSubstr("to the HEP collector, "));
}

// One that is there and reads nothing: the kernel throws away what its socket has no room for.
TEST_F(HepExport, ASlowCollectorHoldsNothingUp) {
  ASSERT_NO_FATAL_FAILURE(start_with(""));
  auto stream = call_in();
  ASSERT_NE(stream, nullptr);
  SipStream caller(std::move(stream));
  Echo pbx(*pbx_tls_);
  const std::string body(50'000, 'x');
  for (unsigned i = 0; i < 40; ++i) ASSERT_TRUE(answers(caller, request_to("tls.test", body), 200));
  EXPECT_TRUE(daemon_->wait_status([&](const Json&) { return counted("hep_dropped") + counted("hep_sent") == 160; }));
}

TEST_F(HepExport, AMessageThatNoDatagramHoldsIsCounted) {
  ASSERT_NO_FATAL_FAILURE(
      start({.limits = "max_message_bytes = 200000\n",
             .tables = fmt::format("[hep]\ncollector = \"udp:{}\"\n", collector_.address().text())}));
  auto stream = call_in();
  ASSERT_NE(stream, nullptr);
  SipStream caller(std::move(stream));
  ASSERT_TRUE(caller.send(request_to("tls.test", std::string(100'000, 'x'))));
  const auto forwarded = pbx_tls_->receive(kLong);
  ASSERT_TRUE(forwarded) << forwarded.error().what;
  ASSERT_TRUE(pbx_tls_->send(make_response(*forwarded, 200, "OK")));
  ASSERT_TRUE(caller.receive(kLong));
  EXPECT_TRUE(daemon_->wait_status([&](const Json&) { return counted("hep_sent") == 2; }));
  EXPECT_EQ(counted("hep_dropped"), 2u);
}

TEST_F(HepExport, SuccessorsOfAWorkerAndAfterAnUpgradeGoOn) {
  ASSERT_NO_FATAL_FAILURE(start_with(""));
  auto stream = call_in();
  ASSERT_NE(stream, nullptr);
  SipStream caller(std::move(stream));
  Echo pbx(*pbx_tls_);
  for (const char* worker : {"worker/0", "worker/1"}) ASSERT_NO_FATAL_FAILURE(kill_child(worker));
  const SipMessage first = request_to("tls.test", "after the deaths");
  ASSERT_TRUE(answers(caller, first, 200));
  for (const HepDatagram& datagram : collector_.take(4)) EXPECT_EQ(call_id_of(datagram), first.header("Call-ID"));
  const auto upgraded = cli::ask(daemon_->control_socket(), "upgrade", cli::kUpgradeTimeout);
  ASSERT_TRUE(upgraded) << upgraded.error().what;
  ASSERT_EQ((*upgraded)["upgrade"], "done") << daemon_->log();
  const SipMessage second = request_to("tls.test", "after the upgrade");
  ASSERT_TRUE(answers(caller, second, 200));
  for (const HepDatagram& datagram : collector_.take(4)) EXPECT_EQ(call_id_of(datagram), second.header("Call-ID"));
}

}  // namespace
}  // namespace ktrunk::test
