#include "base/ip_network.h"

#include <gtest/gtest.h>

namespace ktrunk {
namespace {

Address address(std::string_view ip) { return *Address::from_ip(ip, 5060); }
bool contains(std::string_view network, std::string_view ip) {
  const auto parsed = IpNetwork::parse(network);
  EXPECT_TRUE(parsed) << parsed.error().what;
  return parsed && parsed->contains(address(ip));
}

TEST(IpNetwork, HoldsWhatBeginsWithItsBits) {
  EXPECT_TRUE(contains("192.0.2.0/24", "192.0.2.0"));
  EXPECT_TRUE(contains("192.0.2.0/24", "192.0.2.255"));
  EXPECT_FALSE(contains("192.0.2.0/24", "192.0.3.0"));
  EXPECT_TRUE(contains("192.0.2.128/25", "192.0.2.129"));
  EXPECT_FALSE(contains("192.0.2.128/25", "192.0.2.127"));
  EXPECT_TRUE(contains("0.0.0.0/0", "255.1.2.3"));
  EXPECT_TRUE(contains("2001:db8::/33", "2001:db8:7fff::1"));
  EXPECT_FALSE(contains("2001:db8::/33", "2001:db8:8000::1"));
  EXPECT_TRUE(contains("::/0", "2001:db8::1"));
}

TEST(IpNetwork, OfALoneAddressIsThatAddress) {
  EXPECT_TRUE(contains("192.0.2.7", "192.0.2.7"));
  EXPECT_FALSE(contains("192.0.2.7", "192.0.2.6"));
  EXPECT_TRUE(contains("2001:db8::7", "2001:db8::7"));
  EXPECT_FALSE(contains("2001:db8::7", "2001:db8::8"));
}

TEST(IpNetwork, IsTheSameHoweverIpv4IsWritten) {
  EXPECT_TRUE(contains("192.0.2.0/24", "::ffff:192.0.2.9"));
  EXPECT_TRUE(contains("::ffff:192.0.2.0/120", "192.0.2.9"));
  EXPECT_FALSE(contains("0.0.0.0/0", "2001:db8::1"));
  EXPECT_FALSE(contains("2001:db8::/32", "32.1.13.184"));
  EXPECT_FALSE(IpNetwork::parse("0.0.0.0/0")->contains(Address()));
}

TEST(IpNetwork, RefusesWhatIsNone) {
  for (const char* text :
       {"", "/", "192.0.2.0/", "192.0.2.0/33", "192.0.2.0/-1", "192.0.2.0/2 4", "192.0.2.1/24", "2001:db8::1/32",
        "2001:db8::/129", "[2001:db8::1]", "192.0.2.0/24/24", "example.com", "192.0.2.7:5060"})
    EXPECT_FALSE(IpNetwork::parse(text)) << text;
}

}  // namespace
}  // namespace ktrunk
