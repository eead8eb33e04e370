// The handshake service against clients that break its contract, ask too much, or go.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <set>

#include "service_fixture.h"

namespace ktrunk::test {
namespace {

using handoff::Header;
using handoff::Request;
using testing::HasSubstr;

// A client that sends what it likes.
class RawClient {
 public:
  explicit RawClient(const std::string& path) : channel_(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(::connect(channel_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  void send(std::span<const std::byte> packet, std::span<const int> descriptors) const {
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * 16)> control{};
    iovec part{const_cast<std::byte*>(packet.data()), packet.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (!descriptors.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
      cmsghdr* rights = CMSG_FIRSTHDR(&message);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(descriptors.size_bytes());
      std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size_bytes());
    }
    EXPECT_GE(::sendmsg(channel_.get(), &message, MSG_NOSIGNAL), 0);
  }
  // The service has ended the channel, and said nothing.
  [[nodiscard]] bool closed() const {
    pollfd wait{channel_.get(), POLLIN, 0};
    if (::poll(&wait, 1, static_cast<int>(kPatience.count())) != 1) return false;
    char octet;
    return ::recv(channel_.get(), &octet, 1, MSG_DONTWAIT) <= 0;
  }

 private:
  Fd channel_;
};

std::vector<std::byte> packet_of(const Header& header, const Request& request) {
  std::vector<std::byte> packet(sizeof header + sizeof request);
  std::memcpy(packet.data(), &header, sizeof header);
  std::memcpy(packet.data() + sizeof header, &request, sizeof request);
  return packet;
}

class HandoffHostileTest : public HandoffServiceTest {
 protected:
  // Sends the packet as a client of its own with so many descriptors; it is ended, and the others are not.
  void expect_ended(std::span<const std::byte> packet, std::size_t descriptors) {
    const RawClient hostile(path_);
    const Fd something(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const std::vector<int> many(descriptors, something.get());
    hostile.send(packet, many);
    EXPECT_TRUE(hostile.closed());
  }
  void expect_serves() {
    auto client = this->client();
    auto [ours, theirs] = tcp_pair();
    send(client, accept_wish(), std::move(ours));
    const auto peer = this->peer(std::move(theirs));
    ASSERT_TRUE(peer);
    expect_good(reply(client), *peer);
  }
  [[nodiscard]] static Request good() {
    Request request;
    request.context = Text<sizeof request.context>("edge");
    return request;
  }
};

TEST_F(HandoffHostileTest, EveryCutOfARequestEndsItsSender) {
  start();
  const auto packet = packet_of(handoff::header_of(good()), good());
  for (std::size_t bytes = 1; bytes < packet.size(); bytes += bytes < 16 ? 1 : 37)
    expect_ended(std::span(packet).first(bytes), 1);
  expect_serves();
}

TEST_F(HandoffHostileTest, WrongNumbersOfDescriptorsEndTheirSender) {
  start();
  const auto packet = packet_of(handoff::header_of(good()), good());
  for (const std::size_t descriptors : {0u, 2u, 3u, 4u, 5u, 16u}) expect_ended(packet, descriptors);
  expect_serves();
}

TEST_F(HandoffHostileTest, GarbageEndsItsSender) {
  start();
  const auto with = [&](auto change) {
    Header header = handoff::header_of(good());
    Request request = good();
    change(header, request);
    expect_ended(packet_of(header, request), 1);
  };
  with([](Header& header, Request&) { header.version = 2; });
  with([](Header& header, Request&) { header.kind = handoff::Kind::kAnswer; });
  with([](Header& header, Request&) { header.kind = static_cast<handoff::Kind>(99); });
  with([](Header& header, Request&) { header.body_bytes = 0; });
  with([](Header& header, Request&) { header.body_bytes = UINT32_MAX; });
  with([](Header&, Request& request) { request.role = static_cast<handoff::Role>(77); });
  with([](Header&, Request& request) { request.reserved.fill(0xff); });
  with([](Header&, Request& request) { request.context.bytes.fill('x'); });
  std::vector<std::byte> noise(sizeof(Header) + handoff::kMaxBodyBytes + 1000, std::byte{0xa5});
  expect_ended(noise, 1);
  expect_ended(std::span(noise).first(100), 0);
  expect_serves();
}

TEST_F(HandoffHostileTest, ConnectionsThatAreNotItsOwnAreRefused) {
  start();
  auto client = this->client();
  const Fd something(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (const std::uint64_t connection : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1} << 32, UINT64_MAX}) {
    const std::array<std::byte, 5> octets{std::byte{24}};
    ASSERT_TRUE(client.record(connection, octets, something));
    ASSERT_TRUE(client.sent(connection, something));
    ASSERT_TRUE(client.renew(connection, handoff::Renew::Which::kTransmit));
    ASSERT_TRUE(client.gone(connection));
    for (const auto what : {handoff::Instruction::What::kClose, handoff::Instruction::What::kClose,
                            handoff::Instruction::What::kCannotRenew}) {
      const auto instruction = this->instruction(client);
      EXPECT_EQ(instruction.what, what);
      EXPECT_EQ(instruction.connection, connection);
    }
  }
  const auto with = [&](auto body, std::size_t descriptors) {
    const Header header = handoff::header_of(body);
    std::vector<std::byte> packet(sizeof header + sizeof body);
    std::memcpy(packet.data(), &header, sizeof header);
    std::memcpy(packet.data() + sizeof header, &body, sizeof body);
    expect_ended(packet, descriptors);
    expect_ended(std::span(packet).first(packet.size() - 1), descriptors);
  };
  with(handoff::Record{}, 0);
  with(handoff::Record{}, 2);
  with(handoff::Record{.bytes = 16385}, 1);
  with(handoff::Sent{}, 0);
  with(handoff::Renew{}, 1);
  with(handoff::Renew{.which = static_cast<handoff::Renew::Which>(2)}, 0);
  with(handoff::Gone{}, 1);
  with(handoff::Instruction{}, 0);
  expect_serves();
}

TEST_F(HandoffHostileTest, OtherDescriptorsThanTcpAreRefused) {
  start();
  auto client = this->client();
  int pipe[2];
  ASSERT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
  const Fd writing(pipe[1]);
  send(client, accept_wish(1), Fd(pipe[0]));
  EXPECT_THAT(reply(client).answer.what.view(), HasSubstr("not a TCP socket"));
  send(client, accept_wish(2), Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  EXPECT_THAT(reply(client).answer.what.view(), HasSubstr("not a TCP socket"));
  send(client, accept_wish(3), Fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)));
  EXPECT_THAT(reply(client).answer.what.view(), HasSubstr("not a TCP socket"));
  send(client, accept_wish(4), Fd(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  EXPECT_THAT(reply(client).answer.what.view(), HasSubstr("not connected"));
  Fd listening(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::listen(listening.get(), 1), 0);
  send(client, connect_wish(5), std::move(listening));
  EXPECT_THAT(reply(client).answer.what.view(), HasSubstr("not connected"));
  for (const std::string_view context : {"", "carrier", "no such", "edge "}) {
    auto [ours, theirs] = tcp_pair();
    auto wish = accept_wish();
    wish.context = context;
    send(client, wish, std::move(ours));
    EXPECT_THAT(reply(client).answer.what.view(), HasSubstr("is no [[listen]]")) << context;
  }
  auto [ours, theirs] = tcp_pair();
  auto wish = connect_wish();
  wish.host = "";
  send(client, wish, std::move(ours));
  EXPECT_THAT(reply(client).answer.what.view(), HasSubstr("no name to verify"));
}

TEST_F(HandoffHostileTest, ClientThatGoesTakesItsHandshakesAlong) {
  start();
  std::vector<Fd> peers;
  {
    auto client = this->client();
    for (std::uint64_t number = 0; number < 20; ++number) {
      auto [ours, theirs] = tcp_pair();
      send(client, accept_wish(number), std::move(ours));
      peers.push_back(std::move(theirs));
    }
    EXPECT_TRUE(eventually([&] { return ask([](auto& service) { return service.in_progress(); }) == 20; }));
  }
  EXPECT_TRUE(eventually([&] { return ask([](auto& service) { return service.in_progress(); }) == 0; }));
  EXPECT_EQ(ask([](auto& service) { return service.clients(); }), 0u);
  for (const Fd& each : peers) {
    pollfd wait{each.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&wait, 1, 15'000), 1) << "the connection was ended";
  }
  expect_serves();
}

TEST_F(HandoffHostileTest, RelayOutlivesTheClientThatAsked) {
  config_.record_layer = config::RecordLayer::kRelay;
  start();
  std::unique_ptr<TlsStream> peer;
  handoff::Reply kept;
  {
    auto client = this->client();
    auto [ours, theirs] = tcp_pair();
    send(client, accept_wish(), std::move(ours));
    peer = this->peer(std::move(theirs));
    kept = reply(client);
  }
  EXPECT_TRUE(eventually([&] { return ask([](auto& service) { return service.clients(); }) == 0; }));
  expect_good(kept, *peer);
}

TEST_F(HandoffHostileTest, ClientThatReadsNoAnswersIsReadNoMore) {
  limits_.requests_per_client = 8;
  start();
  auto client = this->client();
  auto wish = accept_wish();
  wish.context = "no such";
  std::uint64_t sent = 0;
  // Until neither the service nor the socket takes any more.
  for (int patience = 0; patience < 20 && sent < 3000;) {
    Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    wish.number = sent;
    const auto outcome = client.send(wish, socket);
    ASSERT_TRUE(outcome) << outcome.error().what;
    if (*outcome == PacketSent::kSent) {
      ++sent;
      patience = 0;
    } else {
      ++patience;
      pause_briefly();
    }
  }
  EXPECT_LT(sent, 3000u) << "the queue is bounded";
  expect_serves();
  for (std::uint64_t number = 0; number < sent; ++number) EXPECT_EQ(reply(client).answer.number, number);
}

TEST_F(HandoffHostileTest, HandshakesOfAllTogetherAreBounded) {
  config_.limits.handshakes = 4;
  config_.limits.handshake = milliseconds(400);
  start();
  auto first = this->client();
  auto second = this->client();
  std::vector<Fd> peers;
  for (std::uint64_t number = 0; number < 12; ++number) {
    auto [ours, theirs] = tcp_pair();
    send(number % 2 == 0 ? first : second, accept_wish(number), std::move(ours));
    peers.push_back(std::move(theirs));
    EXPECT_LE(ask([](auto& service) { return service.in_progress(); }), 4u);
  }
  std::set<std::uint64_t> answered;
  for (int i = 0; i < 6; ++i) {
    answered.insert(reply(first).answer.number);
    EXPECT_LE(ask([](auto& service) { return service.in_progress(); }), 4u);
    answered.insert(reply(second).answer.number);
  }
  EXPECT_EQ(answered.size(), 12u) << "those that had to wait too";
}

TEST_F(HandoffHostileTest, ThousandsOfRequestsAreAllAnswered) {
  start();
  auto client = this->client();
  std::set<std::uint64_t> answered;
  auto wish = accept_wish();
  wish.context = "no such";
  for (std::uint64_t number = 0; answered.size() < 5000;) {
    Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    wish.number = number;
    if (number < 5000) {
      const auto sent = client.send(wish, socket);
      ASSERT_TRUE(sent) << sent.error().what;
      if (*sent == PacketSent::kSent) ++number;
    }
    const auto got = client.receive();
    ASSERT_TRUE(got) << got.error().what;
    if (*got) answered.insert((*got)->answer.number);
  }
  EXPECT_EQ(*answered.rbegin(), 4999u);
}

TEST_F(HandoffHostileTest, ClientsAreBounded) {
  limits_.clients = 3;
  start();
  std::vector<handoff::Client> clients;
  for (int i = 0; i < 6; ++i) clients.push_back(client());  // the last three in the backlog
  EXPECT_TRUE(eventually([&] { return ask([](auto& service) { return service.clients(); }) == 3; }));
  clients.erase(clients.begin(), clients.begin() + 3);
  EXPECT_TRUE(eventually([&] { return ask([](auto& service) { return service.clients(); }) == 3; }));
  clients.clear();
  EXPECT_TRUE(eventually([&] { return ask([](auto& service) { return service.clients(); }) == 0; }));
  expect_serves();
}

TEST_F(HandoffHostileTest, OtherUsersAreTurnedAway) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to be another user";
  start();
  std::filesystem::permissions(folder_.path(), std::filesystem::perms::all);
  ASSERT_EQ(::chmod(path_.c_str(), 0666), 0);  // as if somebody had opened it
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setgid(65534) != 0 || ::setuid(65534) != 0) ::_exit(2);
    const RawClient other(path_);
    ::_exit(other.closed() ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

}  // namespace
}  // namespace ktrunk::test
