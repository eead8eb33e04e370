// Via: the grammar with all its white space, and RFC 3581.
#include "sip/via.h"

#include <gtest/gtest.h>

#include "sip/forward.h"

namespace ktrunk::sip {
namespace {

TEST(ViaTest, Plain) {
  const auto via = parse_via("SIP/2.0/UDP host.example.com:5080;branch=z9hG4bK1;rport;maddr=224.2.0.1;x=\"a;b\"");
  ASSERT_TRUE(via);
  EXPECT_EQ(via->transport, "UDP");
  EXPECT_EQ(via->host, "host.example.com");
  EXPECT_EQ(via->port, 5080);
  EXPECT_EQ(via->branch, "z9hG4bK1");
  EXPECT_TRUE(via->has_magic_cookie());
  EXPECT_TRUE(via->wants_rport());
  EXPECT_EQ(via->maddr, "224.2.0.1");
}

TEST(ViaTest, WhiteSpaceEverywhere) {
  const auto via = parse_via("SIP  / 2.0 /\r\n TCP     spindle.example.com  :  5061 ;\r\n  branch  =   z9hG4bK9ikj8  ");
  ASSERT_TRUE(via);
  EXPECT_EQ(via->transport, "TCP");
  EXPECT_EQ(via->host, "spindle.example.com");
  EXPECT_EQ(via->port, 5061);
  EXPECT_EQ(via->branch, "z9hG4bK9ikj8");
}

TEST(ViaTest, Ipv6) {
  const auto via = parse_via("SIP/2.0/UDP [2001:db8::9:1]:6000;received=[2001:db8::9:255];branch=z9hG4bKas3");
  ASSERT_TRUE(via);
  EXPECT_EQ(via->host, "2001:db8::9:1");
  EXPECT_EQ(via->port, 6000);
  EXPECT_EQ(via->received, "2001:db8::9:255");
  EXPECT_EQ(parse_via("SIP/2.0/UDP [::1];received=2001:db8::9:255;branch=z")->received, "2001:db8::9:255");
}

TEST(ViaTest, Refused) {
  for (const char* bad : {"",
                          "SIP/2.0/UDP",
                          "SIP/2.0/UDPhost",
                          "SIP/2.0 UDP h",
                          "SIP/3.0/UDP h",
                          "HTTP/2.0/UDP h",
                          "SIP/2.0/UDP h;;",
                          "SIP/2.0/UDP h;branch=",
                          "SIP/2.0/UDP h:0",
                          "SIP/2.0/UDP h:99999",
                          "SIP/2.0/UDP h:",
                          "SIP/2.0/UDP [::1",
                          "SIP/2.0/UDP 2001:db8::1",
                          "SIP/2.0/UDP h;branch=a;branch=b",
                          "SIP/2.0/UDP h;received=1.2.3.4;received=5.6.7.8",
                          "SIP/2.0/UDP h;branch",
                          "SIP/2.0/UDP h junk",
                          "SIP/2.0/UDP h;rport;RPORT=5",
                          "SIP/2.0/UDP h, SIP/2.0/UDP i",
                          "SIP/2.0/UDP h;x=\"open"})
    EXPECT_FALSE(parse_via(bad)) << bad;
}

TEST(ViaTest, CookieNeedsMoreThanItself) {
  EXPECT_FALSE(parse_via("SIP/2.0/UDP h;branch=z9hG4bK")->has_magic_cookie());
  EXPECT_FALSE(parse_via("SIP/2.0/UDP h;branch=12345678")->has_magic_cookie());
  EXPECT_FALSE(parse_via("SIP/2.0/UDP h")->has_magic_cookie());
  EXPECT_TRUE(parse_via("SIP/2.0/UDP h;branch=Z9HG4BKx")->has_magic_cookie());
}

std::string amended(std::string_view text, std::string_view ip, std::uint16_t port) {
  const auto via = parse_via(text).value();
  const auto changes = top_via_changes(via, Address::from_ip(ip, port).value());
  std::string out(via.text);
  for (std::size_t i = changes.count; i > 0; --i) {
    const auto& change = changes.list[i - 1];
    out.replace(static_cast<std::size_t>(change.place.data() - via.text.data()), change.place.size(),
                std::string(change.text.view()));
  }
  return out;
}

TEST(ViaTest, ReceivedAndRport) {
  EXPECT_EQ(amended("SIP/2.0/UDP 192.0.2.1:5060;branch=z", "192.0.2.1", 9), "SIP/2.0/UDP 192.0.2.1:5060;branch=z");
  EXPECT_EQ(amended("SIP/2.0/UDP 192.0.2.1;branch=z", "192.0.2.2", 9),
            "SIP/2.0/UDP 192.0.2.1;branch=z;received=192.0.2.2");
  EXPECT_EQ(amended("SIP/2.0/UDP name;branch=z", "2001:db8::2", 9), "SIP/2.0/UDP name;branch=z;received=2001:db8::2");
  EXPECT_EQ(amended("SIP/2.0/UDP [2001:DB8:0::2];branch=z", "2001:db8::2", 9), "SIP/2.0/UDP [2001:DB8:0::2];branch=z");
  EXPECT_EQ(amended("SIP/2.0/UDP 192.0.2.1;branch=z", "::ffff:192.0.2.1", 9), "SIP/2.0/UDP 192.0.2.1;branch=z");
  EXPECT_EQ(amended("SIP/2.0/UDP 192.0.2.1;rport;branch=z", "192.0.2.1", 9),
            "SIP/2.0/UDP 192.0.2.1;rport=9;branch=z;received=192.0.2.1");
  // What the peer claims of itself is not believed.
  EXPECT_EQ(amended("SIP/2.0/UDP h;rport = 1;received=9.9.9.9;branch=z", "192.0.2.1", 9),
            "SIP/2.0/UDP h;rport=9;received=192.0.2.1;branch=z");
  EXPECT_EQ(amended("SIP/2.0/UDP h;received=[::9];rport=1", "192.0.2.1", 9),
            "SIP/2.0/UDP h;received=192.0.2.1;rport=9");
}

TEST(ViaTest, WhereResponsesGo) {
  const Address source = Address::from_ip("192.0.2.1", 40000).value();
  EXPECT_EQ(response_address(*parse_via("SIP/2.0/UDP h;rport"), source).text(), "192.0.2.1:40000");
  EXPECT_EQ(response_address(*parse_via("SIP/2.0/UDP h:5090"), source).text(), "192.0.2.1:5090");
  EXPECT_EQ(response_address(*parse_via("SIP/2.0/UDP h;maddr=10.0.0.1"), source).text(), "192.0.2.1:5060");
}

}  // namespace
}  // namespace ktrunk::sip
