// What a route changes and rejects: the exact octets, on every kind of request that it can meet.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sip/proxy_world.h"

namespace ktrunk::sip::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

// A world whose only route is this one.
struct OneRoute {
  explicit OneRoute(config::Route route) : config(config_of(std::move(route))) {}
  OneRoute(const OneRoute&) = delete;
  // The request as it goes from the pbx to the carrier.
  std::string forward(std::string_view bytes) {
    message.parse(bytes, Carrier::kDatagram);
    const Decision decision = proxy.decide(message, world.pbx, world.edits);
    const auto* way = std::get_if<ToTrunk>(&decision);
    if (way == nullptr) return {};
    proxy.forward_request(message, world.pbx, world.carrier, world.edits, way->route);
    if (world.edits.failed()) return "failed";
    std::string out(world.edits.size(bytes), '\0');
    world.edits.write(bytes, out.data());
    return out;
  }
  std::string uri_of(std::string_view uri) {
    const std::string out = forward(invite("", uri));
    const std::size_t begin = out.find(' ') + 1;
    return out.substr(begin, out.find(' ', begin) - begin);
  }
  int verdict_on(std::string_view bytes) {
    message.parse(bytes, Carrier::kDatagram);
    return verdict(proxy.decide(message, world.pbx, world.edits));
  }

  static config::Config config_of(config::Route route) {
    if (route.reject == 0 && route.to.empty()) route.to = {TrunkId{0}};
    config::Config made = make_config();
    made.routes = {std::move(route)};
    return made;
  }

  config::Config config;
  World world;
  Message message;
  Proxy proxy{config, make_key()};
};

config::Route prefix(std::string from, std::string to) {
  return {.rewrite_user_prefix = {.from = std::move(from), .to = std::move(to)}};
}

TEST(RouteActionsTest, UserPrefixes) {
  OneRoute replaced(prefix("+49", "0"));
  EXPECT_EQ(replaced.uri_of("sip:+4930@h:5061;x=y"), "sip:030@h:5061;x=y");
  EXPECT_EQ(replaced.uri_of("sip:%2b4%3930:secret@h"), "sip:030:secret@h");
  EXPECT_EQ(replaced.uri_of("sip:+49@h"), "sip:0@h");
  EXPECT_EQ(replaced.uri_of("sip:+4830@h"), "sip:+4830@h");
  EXPECT_EQ(replaced.uri_of("sip:h"), "sip:h");
  EXPECT_EQ(replaced.uri_of("tel:+4930"), "tel:+4930");
  OneRoute stripped(prefix("0", ""));
  EXPECT_EQ(stripped.uri_of("sip:030@h"), "sip:30@h");
  EXPECT_EQ(stripped.uri_of("sip:0@h"), "sip:0@h") << "no user would be left";
  OneRoute put(prefix("", "%2300"));
  EXPECT_EQ(put.uri_of("sip:030@h"), "sip:%2300030@h");
  EXPECT_EQ(put.uri_of("sip:h"), "sip:h");
}

TEST(RouteActionsTest, Hosts) {
  OneRoute host({.rewrite_host = "carrier.example"});
  EXPECT_EQ(host.uri_of("sip:a@h"), "sip:a@carrier.example");
  EXPECT_EQ(host.uri_of("sip:h:5070"), "sip:carrier.example");
  EXPECT_EQ(host.uri_of("sip:a@[2001:db8::1]:5070;x=[y]"), "sip:a@carrier.example;x=[y]");
  EXPECT_EQ(host.uri_of("tel:112"), "tel:112");
  config::Route both = prefix("+", "");
  both.rewrite_host = "[2001:db8::5]:5062";
  EXPECT_EQ(OneRoute(both).uri_of("sip:+1:pw@[2001:db8::1]:5070;x=y"), "sip:1:pw@[2001:db8::5]:5062;x=y");
}

TEST(RouteActionsTest, EveryMessageOfATransactionGetsTheSameUri) {
  config::Route route = prefix("+49", "0");
  route.rewrite_host = "carrier.example";
  OneRoute one(route);
  const std::string first = invite("", "sip:+4930@edge.example.net");
  std::string cancel = first;
  cancel.replace(0, 6, "CANCEL").replace(cancel.find("10 INVITE"), 9, "10 CANCEL");
  std::string ack = first;
  ack.replace(0, 6, "ACK").replace(ack.find("10 INVITE"), 9, "10 ACK");
  for (const std::string& message : {first, first, cancel, ack})
    EXPECT_THAT(one.forward(message), HasSubstr(" sip:030@carrier.example SIP/2.0\r\n"));
  EXPECT_EQ(headers(one.forward(first), "Via")[0], headers(one.forward(cancel), "Via")[0]);
  EXPECT_EQ(headers(one.forward(first), "Via")[0], headers(one.forward(ack), "Via")[0]);
}

