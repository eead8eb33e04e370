// Targets by NAPTR and SRV, from a real name server (dnsmasq) on loopback.
#include <gmock/gmock.h>
#include <unistd.h>

#include <map>
#include <optional>

#include "handshake/resolver.h"
#include "process_fixture.h"

namespace ktrunk::test {
namespace {

using config::Transport;
using handshake::ResolveError;
using handshake::Resolver;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;
using testing::UnorderedElementsAre;

constexpr const char* kNameServer = "/usr/sbin/dnsmasq";

// dnsmasq with records of choice for names that end in .test; it knows nothing of others.
class NameServer {
 public:
  explicit NameServer(const TempFolder& folder, const std::vector<std::string>& records) {
    Process::Options options{
        .argv = {kNameServer, "--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null",
                 "--pid-file=", "--user=root", "--bind-interfaces", "--local=/test/", "--edns-packet-max=512",
                 "--listen-address=" + address_.ip(), fmt::format("--port={}", address_.port())},
        .env = {},
        .output = folder.file("dnsmasq.log")};
    for (const std::string& record : records) options.argv.push_back("--" + record);
    auto started = Process::start(options);
    EXPECT_TRUE(started) << started.error().what;
    if (started) process_.emplace(std::move(*started));
    // It serves TCP too, which tells that it is there.
    EXPECT_TRUE(eventually([&] { return TcpStream::connect(address_).has_value(); }))
        << (process_ ? process_->output() : "");
  }
  [[nodiscard]] const Address& address() const { return address_; }

