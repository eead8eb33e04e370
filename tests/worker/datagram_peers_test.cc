// Whose a datagram is, where a request goes by UDP, and how large it may be.
#include "worker/datagram_peers.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "ipc/shared_region.h"
#include "sip/proxy.h"

namespace ktrunk::worker {
namespace {

constexpr TrunkId kTrunk{0};
constexpr ListenerId kUdp{0}, kOther{1};

Address address(std::string_view text) { return *Address::parse(text); }

class DatagramPeersTest : public testing::Test {
 protected:
  explicit DatagramPeersTest(const std::string& trunk_lines = "targets = ['udp:192.0.2.1', 'udp:192.0.2.2']\n")
      : config_(*config::parse("[[listen]]\ntransport = 'udp'\naddress = '127.0.0.1:5060'\n"
                               "[[listen]]\ntransport = 'udp'\naddress = '127.0.0.1:5070'\n"
                               "[[trunk]]\nname = 'a'\n" +
                                   trunk_lines,
                               "/k.toml")),
        region_(*ipc::SharedRegion::create({.workers = 1, .max_connections = 1, .trunks = 1})),
        peers_(config_, region_) {}
  // As the supervisor does.
  ipc::TrunkEntry::UdpTarget& publish(unsigned place, std::string_view text, std::uint16_t path_mtu = 0) {
    ipc::TrunkEntry::UdpTarget& target = region_.trunk(kTrunk).udp[place];
    target.copies[0] = address(text);
    target.path_mtu = path_mtu;
    target.current.store(1);
    return target;
  }
  std::map<std::string, int> chosen(int transactions = 4000) {
    std::map<std::string, int> counts;
    std::uint64_t hash = 1;
    for (int i = 0; i < transactions; ++i)
      ++counts[peers_.choose(kTrunk, hash = hash * 6364136223846793005u + 1).text()];
    return counts;
  }

  config::Config config_;
  ipc::SharedRegion region_;
  DatagramPeers peers_;
};

TEST_F(DatagramPeersTest, TheFirstAddressThatIsNotDown) {
  EXPECT_TRUE(peers_.choose(kTrunk, 1).empty());
  const unsigned second = ipc::udp_places(2);
  publish(second, "192.0.2.2:5060");
  EXPECT_EQ(chosen(), (std::map<std::string, int>{{"192.0.2.2:5060", 4000}}));
  auto& first = publish(0, "192.0.2.1:5060");
  publish(1, "192.0.2.11:5060");
  EXPECT_EQ(chosen(), (std::map<std::string, int>{{"192.0.2.1:5060", 4000}}));
  first.health.set(ipc::Health::kDown);
  EXPECT_EQ(chosen(), (std::map<std::string, int>{{"192.0.2.11:5060", 4000}}));
  first.health.set(ipc::Health::kUp);
  EXPECT_EQ(chosen(), (std::map<std::string, int>{{"192.0.2.1:5060", 4000}}));
}

class WeightedTargets : public DatagramPeersTest {
 protected:
  WeightedTargets()
      : DatagramPeersTest(
            "targets = ['udp:192.0.2.1;priority=1;weight=3', 'udp:192.0.2.2;priority=1', "
            "'udp:192.0.2.3;priority=2']\n") {
    for (unsigned i = 0; i < 3; ++i) publish(i * kPlaces, fmt::format("192.0.2.{}:5060", i + 1));
  }
  static constexpr unsigned kPlaces = ipc::udp_places(3);
};

TEST_F(WeightedTargets, ShareTheTransactions) {
  const auto counts = chosen();
  ASSERT_EQ(counts.size(), 2u);
  EXPECT_NEAR(counts.at("192.0.2.1:5060"), 3000, 150);
  EXPECT_NEAR(counts.at("192.0.2.2:5060"), 1000, 150);
}

// A CANCEL goes where its INVITE went: what goes down moves its own transactions alone.
TEST_F(WeightedTargets, OneThatGoesDownMovesItsOwnAlone) {
  std::map<std::uint64_t, std::string> before;
  for (std::uint64_t hash = 1; hash < 1000; ++hash)
    before[hash * 0x9e3779b97f4a7c15u] = peers_.choose(kTrunk, hash * 0x9e3779b97f4a7c15u).text();
  region_.trunk(kTrunk).udp[kPlaces].health.set(ipc::Health::kDown);
  for (const auto& [hash, text] : before) EXPECT_EQ(peers_.choose(kTrunk, hash).text(), "192.0.2.1:5060");
  region_.trunk(kTrunk).udp[0].health.set(ipc::Health::kDown);
  EXPECT_EQ(peers_.choose(kTrunk, 7).text(), "192.0.2.3:5060");
  region_.trunk(kTrunk).udp[kPlaces].health.set(ipc::Health::kUp);
  region_.trunk(kTrunk).udp[0].health.set(ipc::Health::kUp);
  for (const auto& [hash, text] : before) EXPECT_EQ(peers_.choose(kTrunk, hash).text(), text);
}

class WithSources : public DatagramPeersTest {
 protected:
  WithSources()
      : DatagramPeersTest(
            "targets = ['udp:192.0.2.1']\nsources = ['198.51.100.0/24']\naccept_on = "
            "['udp:127.0.0.1:5060']\nlisten = 'udp:127.0.0.1:5060'\n") {}
};

TEST_F(WithSources, APeerIsWhereTheTargetIsOrInTheSources) {
  publish(0, "192.0.2.1:5060");
  EXPECT_EQ(peers_.trunk_of(address("192.0.2.1:5060"), kUdp), kTrunk);
  EXPECT_FALSE(peers_.trunk_of(address("192.0.2.1:5061"), kUdp).valid());
  EXPECT_FALSE(peers_.trunk_of(address("192.0.2.1:5060"), kOther).valid());
  EXPECT_EQ(peers_.trunk_of(address("198.51.100.7:1024"), kUdp), kTrunk);
  EXPECT_FALSE(peers_.trunk_of(address("198.51.100.7:1024"), kOther).valid());
  EXPECT_FALSE(peers_.trunk_of(address("198.51.101.7:1024"), kUdp).valid());
}

TEST_F(DatagramPeersTest, ARequestStaysTwoHundredOctetsBelowThePathMtu) {
  publish(0, "192.0.2.1:5060");
  publish(1, "192.0.2.2:5060", 1280);
  publish(2, "192.0.2.3:5060", 9000);
  EXPECT_EQ(peers_.most_request_bytes(kTrunk, address("192.0.2.1:5060")), 1300u);
  EXPECT_EQ(peers_.most_request_bytes(kTrunk, address("192.0.2.2:5060")), 1080u);
  EXPECT_EQ(peers_.most_request_bytes(kTrunk, address("192.0.2.3:5060")), 1300u);
  EXPECT_EQ(peers_.most_request_bytes(kTrunk, address("192.0.2.9:5060")), 1300u);
  static_assert(sip::most_datagram_request_bytes(1500) == 1300);
  static_assert(sip::most_datagram_request_bytes(1499) == 1299);
  static_assert(sip::most_datagram_request_bytes(100) == 0);
}

}  // namespace
}  // namespace ktrunk::worker
