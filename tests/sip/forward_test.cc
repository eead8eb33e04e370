// forward_request: the exact bytes.
#include <gtest/gtest.h>

#include <algorithm>

#include "sip/proxy_world.h"

namespace ktrunk::sip::testing {
namespace {

std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size() - 1);
    lines.emplace_back(text.substr(0, end + 1));
    text.remove_prefix(end + 1);
  }
  return lines;
}

TEST(ForwardTest, OnlyTheNamedLinesChange) {
  World world;
  const std::string original = invite("X-Odd :  \t value ;;; ,\nSubject: folded\n  twice\n \n");
  const std::string sent = world.forward(original, world.pbx, world.carrier);
  auto before = lines_of(original);
  auto after = lines_of(sent);
  ASSERT_EQ(after.size(), before.size() + 3);
  EXPECT_EQ(after[0], before[0]);
  EXPECT_TRUE(after[1].starts_with("Via: SIP/2.0/TLS edge.example.net:5061;branch=z9hG4bK")) << after[1];
  EXPECT_TRUE(after[2].starts_with("Record-Route: <sip:"));
  EXPECT_TRUE(after[2].ends_with("@edge.example.net:5061;transport=tls;lr>\r\n")) << after[2];
  EXPECT_TRUE(after[3].ends_with("@192.0.2.10:5060;transport=udp;lr>\r\n")) << after[3];
  after.erase(after.begin() + 1, after.begin() + 4);
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (before[i] == "Max-Forwards: 70\r\n") {
      EXPECT_EQ(after[i], "Max-Forwards: 69\r\n");
    } else {
      EXPECT_EQ(after[i], before[i]);
    }
  }
}

TEST(ForwardTest, RecordRouteGoesAboveTheOthers) {
  World world;
  const std::string sent =
      world.forward(invite("Record-Route: <sip:p1;lr>\nRecord-Route: <sip:p0;lr>\n"), world.pbx, world.carrier);
  const auto values = headers(sent, "Record-Route");
  ASSERT_EQ(values.size(), 4u);
  EXPECT_EQ(values[2], "<sip:p1;lr>");
  EXPECT_EQ(values[3], "<sip:p0;lr>");
}

TEST(ForwardTest, WhichRequestsAreRecordRouted) {
  World world;
  for (const auto& [method, count] : std::initializer_list<std::pair<std::string, std::size_t>>{
           {"INVITE", 2}, {"SUBSCRIBE", 2}, {"REFER", 2}, {"OPTIONS", 0}, {"MESSAGE", 0}, {"BYE", 0}, {"CANCEL", 0}}) {
    for (const std::string tag : {"", ";tag=2"}) {
      const std::string text =
          crlf(method + " sip:x@six.example.net SIP/2.0\nv: SIP/2.0/TLS h;branch=z9hG4bK1\n" +
               "f: <sip:a@b>;tag=1\nt: <sip:c@d>" + tag + "\ni: c\nCSeq: 1 " + method + "\nl: 0\n\n");
      EXPECT_EQ(headers(world.forward(text, world.stranger, world.six), "Record-Route").size(), tag.empty() ? count : 0)
          << method << tag;
    }
  }
}

TEST(ForwardTest, SipsStaysSips) {
  World world;
  const std::string sent = world.forward(invite("", "sips:+49@x"), world.carrier, world.carrier);
  for (const std::string& value : headers(sent, "Record-Route")) {
    EXPECT_TRUE(value.starts_with("<sips:")) << value;
    EXPECT_EQ(value.find("transport"), std::string::npos);
  }
}

TEST(ForwardTest, ADatagramIsMadeFitForAStream) {
  World world;
  const std::string text = crlf(
      "INVITE sip:+49@x SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.77\nFrom: sip:a@b\nTo: sip:c@d\nCall-ID: c\nCSeq: 1 "
      "INVITE\n\n");
  const std::string sent = world.forward(text + "body", world.pbx, world.carrier);
  EXPECT_EQ(headers(sent, "Content-Length"), std::vector<std::string>{"4"});
  EXPECT_EQ(headers(sent, "Max-Forwards"), std::vector<std::string>{"70"});
  EXPECT_TRUE(sent.ends_with("\r\n\r\nbody"));
  const std::string trailing = world.forward(invite() + "INVITE smuggled", world.pbx, world.carrier);
  EXPECT_EQ(trailing.find("smuggled"), std::string::npos);
}

TEST(ForwardTest, UdpAsksForRport) {
  World world;
  const std::string sent = world.forward(invite(), world.carrier, world.pbx);
  EXPECT_TRUE(headers(sent, "Via")[0].starts_with("SIP/2.0/UDP 192.0.2.10:5060;rport;branch=z9hG4bK"));
  EXPECT_TRUE(headers(sent, "Via")[1].ends_with(";received=203.0.113.5"));
  const std::string six = world.forward(invite(), world.carrier, world.six);
  EXPECT_TRUE(headers(six, "Via")[0].starts_with("SIP/2.0/TCP [2001:db8::10]:5060;branch=z9hG4bK"));
}

TEST(ForwardTest, WhatWasNotDecidedIsNotForwarded) {
  World world;
  for (const std::string& text : {std::string("SIP/2.0 200 OK\r\nl: 0\r\n\r\n"), std::string("garbage"), std::string(),
                                  std::string("INVITE sip:a@b SIP/2.0\r\nl: 0\r\n\r\n")}) {
    world.message.parse(text, Carrier::kStream);
    world.proxy.forward_request(world.message, world.pbx, world.carrier, world.edits);
    EXPECT_TRUE(world.edits.failed()) << text;
  }
}

TEST(ForwardTest, AHostNameThatDoesNotFitFailsInsteadOfBeingCut) {
  World world;
  world.config.listeners[0].advertise_host = std::string(255, 'h');
  const Proxy fits(world.config, make_key());
  const std::string text = invite();
  world.message.parse(text, Carrier::kStream);
  fits.forward_request(world.message, world.pbx, world.carrier, world.edits);
  EXPECT_FALSE(world.edits.failed());
  world.config.listeners[0].advertise_host = std::string(700, 'h');
  const Proxy too_long(world.config, make_key());
  too_long.forward_request(world.message, world.pbx, world.carrier, world.edits);
  EXPECT_TRUE(world.edits.failed());
}

}  // namespace
}  // namespace ktrunk::sip::testing
