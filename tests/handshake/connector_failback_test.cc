// Trunks with several targets: away from one that is not there, and back to it.
#include "process_fixture.h"

namespace ktrunk::test {
namespace {

class ConnectorFailbackTest : public HandshakeProcessTest {
 protected:
  static std::string tcp(const Address& address) { return fmt::format("\"tcp:{}\"", address.text()); }
  [[nodiscard]] std::string two(std::string_view more = "failback = \"1s\"\n") const {
    return base() + trunk(tcp(first_) + ", " + tcp(second_.address()), more);
  }
  static Handed must(std::optional<Handed> handed) {
    EXPECT_TRUE(handed.has_value());
    return handed ? std::move(*handed) : Handed{};
  }
  const Address first_ = free_address();
  TcpListener second_ = TcpListener::bind(free_address()).value();
};

TEST_F(ConnectorFailbackTest, TheBetterTargetTakesThePlaceWhenItIsBack) {
  FakeSupervisor supervisor(two());
  supervisor.run();
  const auto second_socket = second_.accept();
  Handed old = must(supervisor.established());
  EXPECT_EQ(old.message.info.peer, second_.address());
  // It is tried, in vain, and nothing happens to the other.
  ASSERT_TRUE(eventually([&] { return supervisor.region().handshake().failed.read() >= 3; }));
  ASSERT_TRUE(send_packet(old.fd, "still up"));
  EXPECT_FALSE(second_.accept(milliseconds(100)));
  const auto first = TcpListener::bind(first_);
  ASSERT_TRUE(first);
  const auto first_socket = first->accept();
  ASSERT_TRUE(first_socket);
  const Handed now = must(supervisor.established());
  EXPECT_EQ(now.message.info.peer, first_);
  EXPECT_EQ(now.message.replaces, old.id);
  old.fd.reset();
  supervisor.gone(old);
  EXPECT_FALSE(first->accept(milliseconds(1500)));  // there is nothing better
  EXPECT_FALSE(second_.accept(milliseconds(100)));
}

TEST_F(ConnectorFailbackTest, NeverMeansNever) {
  FakeSupervisor supervisor(two("failback = \"0s\"\n"));
  supervisor.run();
  const auto socket = second_.accept();
  const Handed handed = must(supervisor.established());
  const auto first = TcpListener::bind(first_);
  ASSERT_TRUE(first);
  EXPECT_FALSE(first->accept(milliseconds(1500)));
}

TEST_F(ConnectorFailbackTest, LostMeanwhileItIsMadeAgainAnywhere) {
  FakeSupervisor supervisor(two());
  supervisor.timing.connector = {.first_wait = milliseconds(50), .longest_wait = milliseconds(200)};
  supervisor.run();
  for (int i = 0; i < 3; ++i) {
    const auto socket = second_.accept();
    Handed handed = must(supervisor.established());
    EXPECT_FALSE(handed.message.replaces.valid());
    if (i == 1) {
      ASSERT_TRUE(eventually([&] { return supervisor.region().handshake().failed.read() >= 4; }));
    }
    handed.fd.reset();
    supervisor.gone(handed);
  }
}

TEST_F(ConnectorFailbackTest, FromAPeerThatAnswersNothingToTheNext) {
  const auto first = TcpListener::bind(first_);
  ASSERT_TRUE(first);
  FakeSupervisor supervisor(two());
  supervisor.run();
  auto socket = first->accept();
  Handed handed = must(supervisor.established());
  EXPECT_EQ(handed.message.info.peer, first_);
  handed.fd.reset();
  supervisor.gone(handed, ipc::Gone::Again::kElsewhere);
  const auto second_socket = second_.accept();
  const Handed next = must(supervisor.established());
  EXPECT_EQ(next.message.info.peer, second_.address());
  // And back, after twice the time.
  const auto back = first->accept();
  ASSERT_TRUE(back);
  EXPECT_EQ(must(supervisor.established()).message.replaces, next.id);
}

}  // namespace
}  // namespace ktrunk::test
