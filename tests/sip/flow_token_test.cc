// Flow tokens: round trips, one spelling, and that nothing but what we made is believed.
#include "sip/flow_token.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "sip/proxy_world.h"
#include "sip/text.h"

namespace ktrunk::sip {
namespace {

constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

std::vector<Flow> all_kinds() {
  testing::World world;
  Flow empty_udp = world.pbx;
  empty_udp.remote = Address{};
  return {world.carrier,  world.pbx, world.six,
          world.stranger, empty_udp, testing::udp_flow(TrunkId{}, ListenerId{1}, "2001:db8::1234", 65535)};
}

void expect_same(const Flow& made, const Flow& read) {
  EXPECT_EQ(made.transport, read.transport);
  EXPECT_EQ(made.connection, read.connection);
  EXPECT_EQ(made.trunk, read.trunk);
  EXPECT_EQ(made.listener, read.listener);
  if (made.transport == config::Transport::kUdp) {
    EXPECT_EQ(made.remote, read.remote);
  } else {
    EXPECT_TRUE(read.remote.empty());
  }
}

TEST(FlowTokenTest, RoundTrips) {
  const TokenKey key = testing::make_key();
  for (const Flow& a : all_kinds()) {
    const TokenText via = encode_token(ViaToken{a, 0x0123456789abcdef, 0x89abcdef, 0x01234567}, key);
    EXPECT_TRUE(is_token(via.view())) << via.view();
    const auto decoded = decode_via_token(via.view(), key);
    ASSERT_TRUE(decoded);
    if (a.trunk.valid() && a.transport != config::Transport::kUdp) {
      EXPECT_EQ(decoded->source.trunk, a.trunk);
      EXPECT_FALSE(decoded->source.connection.valid()) << "it is beside the branch";
      EXPECT_EQ(parse_flow_hint(FlowHint(a).view()), a.connection);
    } else {
      expect_same(a, decoded->source);
      EXPECT_TRUE(FlowHint(a).view().empty());
    }
    EXPECT_EQ(decoded->transaction, 0x0123456789abcdefu);
    EXPECT_EQ(decoded->loop, 0x89abcdefu);
    EXPECT_EQ(decoded->destination, 0x01234567u);
    for (const Flow& b : all_kinds()) {
      for (const auto lines : {RouteToken::Lines::kOne, RouteToken::Lines::kTwo}) {
        const TokenText route = encode_token(RouteToken{a, b, lines}, key);
        EXPECT_LE(route.view().size(), kMaxTokenChars);
        const auto both = decode_route_token(route.view(), key);
        ASSERT_TRUE(both);
        expect_same(a, both->a);
        expect_same(b, both->b);
        EXPECT_EQ(both->lines, lines);
        EXPECT_FALSE(decode_via_token(route.view(), key)) << "a token is for one place";
      }
    }
    EXPECT_FALSE(decode_route_token(via.view(), key)) << "a token is for one place";
  }
}

// Every single changed bit, and every other character in every place.
TEST(FlowTokenTest, AnyChangeIsNoticed) {
  const TokenKey key = testing::make_key();
  for (const Flow& a : all_kinds()) {
    for (const std::string& text : {std::string(encode_token(ViaToken{a, 99}, key).view()),
                                    std::string(encode_token(RouteToken{a, a}, key).view())}) {
      for (std::size_t i = 0; i < text.size(); ++i) {
        for (const char c : kAlphabet) {
          if (c == text[i]) continue;
          std::string changed = text;
          changed[i] = c;
          EXPECT_FALSE(decode_via_token(changed, key) || decode_route_token(changed, key)) << i << c;
        }
        for (int bit = 0; bit < 8; ++bit) {
          std::string changed = text;
          changed[i] = static_cast<char>(changed[i] ^ (1 << bit));
          EXPECT_FALSE(decode_via_token(changed, key) || decode_route_token(changed, key)) << i << " bit " << bit;
        }
        EXPECT_FALSE(decode_via_token(text.substr(0, i), key) || decode_route_token(text.substr(0, i), key));
      }
      for (const char c : kAlphabet) EXPECT_FALSE(decode_via_token(text + c, key) || decode_route_token(text + c, key));
      EXPECT_FALSE(decode_via_token(text + text, key) || decode_route_token(text + "=", key));
    }
  }
}

TEST(FlowTokenTest, EveryBitOfTheMacKeyMatters) {
  const TokenKey key = testing::make_key();
  testing::World world;
  const TokenText token = encode_token(ViaToken{world.carrier, 1}, key);
  for (std::size_t bit = 0; bit < 16 * 8; ++bit) {
    TokenKey other = key;
    other.bytes[bit / 8] = static_cast<unsigned char>(other.bytes[bit / 8] ^ (1u << (bit % 8)));
    EXPECT_FALSE(decode_via_token(token.view(), other));
  }
}

TEST(FlowTokenTest, Hints) {
  for (const std::string text : {"", "-", "7", "7-", "-7", "7-3-", "7-3x", "g-3", "100000000-1", "1-100000000", " 7-3"})
    EXPECT_FALSE(parse_flow_hint(text).valid()) << text;
  EXPECT_EQ(parse_flow_hint("7-3"), (ConnectionId{SlotIndex{7}, Generation{3}}));
  const Flow highest{
      .connection = {SlotIndex{0xfffffffe}, Generation{0xfffffffe}}, .trunk = TrunkId{1}, .listener = {}, .remote = {}};
  EXPECT_EQ(parse_flow_hint(FlowHint(highest).view()), highest.connection);
}

TEST(FlowTokenTest, Rubbish) {
  const TokenKey key = testing::make_key();
  for (const std::string& text : {std::string(), std::string("A"), std::string(16, 'A'), std::string(17, 'A'),
                                  std::string(5000, 'A'), std::string(40, '\0'), std::string(40, '\xff')}) {
    EXPECT_FALSE(decode_via_token(text, key));
    EXPECT_FALSE(decode_route_token(text, key));
  }
}

}  // namespace
}  // namespace ktrunk::sip
