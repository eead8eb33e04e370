// RFC 5922 7: which domains a certificate speaks for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "handshake/peer_identity.h"
#include "handshake/tls_test_pki.h"

namespace ktrunk::handshake {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

test::Pki& pki() {
  static test::Pki made;
  return made;
}

PeerIdentity identity(const std::string& names, const std::string& common_name = "cn.example.com") {
  return read_identity(pki().certificate({.common_name = common_name, .names = names}).get());
}

TEST(PeerIdentity, SipUrisComeFirstAndDnsNamesDoNotCountThen) {
  const auto peer = identity("URI:sip:example.com,DNS:pbx.example.com");
  EXPECT_THAT(peer.sip_domains, ElementsAre("example.com"));
  EXPECT_TRUE(peer.matches("example.com"));
  EXPECT_TRUE(peer.matches("EXAMPLE.Com."));
  EXPECT_FALSE(peer.matches("pbx.example.com"));
  EXPECT_FALSE(peer.matches("cn.example.com"));
}

TEST(PeerIdentity, DnsNamesCountWithoutASipUri) {
  const auto peer = identity("DNS:Pbx.Example.com,URI:https://web.example.com");
  EXPECT_TRUE(peer.matches("pbx.example.com"));
  EXPECT_FALSE(peer.matches("web.example.com"));
  EXPECT_FALSE(peer.matches("example.com"));
  EXPECT_FALSE(peer.matches("a.pbx.example.com"));
  EXPECT_FALSE(peer.matches("cn.example.com"));
}

TEST(PeerIdentity, UsersAndOtherSchemesAreNoDomains) {
  EXPECT_THAT(identity("URI:sip:alice@example.com").sip_domains, IsEmpty());
  EXPECT_THAT(identity("URI:sip:example.com;x=a@b").sip_domains, IsEmpty());
  EXPECT_THAT(identity("URI:sips:example.com").sip_domains, IsEmpty());
  EXPECT_THAT(identity("URI:sip:").sip_domains, IsEmpty());
  EXPECT_THAT(identity("URI:sip:;transport=tls").sip_domains, IsEmpty());
  EXPECT_THAT(identity("URI:sip://example.com").sip_domains, IsEmpty());
  EXPECT_THAT(identity("URI:sip:[2001:db8::1").sip_domains, IsEmpty());
  EXPECT_THAT(identity("URI:sip:[2001:db8::1]x").sip_domains, IsEmpty());
  EXPECT_THAT(identity("URI:sip:[example.com]").sip_domains, IsEmpty());
  EXPECT_FALSE(identity("URI:sip:alice@example.com").matches("example.com"));
}

TEST(PeerIdentity, PortsAndParametersAreNoPartOfTheDomain) {
  EXPECT_THAT(identity("URI:sip:example.com:5061").sip_domains, ElementsAre("example.com"));
  EXPECT_THAT(identity("URI:SIP:Example.Com;transport=tls").sip_domains, ElementsAre("example.com"));
  EXPECT_THAT(identity("URI:sip:[2001:db8:0::1]:5061").sip_domains, ElementsAre("2001:db8::1"));
}

TEST(PeerIdentity, NoWildcard) {
  EXPECT_FALSE(identity("DNS:*.example.com").matches("pbx.example.com"));
  EXPECT_FALSE(identity("DNS:*.example.com").matches("*.example.com"));
  EXPECT_FALSE(identity("", "*.example.com").matches("a.example.com"));
}

TEST(PeerIdentity, CommonNameOnlyWithoutAlternativeNames) {
  EXPECT_TRUE(identity("").matches("CN.example.com"));
  EXPECT_FALSE(identity("DNS:other.example.com").matches("cn.example.com"));
  EXPECT_FALSE(identity("IP:127.0.0.1").matches("cn.example.com"));
  EXPECT_FALSE(identity("URI:https://x").matches("cn.example.com"));
  EXPECT_FALSE(identity("email:a@b").matches("cn.example.com"));
  EXPECT_FALSE(identity("DER:05:00").matches("cn.example.com"));  // no subjectAltName that can be read, but one
}

TEST(PeerIdentity, AddressesAreComparedAsAddresses) {
  const auto peer = identity("IP:192.0.2.1,IP:2001:db8::1,DNS:192.0.2.9");
  EXPECT_TRUE(peer.matches("192.0.2.1"));
  EXPECT_TRUE(peer.matches("2001:DB8:0::1"));
  EXPECT_FALSE(peer.matches("192.0.2.2"));
  EXPECT_FALSE(peer.matches("192.0.2.9"));  // a dNSName is no address
  EXPECT_FALSE(identity("", "192.0.2.1").matches("192.0.2.1"));
}

TEST(PeerIdentity, HostileNamesMatchNothing) {
  const auto peer = identity("DNS:example.com");
  for (const std::string& name : {std::string(), std::string("."), std::string("example.com\0x", 13),
                                  std::string("example.com "), std::string("*"), std::string(1, '\0')})
    EXPECT_FALSE(peer.matches(name)) << name;
  EXPECT_FALSE(identity("", "").matches(""));
  EXPECT_FALSE(PeerIdentity{}.matches("example.com"));
}

TEST(PeerIdentity, EmbeddedNulEndsNoName) {
  // subjectAltName given as bytes: SEQUENCE { [2] "a.example\0.evil" }
  const auto peer = identity("DER:30:11:82:0f:61:2e:65:78:61:6d:70:6c:65:00:2e:65:76:69:6c");
  EXPECT_THAT(peer.dns_names, IsEmpty());
  EXPECT_FALSE(peer.matches("a.example"));
  EXPECT_FALSE(peer.matches("cn.example.com"));
}

TEST(PeerIdentity, MatchingGivesThePlacesOfAList) {
  const auto peer = identity("DNS:b.example.com,DNS:c.example.com");
  const std::vector<std::string> names = {"a.example.com", "b.example.com", "C.example.com", "b.example.com"};
  EXPECT_THAT(peer.matching(names), ElementsAre(1, 2, 3));
  EXPECT_THAT(peer.matching({}), IsEmpty());
}

TEST(PeerIdentity, Describe) {
  EXPECT_EQ(identity("URI:sip:a.example,DNS:b.example,IP:192.0.2.1").describe(), "sip:a.example, b.example, 192.0.2.1");
  EXPECT_EQ(identity("").describe(), "CN=cn.example.com");
  EXPECT_EQ(PeerIdentity{}.describe(), "no name");
  EXPECT_EQ(identity("").subject, "CN=cn.example.com");
}

}  // namespace
}  // namespace ktrunk::handshake
