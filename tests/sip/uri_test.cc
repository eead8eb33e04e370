// Uri and NameAddr: what is taken, what is refused.
#include "sip/uri.h"

#include <gtest/gtest.h>

#include "sip/text.h"

namespace ktrunk::sip {
namespace {

TEST(UriTest, AllParts) {
  const auto uri = parse_uri("sip:a%20b;x=1:pw@example.com:5070;transport=tls;lr?Subject=x&y=z");
  ASSERT_TRUE(uri);
  EXPECT_EQ(uri->scheme, Uri::Scheme::kSip);
  EXPECT_EQ(uri->user, "a%20b;x=1");
  EXPECT_EQ(uri->password, "pw");
  EXPECT_EQ(uri->host, "example.com");
  EXPECT_EQ(uri->port, 5070);
  EXPECT_EQ(uri->parameters, ";transport=tls;lr");
  EXPECT_EQ(uri->headers, "?Subject=x&y=z");
  EXPECT_EQ(find_parameter(uri->parameters, "LR"), "");
  EXPECT_EQ(find_parameter(uri->parameters, "transport"), "tls");
  EXPECT_FALSE(find_parameter(uri->parameters, "maddr"));
}

TEST(UriTest, Ipv6References) {
  const auto ambiguous = parse_uri("sip:[2001:db8::10:5070]");
  ASSERT_TRUE(ambiguous);
  EXPECT_EQ(ambiguous->host, "2001:db8::10:5070");
  EXPECT_EQ(ambiguous->port, 0);
  const auto with_port = parse_uri("SIPS:u@[2001:db8::10]:5070;lr");
  ASSERT_TRUE(with_port);
  EXPECT_EQ(with_port->scheme, Uri::Scheme::kSips);
  EXPECT_TRUE(with_port->is_ipv6);
  EXPECT_EQ(with_port->port, 5070);
  EXPECT_TRUE(parse_uri("sip:user@[2001:db8:::192.0.2.1]"));
  EXPECT_FALSE(parse_uri("sip:2001:db8::10"));
  EXPECT_FALSE(parse_uri("sip:[2001:db8::10"));
  EXPECT_FALSE(parse_uri("sip:[]"));
  EXPECT_FALSE(parse_uri("sip:[example.com]"));
}

TEST(UriTest, Refused) {
  for (const char* bad :
       {"",           "sip",          "sip:",      ":a@b",        "sip:@b",        "sip::p@b",  "sip:a@",
        "sip:a@b@c",  "sip:a b@c",    "sip:a@b:",  "sip:a@b:0",   "sip:a@b:65536", "sip:a@b:x", "sip:a%2@b",
        "sip:a%zz@b", "sip:a@b;<",    "sip:a\"@b", "sip:a@b\r\n", "<sip:a@b>",     "1sip:x",    "tel:",
        "tel:abcxyz", "sip:a@b;x=%f", "http: x",   "si p:a"})
    EXPECT_FALSE(parse_uri(bad)) << bad;
}

TEST(UriTest, TelAndOthers) {
  const auto tel = parse_uri("tel:+49-30-123;ext=4");
  ASSERT_TRUE(tel);
  EXPECT_EQ(tel->scheme, Uri::Scheme::kTel);
  EXPECT_EQ(tel->user, "+49-30-123");
  const auto other = parse_uri("soap.beep://192.0.2.103:3002");
  ASSERT_TRUE(other);
  EXPECT_EQ(other->scheme, Uri::Scheme::kOther);
}

TEST(UriTest, UserPrefixIsUnescaped) {
  EXPECT_TRUE(user_has_prefix("+4930", "+49"));
  EXPECT_TRUE(user_has_prefix("%2B4930", "+49"));
  EXPECT_TRUE(user_has_prefix("%2b%34%39", "+49"));
  EXPECT_TRUE(user_has_prefix("", ""));
  EXPECT_FALSE(user_has_prefix("+4", "+49"));
  EXPECT_FALSE(user_has_prefix("%", "+"));
  EXPECT_FALSE(user_has_prefix("%2", "+"));
  EXPECT_FALSE(user_has_prefix("%252B", "+"));  // unescaped once only
}

TEST(UriTest, HostsCompareByValue) {
  EXPECT_TRUE(same_host("Example.COM", "example.com"));
  EXPECT_TRUE(same_host("2001:DB8:0::1", "2001:db8::1"));
  EXPECT_TRUE(same_host("::ffff:192.0.2.1", "192.0.2.1"));
  EXPECT_FALSE(same_host("192.0.2.1", "192.0.2.10"));
  EXPECT_FALSE(same_host("", "192.0.2.10"));
  EXPECT_FALSE(same_host("2001:db8:::1", "2001:db8::2"));
}

TEST(NameAddrTest, Forms) {
  const auto quoted = parse_name_addr("\"A \\\" <sip:no> B\"  <sip:a@b;x>;tag=1");
  ASSERT_TRUE(quoted);
  EXPECT_EQ(quoted->uri, "sip:a@b;x");
  EXPECT_EQ(find_parameter(quoted->parameters, "tag"), "1");
  const auto tight = parse_name_addr("caller<sip:a@b>");
  ASSERT_TRUE(tight);
  EXPECT_EQ(tight->display, "caller");
  const auto bare = parse_name_addr("sip:a@b ; tag = 7 ; q");
  ASSERT_TRUE(bare);
  EXPECT_EQ(bare->uri, "sip:a@b");
  EXPECT_EQ(find_parameter(bare->parameters, "tag"), "7");
  for (const char* bad : {"", "\"open <sip:a@b>", "<sip:a@b", "\"x\" sip:a@b", "Bell, A <sip:a@b>", "<sip:a@b> junk",
                          "sip:a@b?x=y", "sip:a b", "\"x\"", ";tag=1", "a(b) <sip:c>"})
    EXPECT_FALSE(parse_name_addr(bad)) << bad;
}

TEST(ParameterReaderTest, MalformedOnes) {
  for (const char* bad : {";", ";;a", ";a=", ";a=\"x", "a", ";=b", ";a b", ";a=b c"}) {
    ParameterReader reader(bad);
    for (ParameterReader::Parameter parameter; reader.next(parameter);) {
    }
    EXPECT_TRUE(reader.malformed()) << bad;
  }
  ParameterReader reader(" ;\r\n a = \"x;y\" ; b");
  ParameterReader::Parameter parameter;
  ASSERT_TRUE(reader.next(parameter));
  EXPECT_EQ(parameter.value, "\"x;y\"");
  ASSERT_TRUE(reader.next(parameter));
  EXPECT_FALSE(parameter.has_value);
  EXPECT_FALSE(reader.next(parameter));
  EXPECT_FALSE(reader.malformed());
}

TEST(NumberTest, Bounds) {
  EXPECT_EQ(parse_number("0068", 255), 68u);
  EXPECT_EQ(parse_number("255", 255), 255u);
  EXPECT_FALSE(parse_number("256", 255));
  EXPECT_EQ(parse_number("4294967295", 0xffffffff), 0xffffffffu);
  EXPECT_FALSE(parse_number("4294967296", 0xffffffff));
  EXPECT_EQ(parse_number("18446744073709551615", ~std::uint64_t{0}), ~std::uint64_t{0});
  EXPECT_FALSE(parse_number("18446744073709551616", ~std::uint64_t{0}));
  EXPECT_FALSE(parse_number("9", 5));
  for (const char* bad : {"", " 1", "+1", "-1", "1 "}) EXPECT_FALSE(parse_number(bad, 255)) << bad;
}

}  // namespace
}  // namespace ktrunk::sip
