// Connections whose keys are used up, and those that are lost in a way that a new one mends: new keys, make before
// break, retirement, reconnecting at once.
#include <fcntl.h>
#include <sys/socket.h>

#include "process_fixture.h"

namespace ktrunk::test {
namespace {

using Again = ipc::Gone::Again;

class ConnectorReplaceTest : public HandshakeProcessTest {
 protected:
  static void hurry(FakeSupervisor& supervisor) {
    supervisor.timing.connector = {.first_wait = milliseconds(50), .longest_wait = milliseconds(200)};
  }
  // No wait is over before the test is.
  static void dawdle(FakeSupervisor& supervisor) {
    supervisor.timing.connector = {.first_wait = std::chrono::hours(1), .longest_wait = std::chrono::hours(2)};
  }
  // TLS 1.2 has no KeyUpdate: its connections must be replaced.
  [[nodiscard]] std::unique_ptr<TlsStream> serve(const TcpListener& listener, int version = TLS1_2_VERSION) const {
    auto socket = listener.accept();
    EXPECT_TRUE(socket) << socket.error().what;
    if (!socket) return nullptr;
    TlsOptions options = server();
    options.max_version = version;
    auto stream = TlsStream::accept(std::move(*socket), options);
    EXPECT_TRUE(stream) << stream.error().what;
    return stream ? std::move(*stream) : nullptr;
  }
  static Handed must(std::optional<Handed> handed) {
    EXPECT_TRUE(handed.has_value());
    return handed ? std::move(*handed) : Handed{};
  }
  static void renew(FakeSupervisor& supervisor, const Handed& handed) {
    supervisor.send(ipc::Renew{.reference = handed.message.reference, .connection = handed.id});
  }
  static void gone(FakeSupervisor& supervisor, Handed& handed, Again again = Again::kAfterWait) {
    handed.fd.reset();
    supervisor.gone(handed, again);
  }
  [[nodiscard]] std::string carrier(const Address& address, std::string_view more = {}) const {
    return base() + trunk(fmt::format("\"tls:{}\"", address.text()), trust() + std::string(more));
  }

