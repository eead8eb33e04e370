// OPTIONS of our own: their form, and whose answers are believed.
#include "sip/options_ping.h"

#include <gtest/gtest.h>

#include "sip/proxy_world.h"

namespace ktrunk::sip::testing {
namespace {

class OptionsPingTest : public ::testing::Test {
 protected:
  std::string answer(const std::string& request, int status = 200) {
    return response_to(request, status, "peer", "<sip:peer@192.0.2.9>");
  }
  std::optional<PingSubject> answered(const std::string& response, const TokenKey& key) {
    Message message;
    message.parse(response, Carrier::kStream);
    return ping_answered(message, key);
  }
  World world_;
  const TokenKey key_ = make_key();
};

TEST_F(OptionsPingTest, IsARequestThatEveryServerUnderstands) {
  const std::string request = options_ping({.trunk = TrunkId{0}}, world_.carrier, "edge.example.net:5061", 7, key_);
  Message message;
  message.parse(request, Carrier::kStream);
  EXPECT_TRUE(message.is_request());
  EXPECT_EQ(message.method(), Method::kOptions);
  EXPECT_EQ(message.request_uri(), "sip:203.0.113.5:5061;transport=tls");
  EXPECT_EQ(message.defect().status, 0);
  EXPECT_EQ(headers(request, "Max-Forwards"), std::vector<std::string>{"70"});
  // Every other proxy may be asked so: ktrunk takes it too.
  EXPECT_NE(verdict(world_.decide(request, world_.six)), 400);
  EXPECT_NE(request, options_ping({.trunk = TrunkId{0}}, world_.carrier, "edge.example.net:5061", 8, key_));
}

TEST_F(OptionsPingTest, AnswersNameWhatWasAsked) {
  const std::string stream = options_ping({.trunk = TrunkId{2}}, world_.six, "[2001:db8::10]:5060", 1, key_);
  auto subject = answered(answer(stream), key_);
  ASSERT_TRUE(subject);
  EXPECT_EQ(subject->trunk, TrunkId{2});
  EXPECT_EQ(subject->target, PingSubject::kConnection);
  const std::string datagram =
      options_ping({.trunk = TrunkId{1023}, .target = 15}, world_.pbx, "192.0.2.10:5060", ~std::uint64_t{0}, key_);
  subject = answered(answer(datagram, 404), key_);
  ASSERT_TRUE(subject);
  EXPECT_EQ(subject->trunk, TrunkId{1023});
  EXPECT_EQ(subject->target, 15);
  // Nor does the proxy take it for an answer that goes on.
  EXPECT_EQ(verdict(world_.decide(answer(datagram), world_.pbx)), kDropped);
}

TEST_F(OptionsPingTest, NothingElseIsBelieved) {
  const std::string request = options_ping({.trunk = TrunkId{1}, .target = 0}, world_.pbx, "192.0.2.10:5060", 5, key_);
  EXPECT_FALSE(answered(request, key_));  // a request
  const std::string response = answer(request);
  TokenKey other = key_;
  other.bytes[0] ^= 1;
  EXPECT_FALSE(answered(response, other));
  // Every octet of the branch counts.
  const std::size_t begin = response.find("z9hG4bK");
  const std::size_t end = response.find_first_of(";\r", begin);
  ASSERT_NE(begin, std::string::npos);
  for (std::size_t i = begin; i < end; ++i) {
    std::string forged = response;
    forged[i] = forged[i] == 'a' ? 'b' : 'a';
    EXPECT_FALSE(answered(forged, key_)) << forged;
    std::string cut = response;
    cut.erase(i, end - i);
    EXPECT_FALSE(answered(cut, key_)) << cut;
  }
  EXPECT_FALSE(answered("SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP a;branch=z9hG4bKping.\r\n\r\n", key_));
  EXPECT_FALSE(answered("SIP/2.0 200 OK\r\n\r\n", key_));
}

TEST_F(OptionsPingTest, WhoSaysThatItDoesNotServeIsNotAlive) {
  for (const int status : {200, 202, 302, 400, 403, 404, 405, 481, 483, 500, 501, 603}) EXPECT_TRUE(is_alive(status));
  for (const int status : {0, 100, 183, 408, 503, 504}) EXPECT_FALSE(is_alive(status));
}

}  // namespace
}  // namespace ktrunk::sip::testing