TEST(RouteActionsTest, AStrictRouterGetsTheRewrittenTargetAsTheLastRoute) {
  config::Route route = prefix("+49", "0");
  route.rewrite_host = "c.example";
  OneRoute one(route);
  const std::string alone = one.forward(invite("Route: <sip:strict.example>\n", "sip:+4930@h;p=1"));
  EXPECT_THAT(alone, StartsWith("INVITE sip:strict.example SIP/2.0\r\n"));
  EXPECT_THAT(headers(alone, "Route"), ElementsAre("<sip:030@c.example;p=1>"));
  const std::string more = one.forward(invite("Route: <sip:strict.example>, <sip:b;lr>\n", "sip:+4930@h"));
  EXPECT_THAT(headers(more, "Route"), ElementsAre("<sip:b;lr>, <sip:030@c.example>"));
  const std::string loose = one.forward(invite("Route: <sip:loose.example;lr>\n", "sip:+4930@h"));
  EXPECT_THAT(loose, StartsWith("INVITE sip:030@c.example SIP/2.0\r\n"));
  EXPECT_THAT(headers(loose, "Route"), ElementsAre("<sip:loose.example;lr>"));
}

TEST(RouteActionsTest, HeaderFieldsComeAndGo) {
  OneRoute one({.remove_headers = {config::header_name("X-Internal"), config::header_name("Subject")},
                .add_headers = "X-Internal: new\r\nX-Trunk: a, b\r\n"});
  const std::string out =
      one.forward(invite("X-Internal: 1\nx-internal: 2\n  folded\nS: hello\nX-Internals: stays\nSUBJECT:\n"));
  EXPECT_THAT(headers(out, "X-Internal"), ElementsAre("new"));
  EXPECT_THAT(out, Not(HasSubstr("folded")));
  EXPECT_THAT(out, Not(HasSubstr("hello")));
  EXPECT_THAT(out, Not(HasSubstr("SUBJECT")));
  EXPECT_THAT(headers(out, "X-Internals"), ElementsAre("stays"));
  EXPECT_THAT(out, HasSubstr("\r\nX-Internal: new\r\nX-Trunk: a, b\r\n\r\nv=0\n"));
  // A datagram without Content-Length gets one behind what the route adds.
  std::string bare = invite("X-Internal: 1\n");
  bare.erase(bare.find("Content-Length"), 19);
  EXPECT_THAT(one.forward(bare), HasSubstr("\r\nX-Trunk: a, b\r\nContent-Length: 4\r\n\r\nv=0\n"));
}

TEST(RouteActionsTest, ManyToRemoveAreFewEditsWhenTheyAreNeighbours) {
  OneRoute one({.remove_headers = {config::header_name("X")}});
  std::string together;
  std::string apart;
  for (int i = 0; i < 200; ++i) together += "X-Y: 1\n";
  config::Route route{.remove_headers = {config::header_name("X-Y")}};
  EXPECT_THAT(headers(OneRoute(route).forward(invite(together)), "X-Y"), IsEmpty());
  for (int i = 0; i < 100; ++i) apart += "X-Y: 1\nX-Z: 1\n";
  EXPECT_EQ(OneRoute(route).forward(invite(apart)), "failed");
}

TEST(RouteActionsTest, RejectedInEveryMethod) {
  OneRoute one({.methods = {"INVITE", "OPTIONS"}, .reject = 603, .reason = "Not Here"});
  EXPECT_EQ(one.verdict_on(invite()), 603);
  std::string other = invite();
  other.replace(0, 6, "OPTIONS").replace(other.find("10 INVITE"), 9, "10 OPTIONS");
  EXPECT_EQ(one.verdict_on(other), 603);
  std::string cancel = invite();
  cancel.replace(0, 6, "CANCEL").replace(cancel.find("10 INVITE"), 9, "10 CANCEL");
  EXPECT_EQ(one.verdict_on(cancel), 481);
  std::string ack = invite();
  ack.replace(0, 6, "ACK").replace(ack.find("10 INVITE"), 9, "10 ACK");
  EXPECT_EQ(one.verdict_on(ack), kDropped);
  World world;
  EXPECT_THAT(world.reply_to(invite(), world.pbx, {603, "Not Here", {}}), StartsWith("SIP/2.0 603 Not Here\r\n"));
}

TEST(RouteActionsTest, WhatComesBackUnchangedIsALoopWhicheverTrunkItWentTo) {
  config::Route route;
  route.to = {TrunkId{2}, TrunkId{0}};
  OneRoute one(route);
  const std::string out = one.forward(invite());  // to the carrier, the second of the two
  ASSERT_FALSE(out.empty());
  EXPECT_EQ(one.verdict_on(out), 482);
  // Rewritten it is a spiral.
  OneRoute rewritten(prefix("+49", "0049"));
  EXPECT_EQ(rewritten.verdict_on(rewritten.forward(invite())), kSentToTrunk);
}

TEST(RouteActionsTest, InADialogNothingIsRewritten) {
  World world;
  config::Route route = prefix("+49", "0");
  route.add_headers = "X-New: 1\r\n";
  OneRoute one(route);
  const std::string first = one.forward(invite());
  EXPECT_THAT(headers(first, "X-New"), ElementsAre("1"));
  const auto routes = headers(first, "Record-Route");
  ASSERT_EQ(routes.size(), 2u);
  std::string bye = invite("Route: " + routes[1] + ", " + routes[0] + "\n");
  bye.replace(0, 6, "BYE").replace(bye.find("10 INVITE"), 9, "11 BYE");
  EXPECT_EQ(one.verdict_on(bye), kSentToFlow);
}

}  // namespace
}  // namespace ktrunk::sip::testing
