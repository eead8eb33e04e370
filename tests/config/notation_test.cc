#include "config/notation.h"

#include <gtest/gtest.h>

namespace ktrunk::config {
namespace {

using std::chrono::milliseconds;

TEST(DurationTest, WholeNumbersWithUnits) {
  EXPECT_EQ(parse_duration("0ms").value(), milliseconds(0));
  EXPECT_EQ(parse_duration("500ms").value(), milliseconds(500));
  EXPECT_EQ(parse_duration("30s").value(), milliseconds(30'000));
  EXPECT_EQ(parse_duration("5m").value(), milliseconds(300'000));
  EXPECT_EQ(parse_duration("8760h").value(), milliseconds(31'536'000'000));
}

TEST(DurationTest, NothingElse) {
  for (const char* text : {"", "s", "30", "-1s", "+1s", " 1s", "1s ", "1 s", "1.5s", "1d", "1S", "1sec", "8761h",
                           "99999999999999999999s", "9223372036854775807ms", "0x1s"})
    EXPECT_FALSE(parse_duration(text)) << text;
}

TEST(TargetTest, PortsDefaultByTransport) {
  const auto tls = parse_target("tls:sip.example.com");
  ASSERT_TRUE(tls);
  EXPECT_EQ(tls->transport, Transport::kTls);
  EXPECT_EQ(tls->host, "sip.example.com");
  EXPECT_EQ(tls->port, 0);  // the DNS says it
  EXPECT_EQ(default_port(Transport::kTls), 5061);
  EXPECT_EQ(parse_target("tcp:[::1]")->port, 5060);
  EXPECT_EQ(parse_target("tcp:[::1]")->host, "::1");
  EXPECT_EQ(parse_target("udp:10.0.0.1:65535")->port, 65535);
}

TEST(TargetTest, Malformed) {
  for (const char* text :
       {"",         "tls",       "tls:",          "TLS:a",    "tls:a:",        "tls:a:0",    "tls:a:65536",
        "tls:a:+1", "tls:a:1x",  "tls:::1",       "tls:[::1", "tls:[::1]5061", "tls:[::1]:", "tls:[1.2.3.4]",
        "tls:[]",   "tls:[::g]", "tls:a b",       "tls:-a",   "tls:a-",        "tls:a..b",   "tls:.a",
        "tls:.",    "tls:1.2.3", "tls:1.2.3.4.5", "tls:a/b",  "tls:a@b",       "tls:a%b",    "udp:999"})
    EXPECT_FALSE(parse_target(text)) << text;
}

TEST(ShareTest, Percentages) {
  EXPECT_EQ(parse_share("100%")->millionths, Share::kAll);
  EXPECT_EQ(parse_share("100.0000%")->millionths, Share::kAll);
  EXPECT_EQ(parse_share("0%")->millionths, 0u);
  EXPECT_EQ(parse_share("2.5%")->millionths, 25'000u);
  EXPECT_EQ(parse_share("0.0001%")->millionths, 1u);
  EXPECT_EQ(parse_share("07%")->millionths, 70'000u);
  for (const char* text : {"", "%", "1", "-1%", "+1%", "101%", "100.0001%", "1.00001%", "1.%", ".5%", "1 %", "1,5%",
                           "1.5.5%", "9999999999999999999999%", "1%%", "a%"})
    EXPECT_FALSE(parse_share(text)) << text;
}

TEST(HostTest, LengthsOfLabelsAndNames) {
  EXPECT_TRUE(check_host(std::string(63, 'a')));
  EXPECT_FALSE(check_host(std::string(64, 'a')));
  std::string name;
  while (name.size() < 250) name += "abcd.";
  EXPECT_TRUE(check_host(name + "abc"));
  EXPECT_FALSE(check_host(name + "abcd"));
  EXPECT_TRUE(check_host("_sips._tcp.example.com."));
  EXPECT_TRUE(check_host("fe80::1"));
  EXPECT_FALSE(check_host("[fe80::1]"));
}

TEST(HostTest, BracketsForIpv6Alone) {
  EXPECT_EQ(uri_host("::1"), "[::1]");
  EXPECT_EQ(uri_host("127.0.0.1"), "127.0.0.1");
  EXPECT_EQ(uri_host("a.example"), "a.example");
}

}  // namespace
}  // namespace ktrunk::config
