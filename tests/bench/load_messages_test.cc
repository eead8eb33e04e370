// What the load generator writes is SIP, of the length that was asked for; and whatever comes back, it writes nothing
// beyond its room.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "bench/io/stream.h"
#include "bench/load/callee.h"
#include "bench/load/message_templates.h"
#include "support/sip_peer.h"

namespace ktrunk::bench {
namespace {

using test::SipMessage;
using testing::ElementsAre;
using testing::HasSubstr;

MessageShape shape(std::size_t bytes) {
  return {.uri = "sip:callee@bench.invalid", .sent_by = "127.0.0.1:40000", .run = "run", .message_bytes = bytes};
}

std::string request(Method method, std::size_t bytes, Tag tag = {.slot = 0xabcdef, .generation = 7}) {
  const RequestTemplate made(shape(bytes), method);
  std::string text(made.bytes(), '\0');
  made.write(text.data(), tag);
  return text;
}

std::string response(const std::string& text, int status, std::size_t padded) {
  std::string to(20'000, '\0');
  to.resize(write_response(to.data(), to.size(), text, status, padded));
  return to;
}

// As a proxy passes a request on.
std::string through_proxies(std::string text, const std::vector<std::string>& record_routes) {
  std::string added = "Via: SIP/2.0/TLS proxy.test;branch=z9hG4bKproxy\r\n";
  for (const std::string& value : record_routes) added += "Record-Route: " + value + "\r\n";
  return text.insert(text.find("\r\n") + 2, added);
}

TEST(RequestTemplate, HasTheLengthThatWasAskedFor) {
  for (const Method method : {Method::kMessage, Method::kOptions, Method::kInvite}) {
    for (std::size_t bytes = 500; bytes < 2'000; ++bytes) {
      const std::string text = request(method, bytes);
      ASSERT_EQ(text.size(), bytes);
      const auto parsed = SipMessage::parse(text);
      ASSERT_TRUE(parsed) << parsed.error().what;
      ASSERT_EQ(std::stoul(parsed->header("Content-Length")), parsed->body.size());
    }
  }
}

TEST(RequestTemplate, IsNeverShorterThanItsHead) {
  const auto parsed = SipMessage::parse(request(Method::kOptions, 0));
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->body, "");
  EXPECT_EQ(parsed->method(), "OPTIONS");
}

TEST(RequestTemplate, TwoTransactionsDifferInBranchTagAndCallId) {
  const auto one = SipMessage::parse(request(Method::kMessage, 600, {.slot = 1, .generation = 1}));
  const auto two = SipMessage::parse(request(Method::kMessage, 600, {.slot = 1, .generation = 2}));
  ASSERT_TRUE(one && two);
  for (const char* header : {"Via", "From", "Call-ID"}) EXPECT_NE(one->header(header), two->header(header));
  EXPECT_EQ(one->header("To"), two->header("To"));
}

TEST(Tag, IsFoundAgain) {
  for (const Tag tag : {Tag{0, 0, Method::kInvite}, Tag{0xffffffff, 0xffffffff, Method::kInvite},
                        Tag{0x01234567, 0x89abcdef, Method::kInvite}}) {
    const auto found = Tag::find(request(Method::kInvite, 600, tag));
    ASSERT_TRUE(found);
    EXPECT_EQ(found->slot, tag.slot);
    EXPECT_EQ(found->generation, tag.generation);
    EXPECT_EQ(found->method, tag.method);
  }
}

TEST(Tag, IsNotFoundInAnythingElse) {
  const std::string text = request(Method::kMessage, 600);
  const std::size_t end = text.find(Tag::kMark) + Tag::kMark.size() + Tag::kDigits + 1;
  for (std::size_t cut = 0; cut < end; ++cut) EXPECT_FALSE(Tag::find(text.substr(0, cut))) << cut;
  std::string broken = text;
  broken[text.find(Tag::kMark) + Tag::kMark.size() + 3] = 'x';
  EXPECT_FALSE(Tag::find(broken));
}

TEST(Response, RepeatsWhatItMust) {
  const std::string invite = through_proxies(request(Method::kInvite, 900), {"<sip:a@p1.test;lr>"});
  const auto parsed = SipMessage::parse(response(invite, 200, 900));
  ASSERT_TRUE(parsed) << parsed.error().what;
  const auto asked = SipMessage::parse(invite);
  ASSERT_TRUE(asked);
  EXPECT_EQ(parsed->status(), 200);
  for (const char* header : {"Via", "Record-Route"}) EXPECT_EQ(parsed->all(header), asked->all(header));
  for (const char* header : {"From", "Call-ID", "CSeq"}) EXPECT_EQ(parsed->header(header), asked->header(header));
  EXPECT_EQ(parsed->header("To"), asked->header("To") + ";tag=ktrunk-bench");
  EXPECT_EQ(parsed->text().size(), 900u);
  EXPECT_EQ(parsed->body.size(), std::stoul(parsed->header("Content-Length")));
}

TEST(Response, TryingHasNoDialog) {
  const auto parsed =
      SipMessage::parse(response(through_proxies(request(Method::kInvite, 600), {"<sip:a@p1.test;lr>"}), 100, 0));
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->status(), 100);
  EXPECT_EQ(parsed->header("Record-Route"), "");
  EXPECT_EQ(parsed->header("Contact"), "");
  EXPECT_THAT(parsed->header("To"), testing::Not(HasSubstr("tag=")));
}

TEST(Response, StaysWithinItsRoom) {
  const std::string text = request(Method::kMessage, 700);
  const std::size_t needed = response(text, 200, 0).size();
  for (std::size_t room = 0; room <= needed + 2; ++room) {
    std::string to(needed + 16, '\x7f');
    const std::size_t bytes = write_response(to.data(), room, text, 200, 0);
    EXPECT_EQ(bytes, room < needed ? 0 : needed);
    for (std::size_t i = room; i < to.size(); ++i) ASSERT_EQ(to[i], '\x7f') << room;
  }
}

TEST(Response, IsNotMadeFromWhatIsNoRequest) {
  const std::string whole = request(Method::kMessage, 600);
  std::string to(20'000, '\0');
  for (std::size_t cut = 0; cut < whole.find("CSeq:"); ++cut)
    EXPECT_EQ(write_response(to.data(), to.size(), whole.substr(0, cut), 200, 0), 0u) << cut;
  std::string many = whole;
  for (int i = 0; i < 60; ++i) many = through_proxies(many, {});
  EXPECT_EQ(write_response(to.data(), to.size(), many, 200, 0), 0u);
}

TEST(Splitter, FindsTheMessagesHoweverTheyAreCut) {
  std::mt19937 random(1);
  std::string stream;
  std::vector<std::string> sent;
  for (int i = 0; i < 400; ++i) {
    const std::string body(random() % (i % 10 == 0 ? 20'000 : 900), 'x');
    sent.push_back(
        fmt::format("MESSAGE sip:a@b SIP/2.0\r\nCall-ID: {}\r\nContent-Length: {}\r\n\r\n{}", i, body.size(), body));
    stream += sent.back();
    if (i % 7 == 0) stream += "\r\n\r\n";
  }
  for (const std::size_t most : {1u, 7u, 600u, 5'000u, 16'384u, 100'000u}) {
    Splitter splitter;
    std::vector<std::string> found;
    for (std::string_view rest = stream; !rest.empty();) {
      const std::string_view piece = rest.substr(0, 1 + random() % most);
      ASSERT_TRUE(splitter.feed(piece, [&](std::string_view message) { found.emplace_back(message); }));
      rest.remove_prefix(piece.size());
    }
    ASSERT_EQ(found.size(), sent.size()) << most;
    EXPECT_EQ(found, sent) << most;
  }
  Splitter splitter;
  EXPECT_FALSE(splitter.feed("MESSAGE sip:a@b SIP/2.0\r\nContent-Length: x\r\n\r\n", [](std::string_view) {}));
}

TEST(Dialog, FollowsTheRouteSetBackwards) {
  const std::string invite =
      through_proxies(request(Method::kInvite, 600), {"<sip:c@p3.test;lr>, <sip:b@p2.test;lr>", "<sip:a@p1.test;lr>"});
  const std::string answer = response(invite, 200, 600);
  const DialogTemplate dialog(shape(600));
  for (const Method method : {Method::kAck, Method::kBye}) {
    std::string to(DialogTemplate::kMaxBytes, '\0');
    to.resize(dialog.write(to.data(), answer, {.slot = 0xabcdef, .generation = 7, .method = method}));
    const auto parsed = SipMessage::parse(to);
    ASSERT_TRUE(parsed) << parsed.error().what;
    EXPECT_EQ(parsed->method(), method_name(method));
    EXPECT_EQ(parsed->request_uri(), "sip:callee@bench.invalid");
    EXPECT_THAT(parsed->all("Route"), ElementsAre("<sip:a@p1.test;lr>", "<sip:b@p2.test;lr>", "<sip:c@p3.test;lr>"));
    const auto first = SipMessage::parse(invite);
    EXPECT_EQ(parsed->header("Call-ID"), first->header("Call-ID"));
    EXPECT_EQ(parsed->header("From"), first->header("From"));
    EXPECT_EQ(parsed->header("To"), first->header("To") + ";tag=ktrunk-bench");
    EXPECT_NE(parsed->header("Via"), first->all("Via").back());
  }
}

TEST(Dialog, NeedsAContactAndARouteSetThatFits) {
  const DialogTemplate dialog(shape(600));
  std::string to(DialogTemplate::kMaxBytes, '\0');
  const Tag tag{.slot = 1, .generation = 1, .method = Method::kAck};
  EXPECT_EQ(dialog.write(to.data(), "", tag), 0u);
  EXPECT_EQ(dialog.write(to.data(), "SIP/2.0 200 OK\r\nTo: <sip:a@b>\r\n\r\n", tag), 0u);
  EXPECT_EQ(dialog.write(to.data(), "SIP/2.0 200 OK\r\nContact: <sip:unclosed\r\n\r\n", tag), 0u);
  const std::string many(17, 'r');
  std::string routes = "SIP/2.0 200 OK\r\nContact: <sip:x@y>\r\n";
  for (const char letter : many) routes += fmt::format("Record-Route: <sip:{}@p>\r\n", letter);
  EXPECT_EQ(dialog.write(to.data(), routes + "\r\n", tag), 0u);
  const std::string long_route =
      fmt::format("SIP/2.0 200 OK\r\nContact: <sip:x@y>\r\nRecord-Route: <sip:{}@p>\r\n\r\n", std::string(5'000, 'l'));
  EXPECT_EQ(dialog.write(to.data(), long_route, tag), 0u);
}

}  // namespace
}  // namespace ktrunk::bench
