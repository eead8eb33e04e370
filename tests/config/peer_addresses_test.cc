// Which trunk a peer is by its address, and what a file may say about it.
#include "config/peer_addresses.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ktrunk::config {
namespace {

using testing::HasSubstr;

constexpr ListenerId kTls{0}, kTcp{1}, kUdp{2};
const std::string kListeners =
    "[[listen]]\nname = 'tls'\ntransport = 'tls'\naddress = '127.0.0.1:5061'\ncertificate = 'a'\nkey = 'b'\n"
    "[[listen]]\nname = 'tcp'\ntransport = 'tcp'\naddress = '127.0.0.1:5060'\n"
    "[[listen]]\nname = 'udp'\ntransport = 'udp'\naddress = '127.0.0.1:5060'\n";

Config config_of(const std::string& trunks, const std::string& listeners = kListeners) {
  const auto config = parse(listeners + trunks, "/k.toml");
  EXPECT_TRUE(config) << config.error().what;
  return config.value_or(Config{});
}
std::string error_of(const std::string& trunks, const std::string& listeners = kListeners) {
  const auto config = parse(listeners + trunks, "/k.toml");
  return config ? "" : config.error().what;
}
TrunkId find(const Config& config, const char* ip, ListenerId listener) {
  return PeerAddresses(config).find(*Address::from_ip(ip, 40000), listener);
}

TEST(PeerAddresses, TheLongestPrefixCountsThenTheFileOrder) {
  const Config config = config_of(
      "[[trunk]]\nname = 'office'\ntargets = ['tcp:10.0.0.9']\nsources = ['10.0.0.0/8', '2001:db8::/32']\n"
      "[[trunk]]\nname = 'pbx'\ntargets = ['udp:10.0.0.9']\nsources = ['10.0.0.20', '10.7.0.0/16']\n"
      "[[trunk]]\nname = 'again'\ntargets = ['tcp:10.0.0.9']\nsources = ['10.7.0.0/16']\n");
  EXPECT_EQ(find(config, "10.0.0.20", kTcp), TrunkId{1});
  EXPECT_EQ(find(config, "10.0.0.21", kTcp), TrunkId{0});
  EXPECT_EQ(find(config, "10.7.1.1", kUdp), TrunkId{1});
  EXPECT_EQ(find(config, "2001:db8::5", kTls), TrunkId{0});
  EXPECT_FALSE(find(config, "192.0.2.1", kTcp).valid());
  EXPECT_FALSE(PeerAddresses(config).find(Address(), kTcp).valid());
}

TEST(PeerAddresses, OfTheListenersThatATrunkTakes) {
  const Config config = config_of(
      "[[trunk]]\nname = 'a'\ntargets = ['tcp:10.0.0.9']\nsources = ['10.0.0.0/24']\naccept_on = ['tcp']\n"
      "[[trunk]]\nname = 'b'\ntargets = ['tcp:10.0.0.9']\nsources = ['10.0.0.0/16']\naccept_on = ['udp', 'tls']\n");
  EXPECT_EQ(find(config, "10.0.0.1", kTcp), TrunkId{0});
  EXPECT_EQ(find(config, "10.0.0.1", kUdp), TrunkId{1});
  EXPECT_EQ(find(config, "10.0.0.1", kTls), TrunkId{1});
  EXPECT_FALSE(find(config, "10.0.1.1", kTcp).valid());
}

TEST(PeerAddresses, TrunksKnownByCertificateAreNotFoundByAddress) {
  const std::string asks =
      "[[listen]]\nname = 'mutual'\ntransport = 'tls'\naddress = '127.0.0.1:5071'\n"
      "certificate = 'a'\nkey = 'b'\nca = 'c'\nverify_client = 'require'\n";
  const Config config =
      config_of("[[trunk]]\nname = 'a'\ntargets = ['tls:a.example']\nsources = ['10.0.0.0/24']\n", kListeners + asks);
  EXPECT_EQ(config.trunks[0].known_by, KnownBy::kCertificate);
  EXPECT_FALSE(find(config, "10.0.0.1", ListenerId{3}).valid());
  EXPECT_TRUE(PeerAddresses::admits(config.trunks[0], *Address::from_ip("10.0.0.1", 1), ListenerId{3}));
  EXPECT_FALSE(PeerAddresses::admits(config.trunks[0], *Address::from_ip("10.0.1.1", 1), ListenerId{3}));
  const Config open = config_of("[[trunk]]\nname = 'a'\ntargets = ['tls:a.example']\n");
  EXPECT_TRUE(PeerAddresses::admits(open.trunks[0], *Address::from_ip("10.0.1.1", 1), kTls));
}

TEST(PeerAddresses, HowPeersAreKnownWithoutAWord) {
  EXPECT_EQ(config_of("[[trunk]]\nname = 'a'\ntargets = ['udp:10.0.0.9']\n").trunks[0].known_by, KnownBy::kAddress);
  EXPECT_EQ(config_of("[[trunk]]\nname = 'a'\nsources = ['10.0.0.9']\n").trunks[0].known_by, KnownBy::kAddress);
  const Config tls = config_of(
      "[[trunk]]\nname = 'a'\ntargets = ['tls:a.example']\nsources = ['10.0.0.0/24']\nknown_by = 'address'\n");
  EXPECT_EQ(find(tls, "10.0.0.3", kTls), TrunkId{0});
}

TEST(PeerAddresses, WhatAFileMayNotSay) {
  const std::string trunk = "[[trunk]]\nname = 'a'\n";
  EXPECT_THAT(error_of(trunk + "sources = ['10.0.0.1/8']\n"),
              HasSubstr("'trunk[0].sources[0]': '10.0.0.1/8' has bits"));
  EXPECT_THAT(error_of(trunk + "sources = []\n"), HasSubstr("'trunk[0].sources': no source"));
  EXPECT_THAT(error_of(trunk), HasSubstr("'trunk[0].verify_name': missing"));
  EXPECT_THAT(error_of(trunk + "targets = ['tls:a.example']\nknown_by = 'address'\n"),
              HasSubstr("'trunk[0].sources': missing"));
  EXPECT_THAT(error_of(trunk + "sources = ['10.0.0.1']\nverify_name = 'a'\nknown_by = 'address'\n"),
              HasSubstr("'trunk[0].verify_name': known_by is \"address\""));
  EXPECT_THAT(error_of(trunk + "targets = ['tcp:10.0.0.1']\nknown_by = 'certificate'\n"),
              HasSubstr("'trunk[0].known_by': no target is a \"tls:\" one"));
  EXPECT_THAT(error_of(trunk + "targets = ['tls:a.example']\nsources = ['10.0.0.1']\n"),
              HasSubstr("'trunk[0].sources': no listener that its peers may come by asks for client certificates"));
  EXPECT_THAT(error_of(trunk + "targets = ['tcp:10.0.0.1']\naccept_on = ['tcp']\n"),
              HasSubstr("'trunk[0].accept_on': nothing says who comes there"));
  EXPECT_THAT(error_of(trunk + "sources = ['10.0.0.1']\naccept_on = ['none']\n"),
              HasSubstr("'trunk[0].accept_on[0]': no listener is named 'none'"));
}

TEST(Targets, ByPriorityAndWeight) {
  const Config config = config_of(
      "[[trunk]]\nname = 'a'\ntargets = ['tcp:c.example', 'tcp:a.example:5070;priority=1;weight=3', "
      "'tcp:b.example;weight=2;priority=1']\n");
  const std::vector<Target>& targets = config.trunks[0].targets;
  ASSERT_EQ(targets.size(), 3u);
  EXPECT_EQ(targets[0].host, "c.example");  // priority 1, being the first
  EXPECT_EQ(targets[0].weight, 1);
  EXPECT_EQ(targets[1].host, "a.example");
  EXPECT_EQ(targets[1].port, 5070);
  EXPECT_EQ(targets[1].weight, 3);
  EXPECT_EQ(targets[2].priority, 1);
  EXPECT_EQ(targets[2].weight, 2);
  const Config ordered = config_of("[[trunk]]\nname = 'a'\ntargets = ['tcp:b.example;priority=7', 'tcp:c.example']\n");
  EXPECT_EQ(ordered.trunks[0].targets[0].host, "c.example");
  EXPECT_EQ(ordered.trunks[0].targets[0].priority, 2);
  for (const char* wrong : {"tcp:a;", "tcp:a;weight", "tcp:a;weight=", "tcp:a;weight=0", "tcp:a;weight=65536",
                            "tcp:a;weight=-1", "tcp:a;lr", "tcp:a;priority=0", "tcp:a;weight=1;"})
    EXPECT_THAT(error_of(std::string("[[trunk]]\nname = 'a'\ntargets = ['") + wrong + "']\n"),
                HasSubstr("expected priority=N or weight=N"))
        << wrong;
}

}  // namespace
}  // namespace ktrunk::config
