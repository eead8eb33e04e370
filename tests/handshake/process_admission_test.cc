// The handshake process against crowds: who is let in, what is refused, and that nobody is kept out by others.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <fstream>
#include <limits>
#include <thread>
#include <vector>

#include "process_fixture.h"

namespace {

// accept4() fails as it does under RLIMIT_NOFILE when the next descriptor would have this number. The limit itself
// would be everybody's: this process is supervisor and peers too, and UBSan looks at objects through a pipe, so that
// without descriptors every object is broken to it.
constexpr int kNoLimit = std::numeric_limits<int>::max();
std::atomic<int> descriptors_to_accept{kNoLimit};

int next_descriptor() {
  const ktrunk::Fd next(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0));
  return next.get();
}

}  // namespace

// In the place of the C library's.
extern "C" int accept4(int fd, sockaddr* address, socklen_t* length, int flags) {
  if (const int limit = descriptors_to_accept.load(); limit != kNoLimit && next_descriptor() >= limit) {
    errno = EMFILE;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_accept4, fd, address, length, flags));
}

namespace ktrunk::test {
namespace {

class ProcessAdmissionTest : public HandshakeProcessTest {
 protected:
  // A connection from that address of this machine, non-blocking; not valid when it is not taken at once.
  [[nodiscard]] static Fd dial_from(const std::string& source, const Address& to) {
    Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    (void)::setsockopt(socket.get(), IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    const auto from = Address::from_ip(source, 0);
    if (::bind(socket.get(), from->data(), from->size()) != 0 || ::connect(socket.get(), to.data(), to.size()) != 0)
      return {};
    (void)::fcntl(socket.get(), F_SETFL, O_NONBLOCK);
    return socket;
  }
  [[nodiscard]] Fd dial_from(const std::string& source) const { return dial_from(source, address_); }
  [[nodiscard]] std::unique_ptr<TlsStream> connect_from(const std::string& source) const {
    auto stream = TlsStream::handshake(dial_from(source), client());
    return stream ? std::move(*stream) : nullptr;
  }
  // The other end has ended the connection, in whatever way.
  [[nodiscard]] static bool ended(const Fd& socket) {
    char octet = 0;
    const ssize_t got = ::recv(socket.get(), &octet, 1, MSG_DONTWAIT);
    return got == 0 || (got < 0 && errno != EAGAIN);
  }
  [[nodiscard]] std::string plain(const Address& address) const {
    return fmt::format("[[listen]]\nname = \"plain\"\ntransport = \"tcp\"\naddress = \"{}\"\n", address.text());
  }
};

// As many descriptors as the test may have.
void raise_descriptor_limit() {
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  limit.rlim_cur = limit.rlim_max;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
}

std::size_t resident_kilobytes() {
  std::ifstream file("/proc/self/statm");
  std::size_t all = 0;
  std::size_t resident = 0;
  file >> all >> resident;
  return resident * 4;
}

// 4,000 connections of 200 addresses, which never finish: half of them say nothing, half send an octet now and then;
// what is ended they open again.
class Crowd {
 public:
  static constexpr std::size_t kSilent = 2000;
  static constexpr std::size_t kDripping = 2000;

  explicit Crowd(const Address& to) : to_(to), sockets_(kSilent + kDripping), sent_(sockets_.size()) {
    thread_ = std::thread([this] {
      while (!over_.load()) round();
    });
  }
  ~Crowd() {
    over_ = true;
    thread_.join();
  }
  [[nodiscard]] std::size_t opened() const { return opened_.load(); }