  TcpListener target_ = TcpListener::bind(free_address()).value();
};

TEST_F(ConnectorReplaceTest, ARelayUnderTls13GetsNewKeysWhereItIs) {
  FakeSupervisor supervisor(carrier(target_.address()));
  supervisor.run();
  const auto stream = serve(target_, TLS1_3_VERSION);
  const Handed handed = must(supervisor.established());
  for (int i = 0; i < 3; ++i) {
    renew(supervisor, handed);
    ASSERT_TRUE(send_packet(handed.fd, "after"));
    EXPECT_EQ(read_bytes(*stream, 5), "after");
    ASSERT_TRUE(stream->write_all("back"));
    EXPECT_EQ(receive_packet(handed.fd), "back");
  }
  EXPECT_FALSE(target_.accept(milliseconds(200)));
  EXPECT_FALSE(supervisor.next<ipc::Retire>(milliseconds(100)));
}

TEST_F(ConnectorReplaceTest, MakesTheNewOneBeforeTheOldOneBreaks) {
  FakeSupervisor supervisor(carrier(target_.address()));
  hurry(supervisor);
  supervisor.run();
  const auto old_stream = serve(target_);
  Handed old = must(supervisor.established());
  EXPECT_FALSE(old.message.replaces.valid());
  renew(supervisor, old);
  renew(supervisor, old);  // once is enough
  const auto stream = serve(target_);
  Handed handed = must(supervisor.established());
  EXPECT_EQ(handed.message.replaces, old.id);
  EXPECT_EQ(supervisor.region().handshake().replaced.read(), 1U);
  ASSERT_TRUE(send_packet(old.fd, "still up"));
  EXPECT_EQ(read_bytes(*old_stream, 8), "still up");
  renew(supervisor, old);  // has been done
  gone(supervisor, old);
  EXPECT_FALSE(target_.accept(milliseconds(300)));
  // It is the place's connection now: lost, it is made again, and it can be replaced itself.
  renew(supervisor, handed);
  const auto third_stream = serve(target_);
  const Handed third = must(supervisor.established());
  EXPECT_EQ(third.message.replaces, handed.id);
  gone(supervisor, handed);
  EXPECT_FALSE(target_.accept(milliseconds(300)));
  EXPECT_FALSE(supervisor.next<ipc::Retire>(milliseconds(100)));
}

TEST_F(ConnectorReplaceTest, TheOldOneStaysUntilAReplacementCanBeMade) {
  const Address address = target_.address();
  FakeSupervisor supervisor(carrier(address));
  hurry(supervisor);
  supervisor.run();
  const auto old_stream = serve(target_);
  Handed old = must(supervisor.established());
  target_ = std::move(*TcpListener::bind(free_address()));  // nobody listens there any more
  renew(supervisor, old);
  ASSERT_TRUE(eventually([&] { return supervisor.region().handshake().failed.read() >= 3; }));
  ASSERT_TRUE(send_packet(old.fd, "still up"));
  EXPECT_EQ(read_bytes(*old_stream, 8), "still up");
  const auto again = TcpListener::bind(address);
  ASSERT_TRUE(again);
  const auto stream = serve(*again);
  EXPECT_EQ(must(supervisor.established()).message.replaces, old.id);
}

TEST_F(ConnectorReplaceTest, ARefusedReplacementIsTriedAgain) {
  FakeSupervisor supervisor(carrier(target_.address()));
  hurry(supervisor);
  supervisor.run();
  const auto old_stream = serve(target_);
  Handed old = must(supervisor.established());
  supervisor.answer = FakeSupervisor::Answer::kRefuse;
  renew(supervisor, old);
  const auto refused = serve(target_);
  EXPECT_FALSE(supervisor.established(milliseconds(100)).has_value());
  supervisor.answer = FakeSupervisor::Answer::kAdmit;
  const auto stream = serve(target_);
  EXPECT_EQ(must(supervisor.established()).message.replaces, old.id);
  gone(supervisor, old);
  EXPECT_FALSE(target_.accept(milliseconds(300)));
}

TEST_F(ConnectorReplaceTest, AReplacementThatIsLostFirstIsMadeAgain) {
  FakeSupervisor supervisor(carrier(target_.address()));
  hurry(supervisor);
  supervisor.run();
  const auto old_stream = serve(target_);
  Handed old = must(supervisor.established());
  renew(supervisor, old);
  const auto lost_stream = serve(target_);
  Handed lost = must(supervisor.established());
  gone(supervisor, lost);
  const auto stream = serve(target_);
  EXPECT_EQ(must(supervisor.established()).message.replaces, old.id);
}

TEST_F(ConnectorReplaceTest, AnOldOneThatIsLostMeanwhileIsMadeOnce) {
  FakeSupervisor supervisor(carrier(target_.address()));
  hurry(supervisor);
  supervisor.run();
  const auto old_stream = serve(target_);
  Handed old = must(supervisor.established());
  renew(supervisor, old);
  auto socket = target_.accept();  // the replacement's handshake has begun
  ASSERT_TRUE(socket);
  gone(supervisor, old);
  pause_briefly();
  TlsOptions options = server();
  options.max_version = TLS1_2_VERSION;
  const auto stream = TlsStream::accept(std::move(*socket), options);
  ASSERT_TRUE(stream);
  (void)must(supervisor.established());
  EXPECT_FALSE(target_.accept(milliseconds(300)));
}

TEST_F(ConnectorReplaceTest, AnInheritedConnectionIsReplaced) {
  FakeSupervisor supervisor(carrier(target_.address()));
  hurry(supervisor);
  const ConnectionId inherited{SlotIndex{5}, Generation{7}};
  ipc::ConnectionInfo info;
  info.role = ipc::ConnectionInfo::Role::kConnected;
  info.trunk = TrunkId{0};
  info.listener = ListenerId{0};
  info.record_layer = ipc::RecordLayerKind::kKernel;
  info.tls_version = ipc::TlsVersion::kTls12;
  supervisor.open_slot(inherited, info);
  supervisor.run();
  EXPECT_FALSE(target_.accept(milliseconds(200)));
  supervisor.send(ipc::Renew{.reference = 0, .connection = inherited});
  const auto stream = serve(target_);
  EXPECT_EQ(must(supervisor.established()).message.replaces, inherited);
  supervisor.send(
      ipc::Gone{.reference = 0, .connection = inherited, .trunk = TrunkId{0}, .role = info.role, .again = {}});
  EXPECT_FALSE(target_.accept(milliseconds(300)));
}

TEST_F(ConnectorReplaceTest, WhatNobodyHereCanMakeAgainIsRetired) {
  FakeSupervisor supervisor(
      base({}, "max_version = \"1.2\"\n") + trunk("\"udp:127.0.0.1:9\"", {}, "udp") +
      fmt::format("[[listen]]\nname = \"udp\"\ntransport = \"udp\"\naddress = \"{}\"\n", free_address().text()));
  supervisor.run();
  const auto stream = connect(client());
  const Handed accepted = must(supervisor.established());
  renew(supervisor, accepted);
  const auto retired = supervisor.next<ipc::Retire>();
  ASSERT_TRUE(retired.has_value());
  EXPECT_EQ(retired->connection, accepted.id);
  // A connection of a trunk that has no place for it, as an earlier process left it.
  ipc::ConnectionInfo info;
  info.role = ipc::ConnectionInfo::Role::kConnected;
  info.trunk = TrunkId{0};
  info.listener = ListenerId{0};
  const ConnectionId extra{SlotIndex{9}, Generation{3}};
  supervisor.open_slot(extra, info);
  supervisor.send(ipc::Renew{.reference = 0, .connection = extra});
  const auto second = supervisor.next<ipc::Retire>();
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ(second->connection, extra);
}

TEST_F(ConnectorReplaceTest, WordsAboutConnectionsThatDoNotLiveAreHarmless) {
  FakeSupervisor supervisor(base());
  supervisor.run();
  supervisor.send(ipc::Renew{.reference = 3, .connection = {SlotIndex{4}, Generation{2}}});
  supervisor.send(ipc::Renew{.reference = 0, .connection = {SlotIndex{70'000'000}, Generation{2}}});
  supervisor.send(ipc::Renew{});
  const Fd any(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ipc::PostHandshake post{};
  post.record.connection = {SlotIndex{4}, Generation{2}};
  post.record.bytes = 5;
  supervisor.send(post, Fd(::fcntl(any.get(), F_DUPFD_CLOEXEC, 0)));
  supervisor.send(ipc::InstallTransmit{.connection = {SlotIndex{4}, Generation{2}}},
                  Fd(::fcntl(any.get(), F_DUPFD_CLOEXEC, 0)));
  supervisor.send(ipc::InstallTransmit{.connection = {SlotIndex{70'000'000}, Generation{2}}},
                  Fd(::fcntl(any.get(), F_DUPFD_CLOEXEC, 0)));
  EXPECT_FALSE(supervisor.next<ipc::Retire>(milliseconds(100)));
  const auto stream = connect(client());
  EXPECT_TRUE(supervisor.established().has_value());
}

TEST_F(ConnectorReplaceTest, AtOnceMeansWithoutAWaitTheFirstTime) {
  FakeSupervisor supervisor(carrier(target_.address()));
  dawdle(supervisor);
  supervisor.run();
  const auto first = serve(target_);
  Handed handed = must(supervisor.established());
  gone(supervisor, handed, Again::kAtOnce);
  const auto second = serve(target_);
  handed = must(supervisor.established());
  gone(supervisor, handed, Again::kAtOnce);
  EXPECT_FALSE(target_.accept(milliseconds(300)));
}

TEST_F(ConnectorReplaceTest, AtOnceAgainAfterAConnectionThatLasted) {
  FakeSupervisor supervisor(carrier(target_.address()));
  dawdle(supervisor);
  supervisor.timing.connector.steady = milliseconds(0);
  supervisor.run();
  for (int i = 0; i < 4; ++i) {
    const auto stream = serve(target_);
    Handed handed = must(supervisor.established());
    gone(supervisor, handed, Again::kAtOnce);
  }
}

TEST_F(ConnectorReplaceTest, AfterAWaitMeansAfterAWait) {
  FakeSupervisor supervisor(carrier(target_.address()));
  dawdle(supervisor);
  supervisor.run();
  const auto first = serve(target_);
  Handed handed = must(supervisor.established());
  gone(supervisor, handed);
  EXPECT_FALSE(target_.accept(milliseconds(300)));
}

}  // namespace
}  // namespace ktrunk::test
