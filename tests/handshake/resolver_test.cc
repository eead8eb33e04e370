// The resolver against name servers that answer, lie, refuse and keep silent.
#include "handshake/resolver.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <functional>
#include <optional>
#include <set>
#include <string>

#include "support/tls_peer.h"

namespace ktrunk::test {
namespace {

using handshake::ResolveError;
using handshake::Resolver;

// A name server on UDP in the test's own event loop. Its reply is the question with a header and records of choice.
class FakeNameServer {
 public:
  enum class Mode { kAnswer, kNoSuchName, kServerFailure, kSilent, kGarbage };

  explicit FakeNameServer(EventLoop& loop) : socket_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    EXPECT_EQ(::bind(socket_.get(), address_.data(), address_.size()), 0);
    watch_ = std::move(*loop.watch(socket_.get(), Interest::kRead, [this](Ready) { serve(); }));
  }
  [[nodiscard]] const Address& address() const { return address_; }
  Mode mode = Mode::kAnswer;
  int questions = 0;

 private:
  void serve() {
    char buffer[512];
    sockaddr_storage from = {};
    socklen_t length = sizeof from;
    const ssize_t got =
        ::recvfrom(socket_.get(), buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&from), &length);
    if (got < 12) return;
    ++questions;
    if (mode == Mode::kSilent) return;
    std::string reply(buffer, static_cast<std::size_t>(got));
    std::size_t end = 12;
    while (end < reply.size() && reply[end] != 0) end += 1 + static_cast<unsigned char>(reply[end]);
    const bool v6 = reply.at(end + 2) == 28;
    reply.resize(end + 5);
    reply[2] = '\x81';  // a response
    reply[3] = static_cast<char>(0x80 | (mode == Mode::kNoSuchName ? 3 : mode == Mode::kServerFailure ? 2 : 0));
    for (const std::size_t count : {6, 8, 10}) reply[count] = reply[count + 1] = 0;
    if (mode == Mode::kAnswer) {
      reply[7] = 2;
      for (char last = 1; last <= 2; ++last) {
        reply +=
            std::string("\xc0\x0c\x00", 3) + (v6 ? '\x1c' : '\x01') + std::string("\x00\x01\x00\x00\x00\x3c\x00", 7);
        reply += v6 ? '\x10' : '\x04';
        reply += v6 ? std::string("\x20\x01\x0d\xb8", 4) + std::string(11, '\0') : std::string("\xc0\x00\x02", 3);
        reply += last;
      }
    }
    if (mode == Mode::kGarbage) reply.replace(12, std::string::npos, std::string(40, '\xff'));
    (void)::sendto(socket_.get(), reply.data(), reply.size(), 0, reinterpret_cast<const sockaddr*>(&from), length);
  }

  Address address_ = free_address();
  Fd socket_;
  EventLoop::Watch watch_;
};

class FakeNameServerTest : public testing::Test {
 protected:
  FakeNameServerTest()
      : loop_(std::move(*EventLoop::create())), server_(*loop_), resolver_(*loop_, {server_.address()}) {}

  handshake::Resolved resolve(const std::string& name) {
    std::optional<handshake::Resolved> answer;
    const auto query = resolver_.resolve({config::Transport::kTls, name, 5061},
                                         [&](const handshake::Resolved& result) { answer = result; });
    for (int i = 0; i < 3000 && !answer; ++i) EXPECT_TRUE(loop_->turn(milliseconds(20)));
    EXPECT_TRUE(answer.has_value());
    return answer.value_or(std::unexpected(ResolveError{}));
  }
  std::unique_ptr<EventLoop> loop_;
  FakeNameServer server_;
  Resolver resolver_;
};

TEST_F(FakeNameServerTest, GivesAddressesOfBothFamilies) {
  const auto result = resolve("sip.test");
  ASSERT_TRUE(result) << result.error().what;
  std::set<std::string> texts;
  for (const Address& address : *result) texts.insert(address.text());
  EXPECT_EQ(texts,
            (std::set<std::string>{"192.0.2.1:5061", "192.0.2.2:5061", "[2001:db8::1]:5061", "[2001:db8::2]:5061"}));
  EXPECT_GE(server_.questions, 2);
}

TEST_F(FakeNameServerTest, TellsANameThatIsNotThereFromAServerThatFails) {
  server_.mode = FakeNameServer::Mode::kNoSuchName;
  auto result = resolve("nobody.test");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind, ResolveError::Kind::kNoSuchName) << result.error().what;
  server_.mode = FakeNameServer::Mode::kServerFailure;
  result = resolve("nobody.test");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind, ResolveError::Kind::kPassing) << result.error().what;
  server_.mode = FakeNameServer::Mode::kAnswer;
  EXPECT_TRUE(resolve("nobody.test"));
}

TEST_F(FakeNameServerTest, GarbageIsNoAnswer) {
  server_.mode = FakeNameServer::Mode::kGarbage;
  EXPECT_FALSE(resolve("sip.test"));
}

TEST_F(FakeNameServerTest, ASilentServerHoldsUpNothingElse) {
  server_.mode = FakeNameServer::Mode::kSilent;
  bool answered = false;
  const auto slow =
      resolver_.resolve({config::Transport::kTls, "slow.test", 1}, [&](const handshake::Resolved& result) {
        answered = true;
        ASSERT_FALSE(result);
        EXPECT_EQ(result.error().kind, ResolveError::Kind::kPassing) << result.error().what;
      });
  EXPECT_TRUE(resolve("192.0.2.55"));
  EXPECT_FALSE(answered);
  for (int i = 0; i < 3000 && !answered; ++i) ASSERT_TRUE(loop_->turn(milliseconds(20)));
  EXPECT_TRUE(answered);
}

}  // namespace
}  // namespace ktrunk::test
