// RouteTable: each condition, and that the first match wins.
#include "sip/route_table.h"

#include <gtest/gtest.h>

namespace ktrunk::sip {
namespace {

config::Route to(std::uint16_t trunk) { return {.to = TrunkId{trunk}}; }

TEST(RouteTableTest, FirstMatchWinsAndEveryConditionCounts) {
  config::Config config;
  config::Route route = to(1);
  route.from_trunk = TrunkId{5};
  route.from_listener = ListenerId{6};
  route.methods = {"INVITE", "MESSAGE"};
  route.user_prefix = "+49";
  route.host = "example.com";
  config.routes = {route, to(2), to(3)};
  const RouteTable table(config);
  const RouteTable::Query exact{TrunkId{5}, ListenerId{6}, "INVITE", "+4930", "EXAMPLE.com"};
  EXPECT_EQ(table.find(exact), TrunkId{1});
  for (const auto change : {0, 1, 2, 3, 4, 5, 6}) {
    auto query = exact;
    if (change == 0) query.from_trunk = TrunkId{4};
    if (change == 1) query.from_listener = ListenerId{};
    if (change == 2) query.method = "BYE";
    if (change == 3) query.user = "+48";
    if (change == 4) query.host = "example.co";
    if (change == 5) query.from_trunk = TrunkId{};
    if (change == 6) query.method = "invite";
    EXPECT_EQ(table.find(query), TrunkId{2}) << change;
  }
}

TEST(RouteTableTest, AckAndCancelFollowTheInvite) {
  config::Config config;
  config::Route route = to(1);
  route.methods = {"INVITE"};
  config.routes = {route};
  const RouteTable table(config);
  for (const char* method : {"INVITE", "ACK", "CANCEL"})
    EXPECT_EQ(table.find({.from_trunk = {}, .from_listener = {}, .method = method, .user = "", .host = "h"}),
              TrunkId{1});
  EXPECT_FALSE(table.find({.from_trunk = {}, .from_listener = {}, .method = "BYE", .user = "", .host = "h"}));
}

TEST(RouteTableTest, Ipv6HostsWithAndWithoutBrackets) {
  config::Config config;
  config::Route route = to(1);
  route.host = "[2001:db8::1]";
  config.routes = {route};
  EXPECT_EQ(RouteTable(config).find(
                {.from_trunk = {}, .from_listener = {}, .method = "A", .user = "", .host = "2001:DB8::1"}),
            TrunkId{1});
}

}  // namespace
}  // namespace ktrunk::sip
