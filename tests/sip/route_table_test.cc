// RouteTable: each condition, and that the first match wins.
#include "sip/route_table.h"

#include <gtest/gtest.h>

namespace ktrunk::sip {
namespace {

config::Route to(std::uint16_t trunk) { return {.to = {TrunkId{trunk}}}; }

// The trunk that the table names first; none without a route.
std::optional<TrunkId> found(const RouteTable& table, const RouteTable::Query& query) {
  const config::Route* route = table.find(query);
  return route == nullptr ? std::nullopt : std::optional(route->to.front());
}

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
  EXPECT_EQ(found(table, exact), TrunkId{1});
  for (const auto change : {0, 1, 2, 3, 4, 5, 6}) {
    auto query = exact;
    if (change == 0) query.from_trunk = TrunkId{4};
    if (change == 1) query.from_listener = ListenerId{};
    if (change == 2) query.method = "BYE";
    if (change == 3) query.user = "+48";
    if (change == 4) query.host = "example.co";
    if (change == 5) query.from_trunk = TrunkId{};
    if (change == 6) query.method = "invite";
    EXPECT_EQ(found(table, query), TrunkId{2}) << change;
  }
}

TEST(RouteTableTest, AckAndCancelFollowTheInvite) {
  config::Config config;
  config::Route route = to(1);
  route.methods = {"INVITE"};
  config.routes = {route};
  const RouteTable table(config);
  for (const char* method : {"INVITE", "ACK", "CANCEL"})
    EXPECT_EQ(found(table, {.from_trunk = {}, .from_listener = {}, .method = method, .user = "", .host = "h"}),
              TrunkId{1});
  EXPECT_FALSE(found(table, {.from_trunk = {}, .from_listener = {}, .method = "BYE", .user = "", .host = "h"}));
}

TEST(RouteTableTest, Ipv6HostsWithAndWithoutBrackets) {
  config::Config config;
  config::Route route = to(1);
  route.host = "[2001:db8::1]";
  config.routes = {route};
  EXPECT_EQ(found(RouteTable(config),
                  {.from_trunk = {}, .from_listener = {}, .method = "A", .user = "", .host = "2001:DB8::1"}),
            TrunkId{1});
}

RouteTable::Query for_user(std::string_view user) {
  return {.from_trunk = {}, .from_listener = {}, .method = "INVITE", .user = user, .host = "h"};
}

TEST(RouteTableTest, TheExpressionIsForTheWholeUserWithoutEscapes) {
  config::Config config;
  config::Route route = to(1);
  route.user_match = R"(\+49(30|40)[0-9]+)";
  config.routes = {route};
  const RouteTable table(config);
  for (const char* user : {"+49301", "+494012345", "%2b49301", "+4%39301", "%2B%34%39%33%30%31"})
    EXPECT_TRUE(found(table, for_user(user))) << user;
  for (const char* user :
       {"", "+4930", "x+49301", "+49301x", "+49501", "+49301;npdi", "+49301%00", "+49301%", "%", "\xff"})
    EXPECT_FALSE(found(table, for_user(user))) << user;
  EXPECT_FALSE(found(table, for_user(std::string(16000, '%'))));
  std::string long_user = "+4930";
  for (int i = 0; i < 5000; ++i) long_user += "%31";
  EXPECT_TRUE(found(table, for_user(long_user)));
}

TEST(RouteTableTest, AnEvilExpressionTakesLinearTime) {
  config::Config config;
  config::Route route = to(1);
  route.user_match = "(a*)*(a|aa)*(a|b?)*c";
  config.routes = {route};
  const RouteTable table(config);
  EXPECT_FALSE(found(table, for_user(std::string(16000, 'a'))));
}

TEST(RouteTableTest, HeadersMustBeThereInFullOrCompact) {
  config::Config config;
  config::Route route = to(1);
  route.has_headers = {config::header_name("x-carrier"), config::header_name("Session-Expires")};
  config.routes = {route};
  const RouteTable table(config);
  const auto fits = [&](std::string_view fields, std::string_view method = "INVITE") {
    std::string text = "INVITE sip:u@h SIP/2.0\r\n";
    text.append(fields).append("\r\n");
    Message message;
    message.parse(text, Carrier::kDatagram);
    RouteTable::Query query = for_user("u");
    query.method = method;
    query.request = &message;
    return found(table, query).has_value();
  };
  EXPECT_TRUE(fits("X-Carrier: a\r\nSession-Expires: 90\r\n"));
  EXPECT_TRUE(fits("x: 90\r\nTo: a\r\nX-CARRIER:\r\n"));
  EXPECT_FALSE(fits("X-Carrier: a\r\n"));
  EXPECT_FALSE(fits("X: 90\r\nX-Carriers: a\r\n"));
  EXPECT_FALSE(fits(""));
  EXPECT_FALSE(found(table, for_user("u")));
  // What has none of its INVITE's header fields must not part from it because of those that it has.
  EXPECT_FALSE(fits("X-Carrier: a\r\nSession-Expires: 90\r\n", "CANCEL"));
  EXPECT_FALSE(fits("X-Carrier: a\r\nSession-Expires: 90\r\n", "ACK"));
}

}  // namespace
}  // namespace ktrunk::sip
