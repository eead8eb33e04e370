// What a stateless proxy owes its neighbours beyond one message's verdict: loops and spirals, strict routers, sips,
// who may answer, and what belongs to one transaction when it comes by several connections of a trunk.
#include <gtest/gtest.h>

#include <set>

#include "sip/proxy_world.h"

namespace ktrunk::sip::testing {
namespace {

std::string request(std::string_view method, std::string_view uri, std::string_view extra = "",
                    std::string_view to_tag = "", std::string_view branch = "z9hG4bKx1") {
  const std::string name(method);
  return crlf(name + " " + std::string(uri) + " SIP/2.0\nVia: SIP/2.0/TLS peer.example.com;branch=" +
              std::string(branch) + "\nFrom: <sip:a@b>;tag=1\nTo: <sip:c@d>" + std::string(to_tag) +
              "\nCall-ID: c\nCSeq: 1 " + name + "\nMax-Forwards: 70\n" + std::string(extra) + "Content-Length: 0\n\n");
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

std::string branch_of(std::string_view message) {
  const std::string via = headers(message, "Via").at(0);
  const std::size_t at = via.find("branch=");
  return via.substr(at, via.find(';', at) - at);
}

Flow other_connection(Flow flow) {
  flow.connection = {SlotIndex{flow.connection.slot.value + 100}, Generation{1}};
  flow.remote = Address::from_ip("203.0.113.99", 40000).value();
  return flow;
}

class ConformanceTest : public ::testing::Test {
 protected:
  int of(std::string_view bytes, const Flow& source) { return verdict(world.decide(bytes, source)); }
  World world;
};

// ---- RFC 3261 16.3 step 4, RFC 5393: loops

TEST_F(ConformanceTest, ARequestThatComesRoundUnchangedIsALoop) {
  // The carrier's trunk leads back to the carrier's trunk: the route sends it to the pbx, which sends it in again.
  const std::string first = request("INVITE", "sip:x@y");
  const std::string second = world.forward(first, world.carrier, world.pbx);
  EXPECT_EQ(of(second, world.carrier), 482);
  // With other Vias between, as it has passed through others; these need not be sound.
  EXPECT_EQ(
      of(replaced(second, "Via:", "Via: SIP/2.0/TLS other;branch=z9hG4bKy\r\nVia: rubbish, x\r\nVia:"), world.carrier),
      482);
  for (const char* method : {"CANCEL", "OPTIONS", "BYE"})
    EXPECT_EQ(of(world.forward(request(method, "sip:x@y"), world.carrier, world.pbx), world.carrier), 482) << method;
  EXPECT_EQ(of(world.forward(request("ACK", "sip:x@y"), world.carrier, world.pbx), world.carrier), kDropped);
  EXPECT_EQ(of(world.forward(request("ACK", "sip:x@y"), world.carrier, world.pbx), other_connection(world.carrier)),
            kDropped)
      << "whichever connection of the trunk";
}

TEST_F(ConformanceTest, ASpiralIsNoLoop) {
  world.config.routes = {{.from_trunk = TrunkId{0}, .to = {TrunkId{2}}},
                         {.from_trunk = TrunkId{2}, .to = {TrunkId{0}}}};
  world.proxy = Proxy(world.config, make_key());
  // A PBX that sends a call back as it was: another peer, so another route. Coming again, it is a loop.
  const std::string second = world.forward(request("INVITE", "sip:x@y"), world.carrier, world.six);
  const std::string third = world.forward(second, world.six, world.carrier);
  EXPECT_EQ(of(third, world.carrier), 482);
  EXPECT_EQ(of(third, world.six), 482);
  // Forwarded to another user or with another Route.
  EXPECT_EQ(of(replaced(second, "sip:x@y", "sip:z@y"), world.carrier), kSentToTrunk);
  EXPECT_EQ(of(replaced(second, "Max-Forwards", "Route: <sip:next;lr>\r\nMax-Forwards"), world.carrier), kSentToTrunk);
  // A new request of somebody who copied Vias.
  EXPECT_EQ(of(replaced(second, "Call-ID: c", "Call-ID: d"), world.carrier), kSentToTrunk);
  EXPECT_EQ(of(replaced(second, "CSeq: 1", "CSeq: 2"), world.carrier), kSentToTrunk);
  EXPECT_EQ(of(replaced(second, ">;tag=1", ">;tag=2"), world.carrier), kSentToTrunk);
  // A Via that only looks like ours proves nothing.
  EXPECT_EQ(of(replaced(second, "branch=z9hG4bKI", "branch=z9hG4bKJ"), world.carrier), kSentToTrunk);
}

TEST_F(ConformanceTest, APreloadedRouteToUsIsNoLoop) {
  const std::string once =
      world.forward(request("INVITE", "sip:x@y", "Route: <sip:edge.example.net;lr>\n"), world.carrier, world.pbx);
  const std::string twice = world.forward(once, world.carrier, world.pbx);
  EXPECT_EQ(of(twice, world.carrier), 482);
}

// ---- RFC 3261 16.6 step 6: the next hop is a strict router

TEST_F(ConformanceTest, TheNextHopIsAStrictRouter) {
  std::string sent = world.forward(request("INVITE", "sip:x@y;p=1", "Route: <sip:strict.example.com:5070;z=1>\n"),
                                   world.carrier, world.pbx);
  EXPECT_TRUE(sent.starts_with("INVITE sip:strict.example.com:5070;z=1 SIP/2.0\r\n")) << sent;
  EXPECT_EQ(headers(sent, "Route"), std::vector<std::string>{"<sip:x@y;p=1>"});

  sent = world.forward(request("INVITE", "sip:x@y",
                               "Route: <sip:edge.example.net;lr> , <sip:strict.example.com>,\t<sip:loose;lr>\n"
                               "Subject: s\nRoute: \"q,\" <sip:last;lr> ;x=y\n"),
                       world.carrier, world.pbx);
  EXPECT_TRUE(sent.starts_with("INVITE sip:strict.example.com SIP/2.0\r\n")) << sent;
  EXPECT_EQ(headers(sent, "Route"),
            (std::vector<std::string>{"<sip:loose;lr>", "\"q,\" <sip:last;lr> ;x=y, <sip:x@y>"}));

  sent = world.forward(request("INVITE", "sip:x@y", "Route: <sip:strict.example.com>\nRoute: <sip:loose;lr>\n"),
                       world.carrier, world.pbx);
  EXPECT_EQ(headers(sent, "Route"), std::vector<std::string>{"<sip:loose;lr>, <sip:x@y>"});
  // Headers of a URI are no part of a Request-URI (19.1.1).
  sent = world.forward(request("INVITE", "sip:x@y", "Route: <sip:strict.example.com?Subject=s>\n"), world.carrier,
                       world.pbx);
  EXPECT_TRUE(sent.starts_with("INVITE sip:strict.example.com SIP/2.0\r\n")) << sent;
}

TEST_F(ConformanceTest, BetweenTwoStrictRouters) {
  const std::string first = world.forward(invite(), world.pbx, world.carrier);
  auto routes = headers(first, "Record-Route");  // the callee's route set, as it stands
  const std::string ours = routes[0].substr(1, routes[0].size() - 2);
  // A strict router has put our URI into the Request-URI; behind our second line comes another one of its kind.
  const std::string bye = request(
      "BYE", ours, "Route: " + routes[1] + ", <sip:strict.example.com>, \"A\" <sip:alice@192.0.2.77>;x\n", ";tag=2");
  const std::string sent = world.forward(bye, world.carrier, world.pbx);
  EXPECT_TRUE(sent.starts_with("BYE sip:strict.example.com SIP/2.0\r\n")) << sent;
  EXPECT_EQ(headers(sent, "Route"), std::vector<std::string>{"\"A\" <sip:alice@192.0.2.77>;x"});
}

// ---- RFC 5630: sips

Needs needs_of(const Decision& decision) {
  if (const auto* trunk = std::get_if<ToTrunk>(&decision)) return trunk->needs;
  if (const auto* flow = std::get_if<ToFlow>(&decision)) return flow->needs;
  ADD_FAILURE() << verdict(decision);
  return Needs::kAnyTransport;
}

TEST_F(ConformanceTest, SipsNeedsTlsOnBothSides) {
  EXPECT_EQ(needs_of(world.decide(request("INVITE", "sip:x@y"), world.carrier)), Needs::kAnyTransport);
  EXPECT_EQ(needs_of(world.decide(request("INVITE", "sips:x@y"), world.carrier)), Needs::kTls);
  EXPECT_EQ(needs_of(world.decide(request("INVITE", "SIPS:x@y"), world.carrier)), Needs::kTls);
  EXPECT_EQ(needs_of(world.decide(request("INVITE", "sip:x@y", "Route: <sips:next;lr>\n"), world.carrier)),
            Needs::kTls);
  EXPECT_EQ(needs_of(world.decide(request("INVITE", "sip:x@y", "Route: <sips:strict>\n"), world.carrier)), Needs::kTls);
  // Our own Route is none of the next hop's business.
  EXPECT_EQ(needs_of(world.decide(request("INVITE", "sip:x@y", "Route: <sips:edge.example.net;lr>\n"), world.carrier)),
            Needs::kAnyTransport);
  for (const Flow* insecure : {&world.pbx, &world.six}) {
    EXPECT_EQ(of(request("INVITE", "sips:+49@six.example.net"), *insecure), 480);
    EXPECT_EQ(of(request("ACK", "sips:+49@six.example.net"), *insecure), kDropped);
  }
  // Inside a dialog, too: it began over TLS on both sides, or without sips.
  const std::string sent = world.forward(request("INVITE", "sip:+49@six.example.net"), world.six, world.carrier);
  const std::string route = "Route: " + headers(sent, "Record-Route")[1] + "\n";
  EXPECT_EQ(of(request("BYE", "sip:x@y", route, ";tag=2"), world.six), kSentToFlow);
  EXPECT_EQ(of(request("BYE", "sips:x@y", route, ";tag=2"), world.six), 480);
}

TEST_F(ConformanceTest, HowSipsIsRefused) {
  const std::string text = request("INVITE", "sips:x@y");
  world.message.parse(text, Carrier::kStream);
  const Decision refused = Proxy::refuse_sips(world.message);
  ASSERT_EQ(verdict(refused), 480);
  const std::string reply = world.reply_to(text, world.carrier, std::get<Reply>(refused));
  EXPECT_EQ(headers(reply, "Warning"), std::vector<std::string>{"380 ktrunk \"SIPS Not Allowed\""});
}

TEST_F(ConformanceTest, RecordRouteIsSipsWhereTheRouteBehindUsIs) {
  const std::string sent =
      world.forward(request("INVITE", "sip:x@y", "Route: <sips:next;lr>\n"), world.carrier, world.carrier);
  for (const std::string& value : headers(sent, "Record-Route")) EXPECT_TRUE(value.starts_with("<sips:")) << value;
}

// ---- RFC 3261 16.10, 17.2.3: one transaction, several connections of one trunk

TEST_F(ConformanceTest, CancelAndAckByAnotherConnectionGetTheInvitesBranch) {
  const Flow other = other_connection(world.carrier);
  const std::string invite_sent = world.forward(request("INVITE", "sip:x@y"), world.carrier, world.six);
  const Decision first = world.decide(request("INVITE", "sip:x@y"), world.carrier);
  for (const char* method : {"INVITE", "CANCEL", "ACK"}) {
    const std::string text = request(method, "sip:x@y", "", std::string_view(method) == "ACK" ? ";tag=9" : "");
    const std::string sent = world.forward(text, other, other_connection(world.six));
    EXPECT_EQ(branch_of(sent), branch_of(invite_sent)) << method;
    const Decision decision = world.decide(text, other);
    EXPECT_EQ(std::get<ToTrunk>(decision).affinity, std::get<ToTrunk>(first).affinity);
    // The answer to each goes back by its own connection (18.2.2).
    Flow to;
    if (std::string_view(method) == "ACK") continue;
    world.respond(response_to(sent, 200, "t", ""), world.six, &to);
    EXPECT_EQ(to.connection, other.connection);
    EXPECT_EQ(to.trunk, other.trunk);
  }
  Flow to;
  world.respond(response_to(invite_sent, 180, "t", ""), world.six, &to);
  EXPECT_EQ(to.connection, world.carrier.connection);
  // Strangers have no other connection.
  Flow stranger = world.stranger;
  const std::string uri = "sip:x@six.example.net";
  const std::string theirs = branch_of(world.forward(request("INVITE", uri), stranger, world.six));
  EXPECT_NE(branch_of(world.forward(request("CANCEL", uri), other_connection(stranger), world.six)), theirs);
}

TEST_F(ConformanceTest, AHintThatIsLostOrForgedLeavesTheTrunk) {
  const std::string sent = world.forward(request("INVITE", "sip:x@y"), world.carrier, world.six);
  const std::string via = headers(sent, "Via")[0];
  ASSERT_TRUE(via.ends_with(";flow=7-3")) << via;
  const std::string response = response_to(sent, 200, "t", "");
  Flow to;
  EXPECT_FALSE(world.respond(replaced(response, ";flow=7-3", ""), world.six, &to).empty());
  EXPECT_EQ(to.trunk, TrunkId{0});
  EXPECT_FALSE(to.connection.valid());
  // Another slot: the worker looks whether it is one of the trunk's. It can be no other trunk's.
  EXPECT_FALSE(world.respond(replaced(response, ";flow=7-3", ";flow=9-3"), world.six, &to).empty());
  EXPECT_EQ(to.trunk, TrunkId{0});
  EXPECT_FALSE(world.respond(replaced(response, ";flow=7-3", ";flow=\"x\""), world.six, &to).empty());
  EXPECT_FALSE(to.connection.valid());
  // A stranger's token holds its connection; a hint does not count.
  const std::string strangers = world.forward(request("INVITE", "sip:x@six.example.net"), world.stranger, world.six);
  world.respond(replaced(response_to(strangers, 200, "t", ""), "\r\nVia", ";flow=7-3\r\nVia"), world.six, &to);
  EXPECT_EQ(to.connection, world.stranger.connection);
}

// ---- RFC 3261 18.1.2: who may answer

TEST_F(ConformanceTest, AResponseComesFromWhereItsRequestWent) {
  struct Case {
    const Flow& destination;
    std::vector<Flow> may;
    std::vector<Flow> may_not;
  };
  Flow pbx_port = world.pbx;
  pbx_port.remote = Address::from_ip("192.0.2.77", 9999).value();
  Flow pbx_unnamed = world.pbx;
  pbx_unnamed.trunk = {};
  Flow pbx_elsewhere = world.pbx;
  pbx_elsewhere.remote = Address::from_ip("192.0.2.78", 5060).value();
  Flow pbx_mapped = world.pbx;
  pbx_mapped.remote = Address::from_ip("::ffff:192.0.2.77", 5060).value();
  Flow pbx_listener = world.pbx;
  pbx_listener.listener = ListenerId{2};
  const Case cases[] = {
      {world.six,
       {world.six, other_connection(world.six)},
       {world.carrier, world.pbx, world.stranger, udp_flow(TrunkId{2}, ListenerId{2}, "2001:db8::99", 5070)}},
      {world.pbx,
       {world.pbx, pbx_port, pbx_unnamed, pbx_mapped},
       {pbx_elsewhere, pbx_listener, world.six, world.stranger}},
      {world.stranger, {world.stranger}, {other_connection(world.stranger), world.carrier, world.pbx}},
  };
  for (const Case& one : cases) {
    world.message.parse(request("INVITE", "sip:x@y"), Carrier::kStream);
    const std::string text = request("INVITE", "sip:x@y");
    world.message.parse(text, Carrier::kStream);
    world.proxy.forward_request(world.message, world.carrier, one.destination, world.edits);
    const std::string response = response_to(world.written(), 200, "t", "sip:b@c");
    for (const Flow& flow : one.may) EXPECT_EQ(of(response, flow), kSentToFlow) << flow.remote.text();
    for (const Flow& flow : one.may_not) EXPECT_EQ(of(response, flow), kDropped) << flow.remote.text();
  }
}

// ---- the rest

TEST_F(ConformanceTest, UnsupportedNamesEveryOptionTag) {
  const std::string text =
      request("INVITE", "sip:x@y", "Proxy-Require:\nProxy-Require: foo,\n bar\nProxy-Require: baz\n");
  const Decision decision = world.decide(text, world.carrier);
  ASSERT_EQ(verdict(decision), 420);
  EXPECT_EQ(headers(world.reply_to(text, world.carrier, std::get<Reply>(decision)), "Unsupported"),
            (std::vector<std::string>{"foo,  bar", "baz"}));
  EXPECT_EQ(of(request("INVITE", "sip:x@y", "Proxy-Require:\n"), world.carrier), kSentToTrunk);
}

TEST_F(ConformanceTest, TheOperatorsLimits) {
  world.config.limits.max_header_bytes = 600;
  world.config.limits.max_headers = 16;
  world.config.limits.max_vias = 3;
  world.proxy = Proxy(world.config, make_key());
  const auto lines = [](std::size_t count, std::string_view line) {
    std::string text;
    for (std::size_t i = 0; i < count; ++i) text += line;
    return text;
  };
  EXPECT_EQ(of(request("INVITE", "sip:x@y"), world.carrier), kSentToTrunk);
  EXPECT_EQ(of(request("INVITE", "sip:x@y", "X: " + std::string(600, 'x') + "\n"), world.carrier), 513);
  EXPECT_EQ(of(request("INVITE", "sip:x@y", lines(9, "X: y\n")), world.carrier), kSentToTrunk);
  EXPECT_EQ(of(request("INVITE", "sip:x@y", lines(10, "X: y\n")), world.carrier), 513);
  EXPECT_EQ(of(request("INVITE", "sip:x@y", lines(2, "Via: SIP/2.0/TLS h\n")), world.carrier), kSentToTrunk);
  EXPECT_EQ(of(request("INVITE", "sip:x@y", lines(3, "Via: SIP/2.0/TLS h\n")), world.carrier), 400);
  EXPECT_EQ(of(request("ACK", "sip:x@y", lines(10, "X: y\n")), world.carrier), kDropped);
}

// RFC 5923: ktrunk sends to a peer over the peer's own connections where it has proved a trunk's name, with alias or
// without. So alias in a Via opens no way, and goes on to where responses carry it back.
TEST_F(ConformanceTest, AliasChangesNothing) {
  for (const Flow* source : {&world.carrier, &world.stranger}) {
    const std::string plain = request("INVITE", "sip:x@six.example.net");
    const std::string alias = replaced(plain, ";branch=z9hG4bKx1", ";branch=z9hG4bKx1;alias");
    EXPECT_EQ(verdict(world.decide(alias, *source)), verdict(world.decide(plain, *source)));
    const std::string sent = world.forward(alias, *source, world.six);
    EXPECT_EQ(replaced(sent, ";alias", ""), world.forward(plain, *source, world.six));
  }
}

}  // namespace
}  // namespace ktrunk::sip::testing