 private:
  Address address_ = free_address();
  std::optional<Process> process_;
};

class NameServerTest : public HandshakeProcessTest {
 protected:
  void SetUp() override {
    if (::access(kNameServer, X_OK) != 0) GTEST_SKIP() << kNameServer << " is not installed";
  }
  handshake::Resolved resolve(const NameServer& server, const config::Target& target) {
    Resolver resolver(*loop_, {server.address()});
    std::optional<handshake::Resolved> answer;
    const auto query = resolver.resolve(target, [&](const handshake::Resolved& result) { answer = result; });
    for (int i = 0; i < 3000 && !answer; ++i) EXPECT_TRUE(loop_->turn(milliseconds(20)));
    EXPECT_TRUE(answer.has_value());
    return answer.value_or(std::unexpected(ResolveError{}));
  }
  static std::vector<std::string> texts(const handshake::Resolved& result) {
    EXPECT_TRUE(result) << result.error().what;
    std::vector<std::string> list;
    if (result) {
      for (const Address& address : *result) list.push_back(address.text());
    }
    return list;
  }
  // base() and this, with names resolved by the server.
  [[nodiscard]] std::string asking(const NameServer& server, const std::string& tables) const {
    std::string config = base() + tables;
    const std::string_view table = "[ktrunk]\n";
    return config.insert(config.find(table) + table.size(), fmt::format("dns = [\"{}\"]\n", server.address().text()));
  }
  // Two servers of sip.test by TCP or UDP.
  static std::vector<std::string> two_servers(const Address& first, unsigned its_priority, const Address& second,
                                              unsigned other_priority, std::string_view transport = "tcp") {
    return {fmt::format("srv-host=_sip._{}.sip.test,first.test,{},{},1", transport, first.port(), its_priority),
            fmt::format("srv-host=_sip._{}.sip.test,second.test,{},{},1", transport, second.port(), other_priority),
            "host-record=first.test," + first.ip(), "host-record=second.test," + second.ip()};
  }
  std::unique_ptr<EventLoop> loop_ = std::move(*EventLoop::create());
};

TEST_F(NameServerTest, ServersByTransportAndPriority) {
  const NameServer server(
      folder_,
      {"srv-host=_sips._tcp.sip.test,b.test,5071,20,0", "srv-host=_sips._tcp.sip.test,a.test,5061,10,0",
       "srv-host=_sip._tcp.sip.test,a.test,5060,10,0", "srv-host=_sip._udp.sip.test,b.test,5070,10,0",
       "host-record=a.test,127.0.0.11,::11", "host-record=b.test,127.0.0.12", "host-record=sip.test,127.0.0.13"});
  const auto tls = texts(resolve(server, {Transport::kTls, "sip.test", 0}));
  ASSERT_THAT(tls, SizeIs(3));
  EXPECT_THAT((std::vector<std::string>{tls[0], tls[1]}), UnorderedElementsAre("127.0.0.11:5061", "[::11]:5061"));
  EXPECT_EQ(tls[2], "127.0.0.12:5071");
  EXPECT_THAT(texts(resolve(server, {Transport::kTcp, "a.test", 0})),
              UnorderedElementsAre("127.0.0.11:5060", "[::11]:5060"));  // no SRV record
  EXPECT_THAT(texts(resolve(server, {Transport::kUdp, "sip.test", 0})), ElementsAre("127.0.0.12:5070"));
  EXPECT_THAT(texts(resolve(server, {Transport::kTls, "sip.test", 5099})), ElementsAre("127.0.0.13:5099"));
  EXPECT_THAT(texts(resolve(server, {Transport::kTls, "b.test", 0})), ElementsAre("127.0.0.12:5061"));
}

TEST_F(NameServerTest, EveryServerOfAWeightComesFirstAtTimes) {
  const NameServer server(
      folder_, {"srv-host=_sips._tcp.sip.test,a.test,5061,1,50", "srv-host=_sips._tcp.sip.test,b.test,5061,1,50",
                "host-record=a.test,127.0.0.11", "host-record=b.test,127.0.0.12"});
  std::map<std::string, int> first;
  for (int i = 0; i < 200 && first.size() < 2; ++i)
    ++first[texts(resolve(server, {Transport::kTls, "sip.test", 0})).at(0)];
  EXPECT_THAT(first, SizeIs(2));
}

TEST_F(NameServerTest, NaptrNamesAnotherServiceRecord) {
  const NameServer server(folder_, {"naptr-record=sip.test,10,10,S,SIP+D2U,,_sip._udp.other.test",
                                    "naptr-record=sip.test,20,10,S,SIPS+D2T,,_sips._tcp.other.test",
                                    "srv-host=_sips._tcp.other.test,a.test,5062,1,1",
                                    "srv-host=_sips._tcp.sip.test,b.test,5061,1,1", "host-record=a.test,127.0.0.11",
                                    "srv-host=_sip._tcp.sip.test,b.test,5060,1,1", "host-record=b.test,127.0.0.12"});
  EXPECT_THAT(texts(resolve(server, {Transport::kTls, "sip.test", 0})), ElementsAre("127.0.0.11:5062"));
  // None for TCP: the usual name.
  EXPECT_THAT(texts(resolve(server, {Transport::kTcp, "sip.test", 0})), ElementsAre("127.0.0.12:5060"));
}

TEST_F(NameServerTest, ALongAnswerComesOverTcpAndIsBounded) {
  std::vector<std::string> records;
  for (int i = 0; i < 40; ++i) {
    records.push_back(fmt::format("srv-host=_sips._tcp.sip.test,server-with-a-long-name-{}.test,5061,{},0", i, i));
    records.push_back(fmt::format("host-record=server-with-a-long-name-{}.test,127.0.1.{}", i, i));
  }
  const NameServer server(folder_, records);
  const auto list = texts(resolve(server, {Transport::kTls, "sip.test", 0}));
  ASSERT_THAT(list, SizeIs(Resolver::kMostServers));
  for (std::size_t i = 0; i < list.size(); ++i) EXPECT_EQ(list[i], fmt::format("127.0.1.{}:5061", i));
}

TEST_F(NameServerTest, ErrorsSayWhatIsNotThere) {
  const NameServer server(
      folder_, {"srv-host=_sips._tcp.gone.test", "host-record=gone.test,127.0.0.11",
                "srv-host=_sips._tcp.half.test,nobody.test,5061,1,1", "srv-host=_sips._tcp.half.test,a.test,5061,2,1",
                "srv-host=_sips._tcp.dead.test,nobody.test,5061,1,1", "host-record=a.test,127.0.0.11"});
  auto result = resolve(server, {Transport::kTls, "no-such.test", 0});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind, ResolveError::Kind::kNoSuchName);
  EXPECT_THAT(result.error().what, HasSubstr("'no-such.test'"));
  // Decidedly no such service (RFC 2782): its addresses are not tried.
  result = resolve(server, {Transport::kTls, "gone.test", 0});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind, ResolveError::Kind::kNoSuchName);
  EXPECT_THAT(result.error().what, HasSubstr("'_sips._tcp.gone.test' (of 'gone.test')"));
  result = resolve(server, {Transport::kTls, "dead.test", 0});
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().what, HasSubstr("'nobody.test' (of 'dead.test')"));
  EXPECT_THAT(texts(resolve(server, {Transport::kTls, "half.test", 0})), ElementsAre("127.0.0.11:5061"));
  // A name that this server is not for.
  result = resolve(server, {Transport::kTls, "elsewhere.example", 0});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind, ResolveError::Kind::kPassing);
  EXPECT_THAT(result.error().what, HasSubstr("ktrunk.dns"));
}

