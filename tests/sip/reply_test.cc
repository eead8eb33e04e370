// build_reply: RFC 3261 8.2.6.
#include <gtest/gtest.h>

#include "sip/proxy_world.h"

namespace ktrunk::sip::testing {
namespace {

const Reply kNotFound{404, "No Route", {}};

TEST(ReplyTest, CopiesWhatItMust) {
  World world;
  const std::string text = invite("v: SIP/2.0/TCP second,\n SIP/2.0/UDP third\n");
  const std::string reply = world.reply_to(text, world.carrier, kNotFound);
  EXPECT_TRUE(reply.starts_with("SIP/2.0 404 No Route\r\n"));
  EXPECT_EQ(headers(reply, "Via"),
            (std::vector<std::string>{"SIP/2.0/UDP 192.0.2.77;branch=z9hG4bKabc1;received=203.0.113.5",
                                      "SIP/2.0/TCP second,  SIP/2.0/UDP third"}));
  EXPECT_EQ(headers(reply, "From"), headers(text, "From"));
  EXPECT_EQ(headers(reply, "Call-ID"), headers(text, "Call-ID"));
  EXPECT_EQ(headers(reply, "CSeq"), headers(text, "CSeq"));
  ASSERT_EQ(headers(reply, "To").size(), 1u);
  EXPECT_TRUE(headers(reply, "To")[0].starts_with(headers(text, "To")[0] + ";tag="));
  EXPECT_TRUE(reply.ends_with("Content-Length: 0\r\n\r\n"));
  EXPECT_EQ(reply, world.reply_to(text, world.carrier, kNotFound)) << "a retransmission gets the same tag";
}

TEST(ReplyTest, TheTopViaAloneOfSeveralOnItsLineIsAmended) {
  World world;
  std::string text = invite();
  text.replace(text.find(";branch=z9hG4bKabc1"), 19, ";rport;branch=z9hG4bKabc1 , SIP/2.0/UDP second");
  EXPECT_EQ(headers(world.reply_to(text, world.carrier, kNotFound), "Via")[0],
            "SIP/2.0/UDP 192.0.2.77;rport=5061;branch=z9hG4bKabc1;received=203.0.113.5 , SIP/2.0/UDP second");
}

TEST(ReplyTest, TagsAreNotDoubledAndTryingHasNone) {
  World world;
  std::string text = invite("Timestamp: 12.5\n");
  const std::string trying = world.reply_to(text, world.pbx, {100, "Trying", {}});
  EXPECT_EQ(headers(trying, "To"), headers(text, "To"));
  EXPECT_EQ(headers(trying, "Timestamp"), std::vector<std::string>{"12.5"});
  text.replace(text.find("example.org>\r\nCall-ID"), 12, "example.org>;TAG=x");
  EXPECT_EQ(headers(world.reply_to(text, world.pbx, kNotFound), "To"), headers(text, "To"));
}

TEST(ReplyTest, ExtensionsAndExtraHeaders) {
  World world;
  const std::string text = invite("Proxy-Require: foo, bar\n");
  EXPECT_EQ(headers(world.reply_to(text, world.pbx, {420, "Bad Extension", {}}), "Unsupported"),
            std::vector<std::string>{"foo, bar"});
  const std::string reply = world.reply_to(text, world.pbx, {503, "Service Unavailable", "Retry-After: 5\r\n"});
  EXPECT_EQ(headers(reply, "Retry-After"), std::vector<std::string>{"5"});
}

TEST(ReplyTest, NoReplyToThese) {
  World world;
  std::string ack = invite();
  ack.replace(0, 6, "ACK");
  for (const std::string& text : {ack, response_to(invite(), 200, "t", ""), std::string("garbage\r\n\r\n"),
                                  std::string(), std::string("INVITE sip:a SIP/2.0\r\nTo: x\r\n\r\n")})
    EXPECT_EQ(world.reply_to(text, world.pbx, kNotFound), "") << text;
}

// The ACK to an answer of ours other than 2xx ends with us, whatever the route would do with it by now.
TEST(ReplyTest, TheAckToItIsAbsorbed) {
  World world;
  for (const std::string& text : {invite(), crlf(R"(
INVITE sip:+4930123@carrier.example.org SIP/2.0
Via: SIP/2.0/UDP 192.0.2.77
From: <sip:alice@pbx.example.org>;tag=a1
To: <sip:+4930123@carrier.example.org>
Call-ID: old
CSeq: 10 INVITE
Content-Length: 0

)")}) {
    const std::string reply = world.reply_to(text, world.pbx, {503, "Trunk At Its Limit", {}});
    std::string ack = text;
    ack.replace(0, 6, "ACK").replace(ack.find("10 INVITE"), 9, "10 ACK");
    const std::string to = headers(text, "To")[0];
    const std::string tagged = headers(reply, "To")[0];
    ASSERT_NE(tagged.find(";tag="), std::string::npos);
    ack.replace(ack.find(to), to.size(), tagged);
    const auto is_ours = [&](const std::string& message) {
      const Decision decision = world.decide(message, world.pbx);
      const auto* drop = std::get_if<Drop>(&decision);
      return drop != nullptr && std::string_view(drop->why) == "an ACK to an answer of ours";
    };
    EXPECT_TRUE(is_ours(ack)) << ack;
    std::string other = ack;  // to an answer of the peer's
    other[other.find(tagged) + tagged.size() - 1] ^= 1;
    EXPECT_FALSE(is_ours(other)) << other;
    std::string bye = ack;
    bye.replace(0, 3, "BYE").replace(bye.find("10 ACK"), 6, "10 BYE");
    EXPECT_FALSE(is_ours(bye)) << bye;
  }
}

// Nothing a stranger writes may begin a line of its own in our reply.
TEST(ReplyTest, NothingIsInjected) {
  World world;
  const std::string text =
      "INVITE sip:a SIP/2.0\nVia: SIP/2.0/TLS h;branch=z9hG4bK1\nFrom: a\n b\rContact: x\nTo: \"open\nCall-ID: "
      "1\rX-Evil: 1\nCSeq: 1 INVITE\n\n";
  const std::string reply = world.reply_to(text, world.stranger, {400, "Bad", {}});
  std::size_t ends = 0;
  for (std::size_t i = 0; i < reply.size(); ++i) {
    if (reply[i] == '\r') {
      ASSERT_EQ(reply[i + 1], '\n');
      ++ends;
    }
    if (reply[i] == '\n') {
      ASSERT_EQ(reply[i - 1], '\r');
    }
  }
  EXPECT_EQ(ends, 8u) << reply;
}

TEST(ReplyTest, OptionsAnswerIsWellFormed) {
  World world;
  const std::string text = crlf(
      "OPTIONS sip:edge.example.net SIP/2.0\nVia: SIP/2.0/TLS h;branch=z9hG4bK1\nFrom: <sip:a@b>;tag=1\nTo: <sip:c@d>\n"
      "Call-ID: c\nCSeq: 1 OPTIONS\nContent-Length: 0\n\n");
  const Decision decision = world.decide(text, world.stranger);
  ASSERT_EQ(verdict(decision), 200);
  const std::string reply = world.reply_to(text, world.stranger, std::get<Reply>(decision));
  EXPECT_EQ(headers(reply, "Supported"), std::vector<std::string>{""});
  EXPECT_EQ(headers(reply, "Accept").size(), 1u);
  Message message;
  message.parse(reply, Carrier::kStream);
  EXPECT_EQ(message.defect().status, 0);
}

}  // namespace
}  // namespace ktrunk::sip::testing
