// Trunks' connectors, name resolution and UDP targets, through the whole process.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include "handshake/back_off.h"
#include "handshake/resolver.h"
#include "process_fixture.h"

namespace ktrunk::test {
namespace {

using handshake::BackOff;
using handshake::Resolver;

class ConnectorTest : public HandshakeProcessTest {
 protected:
  static void hurry(FakeSupervisor& supervisor) {
    supervisor.timing.connector = {.first_wait = milliseconds(50), .longest_wait = milliseconds(200)};
  }
  std::unique_ptr<TlsStream> serve(const TcpListener& listener) const {
    auto socket = listener.accept();
    EXPECT_TRUE(socket) << socket.error().what;
    if (!socket) return nullptr;
    auto stream = TlsStream::accept(std::move(*socket), server());
    EXPECT_TRUE(stream) << stream.error().what;
    return stream ? std::move(*stream) : nullptr;
  }
  [[nodiscard]] std::string tls(const Address& address) const { return fmt::format("\"tls:{}\"", address.text()); }
};

TEST_F(ConnectorTest, ConnectsVerifiesAndHandsOver) {
  const auto target = TcpListener::bind(free_address());
  ASSERT_TRUE(target);
  FakeSupervisor supervisor(base() + trunk(tls(target->address()), trust()));
  supervisor.run();
  const auto stream = serve(*target);
  const auto handed = supervisor.established();
  ASSERT_TRUE(handed.has_value());
  const ipc::ConnectionInfo& info = handed->message.info;
  EXPECT_EQ(info.role, ipc::ConnectionInfo::Role::kConnected);
  EXPECT_EQ(info.trunk, TrunkId{0});
  EXPECT_EQ(info.listener, ListenerId{0});
  EXPECT_EQ(info.peer, target->address());
  ASSERT_TRUE(send_packet(handed->fd, "out"));
  EXPECT_EQ(read_bytes(*stream, 3), "out");
  ASSERT_TRUE(stream->write_all("in"));
  EXPECT_EQ(receive_packet(handed->fd), "in");
  EXPECT_STREQ(SSL_get_servername(stream->ssl(), TLSEXT_NAMETYPE_host_name), "sip.example.com");
  EXPECT_EQ(supervisor.region().handshake().connected.read(), 1U);
}

TEST_F(ConnectorTest, KeepsAsManyUpAsConfiguredAndMakesLostOnesAgain) {
  const auto target = TcpListener::bind(free_address());
  ASSERT_TRUE(target);
  FakeSupervisor supervisor(base() + trunk(tls(target->address()), trust() + "connections = 3\n"));
  hurry(supervisor);
  supervisor.run();
  std::vector<std::unique_ptr<TlsStream>> streams;
  std::vector<Handed> handed;
  for (int i = 0; i < 3; ++i) {
    streams.push_back(serve(*target));
    auto one = supervisor.established();
    ASSERT_TRUE(one.has_value());
    handed.push_back(std::move(*one));
  }
  EXPECT_FALSE(target->accept(milliseconds(300)));
  handed[1].fd.reset();
  supervisor.gone(handed[1]);
  streams.push_back(serve(*target));
  EXPECT_TRUE(supervisor.established().has_value());
  EXPECT_FALSE(target->accept(milliseconds(300)));
}

TEST_F(ConnectorTest, ATargetThatComesUpLaterIsReached) {
  const Address address = free_address();
  FakeSupervisor supervisor(base() + trunk(tls(address), trust()));
  hurry(supervisor);
  supervisor.run();
  EXPECT_TRUE(eventually([&] { return supervisor.region().handshake().failed.read() >= 3; }));
  const auto target = TcpListener::bind(address);
  ASSERT_TRUE(target);
  const auto stream = serve(*target);
  EXPECT_TRUE(supervisor.established().has_value());
}

TEST_F(ConnectorTest, TheNextTargetIsTriedAtOnceAndTheFirstAgainAfterALoss) {
  const Address first_address = free_address();
  const auto second = TcpListener::bind(free_address());
  ASSERT_TRUE(second);
  FakeSupervisor supervisor(base() + trunk(tls(first_address) + ", " + tls(second->address()), trust()));
  supervisor.timing.connector = {.first_wait = milliseconds(200), .longest_wait = milliseconds(400)};
  supervisor.run();
  const auto stream = serve(*second);
  auto handed = supervisor.established();
  ASSERT_TRUE(handed.has_value());
  EXPECT_EQ(handed->message.info.peer, second->address());
  const auto first = TcpListener::bind(first_address);
  ASSERT_TRUE(first);
  handed->fd.reset();
  supervisor.gone(*handed);
  const auto again = serve(*first);
  handed = supervisor.established();
  ASSERT_TRUE(handed.has_value());
  EXPECT_EQ(handed->message.info.peer, first_address);
}

TEST_F(ConnectorTest, AServerWithTheWrongNameIsNotTalkedTo) {
  const auto wrong = TcpListener::bind(free_address());
  ASSERT_TRUE(wrong);
  FakeSupervisor supervisor(base() + trunk(tls(wrong->address()), trust("another.example")));
  hurry(supervisor);
  supervisor.run();
  for (int i = 0; i < 2; ++i) {
    auto socket = wrong->accept();
    ASSERT_TRUE(socket);
    const auto stream = TlsStream::accept(std::move(*socket), server());
    if (stream) {
      EXPECT_FALSE((*stream)->read_some());
    }
  }
  EXPECT_FALSE(supervisor.established(milliseconds(100)).has_value());
}

TEST_F(ConnectorTest, APeerThatHangsUpAtOnceIsNotHammered) {
  const auto target = TcpListener::bind(free_address());
  ASSERT_TRUE(target);
  FakeSupervisor supervisor(base() + trunk(tls(target->address()), trust()));
  hurry(supervisor);
  supervisor.run();
  int rounds = 0;
  const auto end = std::chrono::steady_clock::now() + milliseconds(1500);
  while (std::chrono::steady_clock::now() < end) {
    auto stream = serve(*target);
    stream.reset();
    auto handed = supervisor.established();
    ASSERT_TRUE(handed.has_value());
    handed->fd.reset();
    supervisor.gone(*handed);
    ++rounds;
  }
  EXPECT_LE(rounds, 15);  // 50, 100, 133, 133, ... ms between them at the least
}

TEST_F(ConnectorTest, RefusedBacksOffAndTriesAgain) {
  const auto target = TcpListener::bind(free_address());
  ASSERT_TRUE(target);
  FakeSupervisor supervisor(base() + trunk(tls(target->address()), trust()));
  hurry(supervisor);
  supervisor.answer = FakeSupervisor::Answer::kRefuse;
  supervisor.run();
  {
    const auto refused = serve(*target);
    EXPECT_FALSE(supervisor.established(milliseconds(100)).has_value());
    EXPECT_EQ(refused->read_some(), "");
  }
  supervisor.answer = FakeSupervisor::Answer::kAdmit;
  const auto stream = serve(*target);
  EXPECT_TRUE(supervisor.established().has_value());
}

TEST_F(ConnectorTest, ConnectionsOfAnEarlierProcessCountAsUp) {
  const auto target = TcpListener::bind(free_address());
  ASSERT_TRUE(target);
  FakeSupervisor supervisor(base() + trunk(tls(target->address()), trust() + "connections = 2\n"));
  hurry(supervisor);
  const auto fill = [&](std::uint32_t index, ipc::SlotState state, ipc::ConnectionInfo::Role role) {
    ipc::ConnectionSlot& slot = supervisor.region().slot(SlotIndex{index});
    slot.info.role = role;
    slot.info.trunk = TrunkId{0};
    slot.word.store(ipc::SlotWord{.generation = Generation{7}, .state = state, .home = WorkerIndex{0}}.pack());
  };
  fill(0, ipc::SlotState::kClosing, ipc::ConnectionInfo::Role::kConnected);
  fill(1, ipc::SlotState::kOpen, ipc::ConnectionInfo::Role::kAccepted);
  fill(2, ipc::SlotState::kOffered, ipc::ConnectionInfo::Role::kConnected);
  fill(3, ipc::SlotState::kOpen, ipc::ConnectionInfo::Role::kConnected);
  supervisor.run();
  EXPECT_FALSE(target->accept(milliseconds(400)));
  const auto gone = [&](std::uint32_t index) {
    supervisor.send(ipc::Gone{.reference = 0,
                              .connection = {SlotIndex{index}, Generation{7}},
                              .trunk = TrunkId{0},
                              .role = ipc::ConnectionInfo::Role::kConnected});
  };
  gone(0);  // was closing already when the process came up: nobody counted it
  EXPECT_FALSE(target->accept(milliseconds(400)));
  gone(3);
  const auto stream = serve(*target);
  EXPECT_TRUE(supervisor.established().has_value());
}

TEST_F(ConnectorTest, PlainTcpTargets) {
  const auto target = TcpListener::bind(free_address());
  ASSERT_TRUE(target);
  FakeSupervisor supervisor(base() + trunk(fmt::format("\"tcp:{}\"", target->address().text())));
  supervisor.run();
  auto socket = target->accept();
  ASSERT_TRUE(socket);
  const auto handed = supervisor.established();
  ASSERT_TRUE(handed.has_value());
  EXPECT_EQ(handed->message.info.record_layer, ipc::RecordLayerKind::kNone);
  EXPECT_EQ(::fcntl(handed->fd.get(), F_GETFL) & O_NONBLOCK, 0);
  ASSERT_TRUE(send_packet(handed->fd, "plain"));
  EXPECT_EQ(receive_packet(*socket), "plain");
}

TEST_F(ConnectorTest, DrainGivesUpATargetThatDoesNotAnswer) {
  // A backlog that is full: further connects are not answered.
  const Address address = free_address();
  const Fd full(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(full.get(), address.data(), address.size()), 0);
  ASSERT_EQ(::listen(full.get(), 0), 0);
  std::vector<Fd> fillers;
  for (int i = 0; i < 4; ++i) {
    fillers.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    (void)::connect(fillers.back().get(), address.data(), address.size());
  }
  FakeSupervisor supervisor(base() + trunk(tls(address), trust()));
  supervisor.run();
  supervisor.send(ipc::Drain{});
  EXPECT_TRUE(supervisor.idle());
  EXPECT_TRUE(supervisor.stop());
}

TEST_F(ConnectorTest, DrainFinishesAHandshakeThatHasBegun) {
  const auto target = TcpListener::bind(free_address());
  ASSERT_TRUE(target);
  FakeSupervisor supervisor(base() + trunk(tls(target->address()), trust()));
  supervisor.run();
  auto socket = target->accept();
  ASSERT_TRUE(socket);
  ASSERT_TRUE(wait_ready(socket->get(), POLLIN, std::chrono::steady_clock::now() + kPatience));  // its client hello
  supervisor.send(ipc::Drain{});
  pause_briefly();
  const auto stream = TlsStream::accept(std::move(*socket), server());
  ASSERT_TRUE(stream);
  EXPECT_TRUE(supervisor.established().has_value());
  EXPECT_TRUE(supervisor.idle());
}

TEST_F(ConnectorTest, SilentServersAreGivenUpInTime) {
  const auto silent = TcpListener::bind(free_address());
  const auto good = TcpListener::bind(free_address());
  ASSERT_TRUE(silent && good);
  FakeSupervisor supervisor(base("handshake = \"300ms\"") +
                            trunk(tls(silent->address()) + ", " + tls(good->address()), trust()));
  hurry(supervisor);
  supervisor.run();
  auto socket = silent->accept();
  ASSERT_TRUE(socket);
  const auto stream = serve(*good);
  EXPECT_TRUE(supervisor.established().has_value());
}

TEST_F(ConnectorTest, UdpTargetsAreTold) {
  FakeSupervisor supervisor(base() + udp_trunk("\"udp:192.0.2.7:5060\", \"udp:localhost:5062\""));
  supervisor.run();
  std::vector<ipc::Resolved> told;
  for (int i = 0; i < 2; ++i) {
    const auto message = supervisor.resolved();
    ASSERT_TRUE(message.has_value());
    told.push_back(*message);
  }
  const auto& literal = told[0].target == 0 ? told[0] : told[1];
  const auto& name = told[0].target == 0 ? told[1] : told[0];
  EXPECT_EQ(literal.trunk, TrunkId{0});
  EXPECT_EQ(literal.address.text(), "192.0.2.7:5060");
  EXPECT_EQ(name.target, ipc::udp_places(2));
  EXPECT_EQ(name.address.port(), 5062);
}

TEST(BackOffTest, GrowsAndStaysWithinItsBounds) {
  BackOff back_off(milliseconds(500), std::chrono::seconds(30));
  auto least = milliseconds(500);
  for (int i = 0; i < 200; ++i) {
    const auto wait = back_off.next();
    EXPECT_GE(wait, std::min<Clock::duration>(least, std::chrono::seconds(20)));
    EXPECT_LE(wait, std::chrono::seconds(30));
    if (least < std::chrono::seconds(30)) least *= 2;
  }
  back_off.reset();
  EXPECT_LE(back_off.next(), milliseconds(750));
}

class ResolverTest : public testing::Test {
 protected:
  ResolverTest() : loop_(std::move(*EventLoop::create())) {}
  void turn_until(const bool& done) {
    for (int i = 0; i < 1000 && !done; ++i) ASSERT_TRUE(loop_->turn(milliseconds(20)));
    EXPECT_TRUE(done);
  }
  std::unique_ptr<EventLoop> loop_;
};

TEST_F(ResolverTest, LiteralsAndHostsFile) {
  Resolver resolver(*loop_);
  for (const auto& [host, text] : {std::pair{"127.9.8.7", "127.9.8.7:5061"}, std::pair{"::1", "[::1]:5061"}}) {
    bool done = false;
    const auto query = resolver.resolve({config::Transport::kTls, host, 5061},
                                        [&, want = std::string(text)](const handshake::Resolved& result) {
                                          done = true;
                                          ASSERT_TRUE(result);
                                          EXPECT_EQ(result->front().text(), want);
                                        });
    EXPECT_FALSE(done);  // never from within
    EXPECT_TRUE(query.pending());
    turn_until(done);
    EXPECT_FALSE(query.pending());
  }
  bool done = false;
  const auto query =
      resolver.resolve({config::Transport::kTls, "localhost", 1}, [&](const handshake::Resolved& result) {
        done = true;
        EXPECT_TRUE(result) << result.error().what;
      });
  turn_until(done);
}

TEST_F(ResolverTest, AnEndedQueryIsNotAnswered) {
  Resolver resolver(*loop_);
  bool answered = false;
  {
    const auto first = resolver.resolve({config::Transport::kTls, "127.0.0.1", 1},
                                        [&](const handshake::Resolved&) { answered = true; });
    const auto second = resolver.resolve({config::Transport::kTls, "localhost", 1},
                                         [&](const handshake::Resolved&) { answered = true; });
    const auto third = resolver.resolve({config::Transport::kTls, "no-such-name.invalid", 1},
                                        [&](const handshake::Resolved&) { answered = true; });
  }
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(loop_->turn(milliseconds(5)));
  EXPECT_FALSE(answered);
}

TEST_F(ResolverTest, MayGoWithQuestionsOpen) {
  Resolver::Query query;
  {
    Resolver resolver(*loop_);
    query = resolver.resolve({config::Transport::kTls, "no-such-name.invalid", 1}, [](const handshake::Resolved&) {});
    ASSERT_TRUE(loop_->turn(milliseconds(0)));
  }
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(loop_->turn(milliseconds(5)));
}

}  // namespace
}  // namespace ktrunk::test