TEST_F(NameServerTest, ANameServerThatIsNotThereIsPassing) {
  Resolver resolver(*loop_, {free_address()});
  std::optional<handshake::Resolved> answer;
  const auto query =
      resolver.resolve({Transport::kTls, "sip.test", 0}, [&](const handshake::Resolved& result) { answer = result; });
  for (int i = 0; i < 3000 && !answer; ++i) ASSERT_TRUE(loop_->turn(milliseconds(20)));
  ASSERT_TRUE(answer.has_value());
  ASSERT_FALSE(*answer);
  EXPECT_EQ(answer->error().kind, ResolveError::Kind::kPassing);
  EXPECT_THAT(answer->error().what, HasSubstr("ktrunk.dns"));
}

// The name in the certificate is the one in the configuration, whatever host the SRV record names (RFC 5922 4).
TEST_F(NameServerTest, WhenTheFirstServerRefusesTheNextIsConnected) {
  const Address refusing = free_address();
  const auto listener = TcpListener::bind(free_address());
  ASSERT_TRUE(listener);
  const NameServer server(
      folder_, {fmt::format("srv-host=_sips._tcp.sip.example.com,first.test,{},1,1", refusing.port()),
                fmt::format("srv-host=_sips._tcp.sip.example.com,second.test,{},2,1", listener->address().port()),
                "host-record=first.test," + refusing.ip(), "host-record=second.test," + listener->address().ip()});
  FakeSupervisor supervisor(
      asking(server, trunk("\"tls:sip.example.com\"", fmt::format("ca = \"{}\"\n", authority_.file()))));
  supervisor.run();
  auto socket = listener->accept();
  ASSERT_TRUE(socket) << socket.error().what;
  const auto stream = TlsStream::accept(std::move(*socket), this->server());
  ASSERT_TRUE(stream) << stream.error().what;
  const auto handed = supervisor.established();
  ASSERT_TRUE(handed.has_value());
  EXPECT_EQ(handed->message.info.peer, listener->address());
  EXPECT_EQ(supervisor.region().handshake().failed.read(), 1U);
}

