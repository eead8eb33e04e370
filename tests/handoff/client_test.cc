// The client against a service that does what it likes.
#include "handoff/client.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <thread>

#include "support/process.h"

namespace ktrunk::handoff {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLong{15'000};

class HandoffClientTest : public testing::Test {
 protected:
  void SetUp() override {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.c_str(), path_.size());
    listening_ = Fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(listening_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(::listen(listening_.get(), 4), 0);
    auto client = Client::connect(path_);
    ASSERT_TRUE(client) << client.error().what;
    client_.emplace(std::move(*client));
    service_ = Fd(::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    ASSERT_TRUE(service_.valid());
  }

  // Something to hand over: the client does not look at what it is.
  [[nodiscard]] static Fd something() { return Fd(::open("/dev/null", O_RDWR | O_CLOEXEC)); }
  [[nodiscard]] static Answer done(std::uint64_t number) {
    Answer answer;
    answer.number = number;
    answer.outcome = Outcome::kDone;
    return answer;
  }
  void say(const void* head, std::size_t head_bytes, const void* body, std::size_t body_bytes, const Fd& descriptor) {
    const auto sent = send_packet(service_.get(), {static_cast<const std::byte*>(head), head_bytes},
                                  {static_cast<const std::byte*>(body), body_bytes}, descriptor);
    ASSERT_TRUE(sent && *sent == PacketSent::kSent);
  }
  void answer(const Answer& answer, const Fd& descriptor) {
    const Header header = header_of(answer);
    say(&header, sizeof header, &answer, sizeof answer, descriptor);
  }
  // The request that the client sent, and its descriptor.
  [[nodiscard]] std::optional<std::pair<Request, Fd>> request() {
    Header header;
    std::array<std::byte, kMaxBodyBytes> body;
    auto receipt = receive_packet(service_.get(), std::as_writable_bytes(std::span(&header, 1)), body);
    if (!receipt || receipt->outcome != PacketReceipt::Outcome::kPacket || receipt->descriptors != 1) return {};
    const auto parsed = parse<Request>(header, body, receipt->bytes);
    if (!parsed) return {};
    return std::pair(*parsed, std::move(receipt->descriptor));
  }

  test::TempFolder folder_;
  std::string path_ = folder_.file("service.sock");
  Fd listening_;
  Fd service_;
  std::optional<Client> client_;
};

TEST_F(HandoffClientTest, SaysWhatIsWanted) {
  Fd socket = something();
  const auto sent = client_->send(
      {.number = 42, .role = Role::kConnect, .relay = Relay::kAllowed, .context = "carrier", .host = "carrier.test"},
      socket);
  ASSERT_TRUE(sent && *sent == PacketSent::kSent);
  EXPECT_FALSE(socket.valid()) << "it is the service's now";
  const auto got = request();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->first.number, 42u);
  EXPECT_EQ(got->first.role, Role::kConnect);
  EXPECT_EQ(got->first.relay, Relay::kAllowed);
  EXPECT_EQ(got->first.context.view(), "carrier");
  EXPECT_EQ(got->first.host.view(), "carrier.test");
}

TEST_F(HandoffClientTest, RefusesNamesThatDoNotFit) {
  Fd socket = something();
  EXPECT_FALSE(client_->send({.context = std::string(128, 'x')}, socket));
  EXPECT_FALSE(client_->send({.context = "x", .host = std::string(256, 'x')}, socket));
  EXPECT_FALSE(client_->send({.context = std::string_view("a\0b", 3)}, socket));
  EXPECT_TRUE(socket.valid()) << "nothing was sent";
  EXPECT_TRUE(client_->send({.context = std::string(127, 'x')}, socket));
}

TEST_F(HandoffClientTest, BrokenAnswersAreErrors) {
  const Answer good = done(1);
  const Header header = header_of(good);
  const auto refused = [&] {
    const auto reply = client_->receive();
    return !reply;
  };
  answer(good, Fd());  // done, without a connection
  EXPECT_TRUE(refused());
  Answer failed = good;
  failed.outcome = Outcome::kFailed;
  answer(failed, something());  // failed, with one
  EXPECT_TRUE(refused());
  for (std::size_t bytes = 0; bytes < sizeof good; bytes += 97) {
    say(&header, sizeof header, &good, bytes, something());
    EXPECT_TRUE(refused()) << bytes;
  }
  const std::array<std::byte, kMaxBodyBytes + 100> garbage{};
  say(&header, sizeof header, garbage.data(), garbage.size(), Fd());
  EXPECT_TRUE(refused());
  say(&header, 3, garbage.data(), 0, Fd());
  EXPECT_TRUE(refused());
  const auto nothing = client_->receive();
  EXPECT_TRUE(nothing && !*nothing) << "something is left over";
}

TEST_F(HandoffClientTest, ServiceThatGoesIsAnError) {
  service_.reset();
  EXPECT_FALSE(client_->receive());
  Fd socket = something();
  EXPECT_FALSE(client_->send({.context = "x"}, socket));
  EXPECT_TRUE(socket.valid());
  const auto reply = client_->secure({.context = "x"}, something(), kLong);
  EXPECT_FALSE(reply);
}

TEST_F(HandoffClientTest, SecureWaitsForItsOwnAnswer) {
  std::jthread service([this] {
    pollfd wait{service_.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&wait, 1, 15'000), 1);
    const auto asked = request();
    ASSERT_TRUE(asked);
    for (const std::uint64_t number : {1u, 2u, 3u, 9u}) answer(done(number), something());
  });
  const auto reply = client_->secure({.number = 9, .context = "x"}, something(), kLong);
  ASSERT_TRUE(reply) << reply.error().what;
  EXPECT_EQ(reply->answer.number, 9u);
  EXPECT_TRUE(reply->connection.valid());
  for (const std::uint64_t number : {1u, 2u, 3u}) {
    const auto kept = client_->receive();
    ASSERT_TRUE(kept && *kept);
    EXPECT_EQ((*kept)->answer.number, number);
  }
}

TEST_F(HandoffClientTest, SecureGivesUpInTime) {
  const auto reply = client_->secure({.number = 1, .context = "x"}, something(), milliseconds(50));
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ETIMEDOUT);
}

TEST_F(HandoffClientTest, FullChannelKeepsTheSocket) {
  Fd socket;
  for (int i = 0; i < 10'000; ++i) {
    socket = something();
    const auto sent = client_->send({.number = static_cast<std::uint64_t>(i), .context = "x"}, socket);
    ASSERT_TRUE(sent) << sent.error().what;
    if (*sent == PacketSent::kWouldBlock) break;
  }
  EXPECT_TRUE(socket.valid());
}

TEST(HandoffClient, SaysWhenThereIsNoService) {
  test::TempFolder folder;
  EXPECT_FALSE(Client::connect(folder.file("none.sock")));
  EXPECT_FALSE(Client::connect("/" + std::string(200, 'x')));
}

}  // namespace
}  // namespace ktrunk::handoff
