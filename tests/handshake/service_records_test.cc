// The order of servers, and which NAPTR record counts.
#include "handshake/service_records.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace ktrunk::handshake {
namespace {

using config::Transport;
using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> order(std::vector<SrvRecord> records, std::size_t most, std::minstd_rand& random) {
  order_servers(records, most, random);
  std::vector<std::string> hosts;
  for (const SrvRecord& each : records) hosts.push_back(each.host);
  return hosts;
}

TEST(ServiceRecordsTest, PrioritiesComeInOrderAndNoneIsLost) {
  std::minstd_rand random(7);
  for (int i = 0; i < 100; ++i) {
    const auto hosts = order({{.priority = 30, .weight = 0, .port = 1, .host = "d"},
                              {.priority = 10, .weight = 65535, .port = 1, .host = "a"},
                              {.priority = 20, .weight = 65535, .port = 1, .host = "b"},
                              {.priority = 20, .weight = 65535, .port = 1, .host = "c"}},
                             8, random);
    ASSERT_EQ(hosts.size(), 4u);
    EXPECT_EQ(hosts[0], "a");
    EXPECT_NE(hosts[1], hosts[2]);
    EXPECT_EQ(hosts[3], "d");
  }
}

TEST(ServiceRecordsTest, WeightsAreChances) {
  std::minstd_rand random(7);
  std::map<std::string, int> first;
  constexpr int kRounds = 10'000;
  for (int i = 0; i < kRounds; ++i)
    ++first[order({{.priority = 0, .weight = 0, .port = 1, .host = "never-or-so"},
                   {.priority = 0, .weight = 60, .port = 1, .host = "often"},
                   {.priority = 0, .weight = 20, .port = 1, .host = "seldom"},
                   {.priority = 0, .weight = 20, .port = 1, .host = "seldom"}},
                  8, random)
                .front()];
  EXPECT_NEAR(first["often"], kRounds * 0.6, kRounds * 0.05);
  EXPECT_NEAR(first["seldom"], kRounds * 0.4, kRounds * 0.05);
  EXPECT_GT(first["never-or-so"], 0);
  EXPECT_LT(first["never-or-so"], kRounds * 0.05);
}

TEST(ServiceRecordsTest, AnswersAreBounded) {
  std::minstd_rand random(7);
  std::vector<SrvRecord> many;
  for (std::uint16_t i = 0; i < 5000; ++i)
    many.push_back(
        {.priority = static_cast<std::uint16_t>(i / 2), .weight = i, .port = 1, .host = std::to_string(i / 2)});
  EXPECT_THAT(order(many, 4, random), ElementsAre("0", "0", "1", "1"));
  EXPECT_THAT(order({}, 4, random), IsEmpty());
}

TEST(ServiceRecordsTest, OfNaptrRecordsTheFirstOfTheTransportCounts) {
  const std::vector<NaptrRecord> records = {
      {.order = 5, .preference = 1, .flags = "s", .service = "SIP+D2U", .replacement = "udp"},
      {.order = 20, .preference = 1, .flags = "s", .service = "SIPS+D2T", .replacement = "late"},
      {.order = 10, .preference = 50, .flags = "S", .service = "sips+d2t", .replacement = "right"},
      {.order = 10, .preference = 60, .flags = "s", .service = "SIPS+D2T", .replacement = "next"},
      {.order = 1, .preference = 1, .flags = "u", .service = "SIPS+D2T", .replacement = "no-srv"},
      {.order = 1, .preference = 1, .flags = "s", .service = "SIPS+D2T", .replacement = "."}};
  EXPECT_EQ(srv_name_of(records, Transport::kTls), "right");
  EXPECT_EQ(srv_name_of(records, Transport::kUdp), "udp");
  EXPECT_EQ(srv_name_of(records, Transport::kTcp), std::nullopt);
  EXPECT_EQ(srv_name(Transport::kTls, "example.com"), "_sips._tcp.example.com");
  EXPECT_EQ(srv_name(Transport::kTcp, "example.com"), "_sip._tcp.example.com");
  EXPECT_EQ(srv_name(Transport::kUdp, "example.com"), "_sip._udp.example.com");
}

}  // namespace
}  // namespace ktrunk::handshake