 private:
  void round() {
    for (std::size_t i = 0; i < sockets_.size() && !over_.load(); ++i) {
      char octet = 0;
      const bool over =
          sockets_[i].valid() && ::recv(sockets_[i].get(), &octet, 1, MSG_DONTWAIT) <= 0 && errno != EAGAIN;
      if (!sockets_[i].valid() || over) {
        sockets_[i] = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        const auto from = Address::from_ip(fmt::format("127.6.{}.{}", i % 2, i % 200 + 1), 0);
        const int on = 1;
        (void)::setsockopt(sockets_[i].get(), IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        (void)::bind(sockets_[i].get(), from->data(), from->size());
        (void)::connect(sockets_[i].get(), to_.data(), to_.size());
        sent_[i] = 0;
        ++opened_;
      } else if (i >= kSilent) {
        // A client hello of the longest length, an octet at a time.
        static constexpr std::string_view kHello("\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03", 11);
        const char next = sent_[i] < kHello.size() ? kHello[sent_[i]] : 'x';
        ++sent_[i];
        (void)::send(sockets_[i].get(), &next, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
      }
    }
  }
  Address to_;
  std::vector<Fd> sockets_;
  std::vector<std::size_t> sent_;
  std::atomic<bool> over_{false};
  std::atomic<std::size_t> opened_{0};
  std::thread thread_;
};

TEST_F(ProcessAdmissionTest, NewPeersGetInThroughACrowdAndOldOnesDoNotNotice) {
  raise_descriptor_limit();
  constexpr std::uint64_t kMost = 1000;
  FakeSupervisor supervisor(base(fmt::format("handshake = \"60s\"\nhandshakes = {}\nhandshake_rate = 1000\n", kMost)));
  supervisor.run();
  const auto old = connect_from("127.1.0.1");
  const auto old_handed = supervisor.established();
  ASSERT_TRUE(old && old_handed);
  const ipc::HandshakeStats& stats = supervisor.region().handshake();
  const std::size_t before = resident_kilobytes();
  Crowd crowd(address_);
  ASSERT_TRUE(
      eventually([&] { return stats.in_progress.read() == kMost && stats.refused.read() > 0; }, milliseconds(60'000)))
      << stats.in_progress.read() << " in progress";
  std::uint64_t most = 0;
  for (int i = 0; i < 40; ++i) {
    const auto stream = connect_from(fmt::format("127.2.0.{}", i + 1));
    ASSERT_NE(stream, nullptr) << "peer " << i;
    const auto handed = supervisor.established();
    ASSERT_TRUE(handed.has_value());
    ASSERT_TRUE(stream->write_all("let in"));
    EXPECT_EQ(receive_packet(handed->fd), "let in");
    ASSERT_TRUE(old->write_all("unaffected"));
    EXPECT_EQ(receive_packet(old_handed->fd), "unaffected");
    most = std::max(most, stats.in_progress.read());
  }
  EXPECT_LE(most, kMost + 1);  // one comes before the other goes
  EXPECT_GT(crowd.opened(), 4000U - 1);
  fmt::print("{} connections of the crowd, {} refused; {} KB more for {} handshakes in progress\n", crowd.opened(),
             stats.refused.read(), resident_kilobytes() - before, stats.in_progress.read());
}

TEST_F(ProcessAdmissionTest, WithoutDescriptorsAHandshakeInProgressMakesRoom) {
  const Address tcp = free_address();
  FakeSupervisor supervisor(base("handshake = \"60s\"") + plain(tcp));
  supervisor.run();
  std::vector<Fd> sockets;
  for (int i = 0; i < 60; ++i) sockets.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const Fd good(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  descriptors_to_accept = next_descriptor() + 10;
  for (const Fd& socket : sockets) (void)::connect(socket.get(), address_.data(), address_.size());
  const ipc::HandshakeStats& stats = supervisor.region().handshake();
  EXPECT_TRUE(eventually([&] { return stats.refused.read() >= 30; })) << stats.refused.read();
  EXPECT_EQ(::connect(good.get(), tcp.data(), tcp.size()), 0);
  EXPECT_TRUE(supervisor.established().has_value());
  descriptors_to_accept = kNoLimit;
}

TEST_F(ProcessAdmissionTest, AnAddressHasSoManyHandshakesInProgress) {
  FakeSupervisor supervisor(base("handshakes_per_address = 3\n"));
  supervisor.run();
  const ipc::HandshakeStats& stats = supervisor.region().handshake();
  std::vector<Fd> half;
  for (int i = 0; i < 3; ++i) half.push_back(dial_from("127.3.0.1"));
  ASSERT_TRUE(eventually([&] { return stats.in_progress.read() == 3; }));
  const Fd fourth = dial_from("127.3.0.1");
  ASSERT_TRUE(eventually([&] { return ended(fourth); }));
  EXPECT_EQ(stats.refused.read(), 1U);
  EXPECT_NE(connect_from("127.3.0.2"), nullptr);
  half.pop_back();
  ASSERT_TRUE(eventually([&] { return stats.in_progress.read() == 2; }));
  EXPECT_NE(connect_from("127.3.0.1"), nullptr);
  EXPECT_FALSE(ended(half.front()));
}

TEST_F(ProcessAdmissionTest, AnAddressBeginsSoManyHandshakesASecond) {
  FakeSupervisor supervisor(base("handshake_rate = 5\n"));
  supervisor.run();
  const ipc::HandshakeStats& stats = supervisor.region().handshake();
  for (int i = 0; i < 50; ++i) (void)dial_from("127.3.0.1");
  EXPECT_TRUE(eventually([&] { return stats.refused.read() > 0; }));
  EXPECT_NE(connect_from("127.3.0.2"), nullptr);
}

TEST_F(ProcessAdmissionTest, AnAddressHasSoManyConnections) {
  const Address tcp = free_address();
  FakeSupervisor supervisor(base("connections_per_address = 3\n") + plain(tcp));
  supervisor.run();
  const ipc::HandshakeStats& stats = supervisor.region().handshake();
  std::vector<Fd> sockets;
  std::vector<Handed> handed;
  for (int i = 0; i < 2; ++i) {
    sockets.push_back(dial_from("127.3.0.1", tcp));
    auto one = supervisor.established();
    ASSERT_TRUE(one.has_value());
    handed.push_back(std::move(*one));
  }
  const auto stream = connect_from("127.3.0.1");
  ASSERT_TRUE(supervisor.established().has_value());
  const Fd refused = dial_from("127.3.0.1", tcp);
  EXPECT_TRUE(eventually([&] { return ended(refused); }));
  EXPECT_EQ(connect_from("127.3.0.1"), nullptr);
  EXPECT_EQ(stats.refused.read(), 2U);
  handed[0].fd.reset();
  supervisor.gone(handed[0]);
  ASSERT_TRUE(eventually([&] {
    sockets.push_back(dial_from("127.3.0.1", tcp));
    return supervisor.established(milliseconds(100)).has_value();
  }));
}

TEST_F(ProcessAdmissionTest, WhatTheSupervisorRefusesIsNotCountedAsOpen) {
  const Address tcp = free_address();
  FakeSupervisor supervisor(base("connections_per_address = 1\n") + plain(tcp));
  supervisor.answer = FakeSupervisor::Answer::kRefuse;
  supervisor.why = ipc::Refused::Why::kAddressFull;
  supervisor.run();
  const ipc::HandshakeStats& stats = supervisor.region().handshake();
  const Fd refused = dial_from("127.3.0.1", tcp);
  EXPECT_FALSE(supervisor.established(milliseconds(300)).has_value());
  ASSERT_TRUE(eventually([&] { return stats.refused.read() == 1; }));
  supervisor.answer = FakeSupervisor::Answer::kAdmit;
  const Fd admitted = dial_from("127.3.0.1", tcp);
  EXPECT_TRUE(supervisor.established().has_value());
}

TEST_F(ProcessAdmissionTest, ADripDoesNotOutlastTheLimit) {
  FakeSupervisor supervisor(base("handshake = \"700ms\"\n"));
  supervisor.run();
  const Fd drip = dial_from("127.3.0.1");
  static constexpr std::string_view kHello("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
  std::size_t sent = 0;
  for (; sent < 512 && !ended(drip); ++sent) {
    const char next = sent < kHello.size() ? kHello[sent] : 'x';
    (void)::send(drip.get(), &next, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    pause_briefly();
    pause_briefly();
  }
  EXPECT_LT(sent, 512U);
  EXPECT_TRUE(eventually([&] { return supervisor.region().handshake().failed.read() == 1; }));
  EXPECT_EQ(supervisor.region().handshake().in_progress.read(), 0U);
}

TEST_F(ProcessAdmissionTest, PeersWaitWhileTheSupervisorDoesNotAnswer) {
  raise_descriptor_limit();
  const Address tcp = free_address();
  FakeSupervisor supervisor(base("connections_per_address = 100000\n") + plain(tcp));
  supervisor.answer = FakeSupervisor::Answer::kNothing;
  supervisor.run();
  const ipc::HandshakeStats& stats = supervisor.region().handshake();
  constexpr unsigned kConnections = 1500;
  std::vector<Fd> sockets;
  for (unsigned i = 0; i < kConnections; ++i) sockets.push_back(dial_from("127.3.0.1", tcp));
  ASSERT_TRUE(eventually([&] { return stats.accepted.read() >= 1024; }));
  for (int i = 0; i < 30; ++i) pause_briefly();
  EXPECT_LE(stats.accepted.read(), 1024U + 64U);  // what was accepted in the same turn
  unsigned admitted = 0;
  while (const auto handed = supervisor.established(milliseconds(5000))) {
    supervisor.send(
        ipc::Admitted{.reference = handed->message.reference, .connection = {SlotIndex{0}, Generation{++admitted}}});
    supervisor.send(ipc::Gone{.reference = handed->message.reference,
                              .connection = {SlotIndex{0}, Generation{admitted}},
                              .trunk = {},
                              .role = ipc::ConnectionInfo::Role::kAccepted});
    if (admitted == kConnections) break;
  }
  EXPECT_EQ(admitted, kConnections);
}

TEST_F(ProcessAdmissionTest, SeveralProcessesShareSocketsAndTrunks) {
  const auto first = TcpListener::bind(free_address());
  const auto second = TcpListener::bind(free_address());
  ASSERT_TRUE(first && second);
  std::string text =
      base() +
      fmt::format("[[trunk]]\nname = \"zero\"\ntargets = [\"tcp:{}\"]\nlisten = \"edge\"\n", first->address().text()) +
      fmt::format("[[trunk]]\nname = \"one\"\ntargets = [\"tcp:{}\"]\nlisten = \"edge\"\n", second->address().text());
  text.insert(text.find("[ktrunk]\n") + 9, "handshake_processes = 2\n");
  FakeSupervisor zero(text);
  FakeSupervisor one(zero, HandshakeIndex{1});
  zero.run();
  one.run();
  const auto to_first = first->accept();
  const auto to_second = second->accept();
  const auto of_zero = zero.established();
  const auto of_one = one.established();
  ASSERT_TRUE(to_first && to_second && of_zero && of_one);
  EXPECT_EQ(of_zero->message.info.trunk, TrunkId{0});
  EXPECT_EQ(of_one->message.info.trunk, TrunkId{1});
  constexpr std::uint64_t kConnections = 60;
  std::vector<std::unique_ptr<TlsStream>> streams;
  for (std::uint64_t i = 0; i < kConnections; ++i) {
    streams.push_back(connect_from(fmt::format("127.4.0.{}", i + 1)));
    ASSERT_NE(streams.back(), nullptr);
  }
  const auto& counts = zero.region();
  const auto accepted = [&] {
    return counts.handshake(HandshakeIndex{0}).accepted.read() + counts.handshake(HandshakeIndex{1}).accepted.read();
  };
  EXPECT_TRUE(eventually([&] { return accepted() == kConnections; }));
  EXPECT_FALSE(first->accept(milliseconds(100)));
  EXPECT_FALSE(second->accept(milliseconds(100)));
  // The other goes on alone.
  (void)zero.hang_up();
  for (int i = 0; i < 5; ++i) {
    streams.push_back(connect_from("127.4.1.1"));
    EXPECT_NE(streams.back(), nullptr);
  }
  EXPECT_TRUE(eventually([&] { return accepted() == kConnections + 5; }));
}

TEST_F(ProcessAdmissionTest, AProcessThatIsNoneOfTheConfigurationDoesNotBegin) {
  FakeSupervisor zero(base());
  FakeSupervisor one(zero, HandshakeIndex{1});
  FakeSupervisor none(zero, HandshakeIndex{});
  EXPECT_THROW(one.run(), std::runtime_error);
  EXPECT_THROW(none.run(), std::runtime_error);
}

}  // namespace
}  // namespace ktrunk::test
