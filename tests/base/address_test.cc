#include "base/address.h"

#include <gtest/gtest.h>
#include <sys/un.h>

#include <cstring>
#include <type_traits>

namespace ktrunk {
namespace {

static_assert(std::is_trivially_copyable_v<Address>, "it crosses process boundaries as bytes");

TEST(AddressTest, Ipv4) {
  const auto address = Address::parse("192.0.2.1:5061");
  ASSERT_TRUE(address);
  EXPECT_EQ(address->family(), AF_INET);
  EXPECT_EQ(address->port(), 5061);
  EXPECT_EQ(address->ip(), "192.0.2.1");
  EXPECT_EQ(address->host(), "192.0.2.1");
  EXPECT_EQ(address->text(), "192.0.2.1:5061");
  EXPECT_EQ(address->size(), sizeof(sockaddr_in));
  EXPECT_EQ(address->ip_bytes(), std::string_view("\xc0\0\2\1", 4));
}

TEST(AddressTest, Ipv6) {
  const auto address = Address::parse("[2001:DB8:0::1]:5060");
  ASSERT_TRUE(address);
  EXPECT_EQ(address->family(), AF_INET6);
  EXPECT_EQ(address->port(), 5060);
  EXPECT_EQ(address->ip(), "2001:db8::1");
  EXPECT_EQ(address->host(), "[2001:db8::1]");
  EXPECT_EQ(address->text(), "[2001:db8::1]:5060");
  EXPECT_EQ(address->size(), sizeof(sockaddr_in6));
  EXPECT_EQ(address->ip_bytes().size(), 16u);
}

TEST(AddressTest, Malformed) {
  for (const char* text :
       {"",           ":",          "1.2.3.4",     "1.2.3.4:",    "1.2.3.4:x",   "1.2.3.4:-1",    "1.2.3.4:65536",
        "1.2.3.4:1 ", " 1.2.3.4:1", "1.2.3:1",     "1.2.3.4.5:1", "::1:5061",    "[::1]",         "[::1:5061",
        "::1]:5061",  "[]:1",       "[1.2.3.4]:1", "[::g]:1",     "localhost:1", "[fe80::1%lo]:1"})
    EXPECT_FALSE(Address::parse(text)) << text;
}

TEST(AddressTest, AZeroByteDoesNotHideWhatFollows) {
  using namespace std::string_view_literals;
  EXPECT_FALSE(Address::from_ip("127.0.0.1\0x"sv, 1)) << "inet_pton stops at the zero byte";
}

TEST(AddressTest, EmptyUntilGiven) {
  const Address address;
  EXPECT_TRUE(address.empty());
  EXPECT_EQ(address.port(), 0);
  EXPECT_EQ(address.ip(), "");
  EXPECT_EQ(address.text(), "-");
  EXPECT_TRUE(address.ip_bytes().empty());
  EXPECT_EQ(address, Address());
}

TEST(AddressTest, EqualityIsOfIpAndPort) {
  EXPECT_EQ(*Address::parse("127.0.0.1:1"), *Address::parse("127.0.0.1:1"));
  EXPECT_NE(*Address::parse("127.0.0.1:1"), *Address::parse("127.0.0.1:2"));
  EXPECT_NE(*Address::parse("127.0.0.1:1"), *Address::parse("127.0.0.2:1"));
  EXPECT_NE(*Address::parse("[::1]:1"), *Address::parse("127.0.0.1:1"));
  EXPECT_NE(*Address::parse("[::1]:1"), Address());
}

TEST(AddressTest, FromSockaddr) {
  const auto v6 = Address::parse("[::1]:7");
  ASSERT_TRUE(v6);
  EXPECT_EQ(Address::from_sockaddr(v6->data(), v6->size()), *v6);
  EXPECT_TRUE(Address::from_sockaddr(v6->data(), v6->size() - 1).empty()) << "cut short";
  sockaddr_un local = {.sun_family = AF_UNIX, .sun_path = "/x"};
  EXPECT_TRUE(Address::from_sockaddr(reinterpret_cast<sockaddr*>(&local), sizeof local).empty());
}

}  // namespace
}  // namespace ktrunk
