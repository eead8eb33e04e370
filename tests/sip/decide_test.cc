// Proxy::decide: the verdict on each kind of request and response.
#include <gtest/gtest.h>

#include "sip/proxy_world.h"

namespace ktrunk::sip::testing {
namespace {

std::string request(std::string_view method, std::string_view uri, std::string_view extra = "",
                    std::string_view max_forwards = "Max-Forwards: 70\n") {
  const std::string name(method);
  return crlf(name + " " + std::string(uri) + " SIP/2.0\nVia: SIP/2.0/TLS h;branch=z9hG4bKx1\n" +
              "From: <sip:a@b>;tag=1\nTo: <sip:c@d>\nCall-ID: c\nCSeq: 1 " + name + "\n" + std::string(max_forwards) +
              std::string(extra) + "Content-Length: 0\n\n");
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

class DecideTest : public ::testing::Test {
 protected:
  int of(std::string_view bytes, const Flow& source) { return verdict(world.decide(bytes, source)); }
  World world;
};

TEST_F(DecideTest, TheRouteTableDecides) {
  const auto to_trunk = [&](const Decision& decision) {
    const auto* trunk = std::get_if<ToTrunk>(&decision);
    return trunk == nullptr ? TrunkId{} : trunk->route->to.front();
  };
  EXPECT_EQ(to_trunk(world.decide(request("MESSAGE", "sip:x@any.example"), world.carrier)), TrunkId{1});
  EXPECT_EQ(to_trunk(world.decide(invite(), world.pbx)), TrunkId{0});
  EXPECT_EQ(to_trunk(world.decide(request("INVITE", "tel:+49301"), world.pbx)), TrunkId{0});
  EXPECT_EQ(to_trunk(world.decide(request("BYE", "sip:x@SIX.example.net:5070"), world.stranger)), TrunkId{2});
  EXPECT_EQ(of(request("MESSAGE", "sip:+4930@any.example"), world.pbx), 404);
  EXPECT_EQ(of(request("INVITE", "sip:+4830@any.example"), world.pbx), 404);
  EXPECT_EQ(of(request("INVITE", "sip:x@any.example"), world.stranger), 404);
  EXPECT_EQ(of(request("ACK", "sip:x@any.example"), world.stranger), kDropped);
}

TEST_F(DecideTest, SyntaxIs400) {
  const std::string good = request("OPTIONS", "sip:x@y");
  EXPECT_EQ(of(good, world.carrier), kSentToTrunk);
  for (const auto& [from, to] : std::initializer_list<std::pair<std::string_view, std::string_view>>{
           {"CSeq: 1 OPTIONS", "CSeq: 1 INVITE"},
           {"CSeq: 1 OPTIONS", "CSeq: 1 options"},
           {"CSeq: 1 OPTIONS", "CSeq: OPTIONS"},
           {"CSeq: 1 OPTIONS", "CSeq: 4294967296 OPTIONS"},
           {"CSeq: 1 OPTIONS", "CSeq: 1"},
           {"CSeq: 1 OPTIONS", "CSeq: 1OPTIONS"},
           {"CSeq: 1 OPTIONS", "X: y"},
           {"CSeq:", "CSeq: 1 OPTIONS\r\nCSeq:"},
           {"Call-ID: c", "X: c"},
           {"Call-ID: c", "Call-ID:"},
           {"Call-ID: c", "i: c\r\nCall-ID: d"},
           {"From: <sip:a@b>;tag=1", "X: y"},
           {"From: <", "From: \"x <"},
           {"To: <sip:c@d>", "t: <sip:c@d>\r\nTo: <sip:c@d>"},
           {"To: <sip:c@d>", "To: <sip:c@>"},
           {"To: <sip:c@d>", "To: < sip:c@d >"},
           {"To: <sip:c@d>", "To:"},
           {"Via: SIP/2.0/TLS h", "X: y"},
           {"Via: SIP/2.0/TLS h", "Via: SIP/2.0 h"},
           {"Via: SIP/2.0/TLS h", "Via: , SIP/2.0/TLS h"},
           {"Max-Forwards: 70", "Max-Forwards: 256"},
           {"Max-Forwards: 70", "Max-Forwards: -1"},
           {"Max-Forwards: 70", "Max-Forwards:"},
           {"Max-Forwards: 70", "Max-Forwards: 7\r\nMax-Forwards: 7"},
           {"sip:x@y", "<sip:x@y>"},
           {"sip:x@y", "sip:x@y?Route=z"},
           {"sip:x@y", "sip:2001:db8::1"},
           {"sip:x@y", "x"}}) {
    EXPECT_EQ(of(replaced(good, from, to), world.carrier), 400) << to;
    const std::string ack = replaced(replaced(good, "OPTIONS sip", "ACK sip"), "1 OPTIONS", "1 ACK");
    if (ack.find(from) != std::string::npos) {
      EXPECT_EQ(of(replaced(ack, from, to), world.carrier), kDropped) << to;
    }
  }
}

TEST_F(DecideTest, VersionSchemeHopsAndExtensions) {
  EXPECT_EQ(of(replaced(request("INVITE", "sip:x@y"), "SIP/2.0\r\n", "SIP/7.0\r\n"), world.carrier), 505);
  EXPECT_EQ(of(request("INVITE", "soap.beep://x"), world.carrier), 416);
  EXPECT_EQ(of(request("INVITE", "nobodyKnowsThisScheme:x"), world.carrier), 416);
  EXPECT_EQ(of(request("INVITE", "sips:x@y"), world.carrier), kSentToTrunk);
  EXPECT_EQ(of(request("INVITE", "sip:x@y", "", "Max-Forwards: 0\n"), world.carrier), 483);
  EXPECT_EQ(of(request("OPTIONS", "sip:x@y", "", "Max-Forwards: 000\n"), world.carrier), 483);
  EXPECT_EQ(of(request("ACK", "sip:x@y", "", "Max-Forwards: 0\n"), world.carrier), kDropped);
  EXPECT_EQ(of(request("INVITE", "sip:x@y", "", ""), world.carrier), kSentToTrunk);
  EXPECT_EQ(of(request("INVITE", "sip:x@y", "Proxy-Require: foo\n"), world.carrier), 420);
  EXPECT_EQ(of(request("CANCEL", "sip:x@y", "Proxy-Require: foo\n"), world.carrier), kSentToTrunk);
  EXPECT_EQ(of(request("INVITE", "sip:x@y", "Require: foo\n"), world.carrier), kSentToTrunk);
}

TEST_F(DecideTest, OptionsForUs) {
  for (const char* uri : {"sip:edge.example.net", "sips:EDGE.example.net:5061", "sip:192.0.2.10", "sip:192.0.2.10:5060",
                          "sip:[2001:db8:0::10]:5060;transport=tcp"}) {
    EXPECT_EQ(of(request("OPTIONS", uri, "", "Max-Forwards: 0\n"), world.stranger), 200) << uri;
    EXPECT_NE(of(request("INFO", uri), world.stranger), 200) << uri;
  }
  EXPECT_EQ(of(request("OPTIONS", "sip:edge.example.net:5062"), world.stranger), 404);
  EXPECT_EQ(of(request("OPTIONS", "sip:user@edge.example.net"), world.stranger), 404);
}

TEST_F(DecideTest, TooManyViasOrRoutes) {
  std::string many;
  for (std::size_t i = 1; i < kMaxViaValues; ++i) many += "Via: SIP/2.0/TLS h\n";
  EXPECT_EQ(of(request("INVITE", "sip:x@y", many), world.carrier), kSentToTrunk);
  EXPECT_EQ(of(request("INVITE", "sip:x@y", many + "v: SIP/2.0/TLS h\n"), world.carrier), 400);
  many = "Route: <sip:r;lr>";
  for (std::size_t i = 1; i < kMaxRouteValues; ++i) many += ",<sip:r;lr>";
  EXPECT_EQ(of(request("INVITE", "sip:x@y", many + "\n"), world.carrier), kSentToTrunk);
  EXPECT_EQ(of(request("INVITE", "sip:x@y", many + ",<sip:r>\n"), world.carrier), 400);
}

TEST_F(DecideTest, RoutesThatNameUsWithoutAToken) {
  EXPECT_EQ(of(request("INVITE", "sip:x@y", "Route: <sip:edge.example.net;lr>\n"), world.carrier), kSentToTrunk);
  const std::string sent =
      world.forward(request("INVITE", "sip:x@y", "Route: <sip:edge.example.net;lr>, <sip:192.0.2.10>,<sip:next;lr>\n"),
                    world.carrier, world.pbx);
  EXPECT_EQ(headers(sent, "Route"), std::vector<std::string>{"<sip:next;lr>"});
  EXPECT_EQ(of(request("INVITE", "sip:x@y", "Route: <sip:forged@edge.example.net;lr>\n"), world.carrier), 403);
  EXPECT_EQ(of(request("ACK", "sip:x@y", "Route: <sip:forged@edge.example.net;lr>\n"), world.carrier), kDropped);
  EXPECT_EQ(of(request("INVITE", "sip:x@y", "Route: <sip:any@elsewhere;lr>\n"), world.carrier), kSentToTrunk);
  EXPECT_EQ(of(request("INVITE", "sip:x@y", "Route: rubbish\"\n"), world.carrier), kSentToTrunk);
}

TEST_F(DecideTest, ResponsesThatAreNotOurs) {
  const std::string ours = world.forward(invite(), world.pbx, world.carrier);
  const std::string good = response_to(ours, 200, "t", "sip:bob@203.0.113.9");
  EXPECT_EQ(of(good, world.carrier), kSentToFlow);
  // Without our Via on top, with it alone, with it changed, and with what a response must have missing or broken.
  const std::string via = "Via: " + headers(good, "Via")[0] + "\r\n";
  EXPECT_EQ(of(replaced(good, via, ""), world.carrier), kDropped);
  EXPECT_EQ(of(replaced(good, "Via: " + headers(good, "Via")[1] + "\r\n", ""), world.carrier), kDropped);
  EXPECT_EQ(of(replaced(good, "branch=z9hG4bK", "branch=z9hG4bKA"), world.carrier), kDropped);
  EXPECT_EQ(of(replaced(good, "branch=z9hG4bK", "branch="), world.carrier), kDropped);
  EXPECT_EQ(of(replaced(good, "CSeq: 10 ", "CSeq: 9292394834772304023312 "), world.carrier), kDropped);
  EXPECT_EQ(of(replaced(good, "Call-ID", "X"), world.carrier), kDropped);
  EXPECT_EQ(of(replaced(good, "SIP/2.0 200", "SIP/2.0 4294967301"), world.carrier), kDropped);
  EXPECT_EQ(of(replaced(good, "Via", "X: y\nVia"), world.carrier), kDropped);
  EXPECT_EQ(of("\xff\xfe garbage\r\n\r\n", world.carrier), kDropped);
}

}  // namespace
}  // namespace ktrunk::sip::testing