// Of one SRV answer: back to the server with the better priority, once it is there.
TEST_F(NameServerTest, ABetterServerTakesThePlaceWhenItIsBack) {
  const Address first = free_address();
  const auto second = TcpListener::bind(free_address());
  ASSERT_TRUE(second);
  const NameServer server(folder_, two_servers(first, 1, second->address(), 2));
  FakeSupervisor supervisor(asking(server, trunk("\"tcp:sip.test\"", "failback = \"1s\"\n")));
  supervisor.run();
  const auto second_socket = second->accept();
  auto old = supervisor.established();
  ASSERT_TRUE(old.has_value());
  EXPECT_EQ(old->message.info.peer, second->address());
  // It is tried, in vain, and nothing happens to the other.
  ASSERT_TRUE(eventually([&] { return supervisor.region().handshake().failed.read() >= 3; }));
  EXPECT_FALSE(second->accept(milliseconds(100)));
  const auto listener = TcpListener::bind(first);
  ASSERT_TRUE(listener);
  const auto first_socket = listener->accept();
  ASSERT_TRUE(first_socket);
  const auto now = supervisor.established();
  ASSERT_TRUE(now.has_value());
  EXPECT_EQ(now->message.info.peer, first);
  EXPECT_EQ(now->message.replaces, old->id);
  old->fd.reset();
  supervisor.gone(*old);
  EXPECT_FALSE(listener->accept(milliseconds(1500)));  // there is nothing better
  EXPECT_FALSE(second->accept(milliseconds(100)));
}

TEST_F(NameServerTest, AServerOfTheSamePriorityIsNoBetter) {
  const Address first = free_address();
  const auto second = TcpListener::bind(free_address());
  ASSERT_TRUE(second);
  const NameServer server(folder_, two_servers(first, 1, second->address(), 1));
  FakeSupervisor supervisor(asking(server, trunk("\"tcp:sip.test\"", "failback = \"1s\"\n")));
  supervisor.run();
  const auto second_socket = second->accept();
  ASSERT_TRUE(supervisor.established().has_value());
  const auto listener = TcpListener::bind(first);
  ASSERT_TRUE(listener);
  EXPECT_FALSE(listener->accept(milliseconds(1500)));
}

TEST_F(NameServerTest, FromAServerThatAnswersNothingToTheNextOne) {
  const auto first = TcpListener::bind(free_address());
  const auto second = TcpListener::bind(free_address());
  ASSERT_TRUE(first && second);
  const NameServer server(folder_, two_servers(first->address(), 1, second->address(), 2));
  FakeSupervisor supervisor(asking(server, trunk("\"tcp:sip.test\"", "failback = \"1s\"\n")));
  supervisor.run();
  const auto first_socket = first->accept();
  auto handed = supervisor.established();
  ASSERT_TRUE(handed.has_value());
  handed->fd.reset();
  supervisor.gone(*handed, ipc::Gone::Again::kElsewhere);
  const auto second_socket = second->accept();
  ASSERT_TRUE(second_socket);
  const auto next = supervisor.established();
  ASSERT_TRUE(next.has_value());
  EXPECT_EQ(next->message.info.peer, second->address());
  const auto back = first->accept();
  ASSERT_TRUE(back);
  const auto again = supervisor.established();
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->message.replaces, next->id);
}

TEST_F(NameServerTest, UdpServersAreToldInTheirOrder) {
  const Address first = *Address::parse("127.0.0.11:5070");
  const Address second = *Address::parse("127.0.0.12:5071");
  std::vector<std::string> records = two_servers(second, 20, first, 10, "udp");
  records.emplace_back("host-record=second.test,::11");  // nothing that an IPv4 listener could send to
  const NameServer server(folder_, records);
  FakeSupervisor supervisor(asking(server, udp_trunk("\"udp:sip.test\"")));
  supervisor.run();
  for (const Address& address : {first, second}) {
    const auto told = supervisor.resolved();
    ASSERT_TRUE(told.has_value());
    EXPECT_EQ(told->address, address);
    EXPECT_EQ(told->target, address == first ? 0 : 1);
    EXPECT_GE(told->path_mtu, 1280);
  }
  EXPECT_FALSE(supervisor.resolved(milliseconds(200)));
}

}  // namespace
}  // namespace ktrunk::test
