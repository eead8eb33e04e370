// Message: start-lines, header index, value lists, and what is a defect.
#include "sip/message.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "sip/proxy_world.h"

namespace ktrunk::sip {
namespace {

using testing::crlf;

Message parsed(std::string_view bytes, Carrier carrier = Carrier::kDatagram) {
  Message message;
  message.parse(bytes, carrier);
  return message;
}
int defect_of(std::string_view bytes) { return parsed(bytes).defect().status; }

TEST(MessageTest, ARequestTakenApart) {
  const std::string text = testing::invite("Subject : I\n \tknow\n  you're there\nv: SIP/2.0/TLS b;branch=z9hG4bK2\n");
  const Message message = parsed(text, Carrier::kStream);
  ASSERT_EQ(message.defect().status, 0) << message.defect().what;
  EXPECT_TRUE(message.is_request());
  EXPECT_EQ(message.method(), Method::kInvite);
  EXPECT_EQ(message.method_name(), "INVITE");
  EXPECT_EQ(message.request_uri(), "sip:+4930123@carrier.example.org");
  EXPECT_EQ(message.body(), "v=0\n");
  EXPECT_EQ(message.header_count(), 10u);
  EXPECT_EQ(message.header(7).name, "Subject");
  EXPECT_EQ(message.header(7).value, "I\r\n \tknow\r\n  you're there");
  EXPECT_EQ(message.value(HeaderId::kCallId), "call-1@pbx");
  EXPECT_EQ(message.value(HeaderId::kRoute), "");
  const std::size_t second_via = message.next_same(message.first(HeaderId::kVia));
  EXPECT_EQ(message.header(second_via).value, "SIP/2.0/TLS b;branch=z9hG4bK2");
  EXPECT_EQ(message.next_same(second_via), Message::kNoHeader);
  for (std::size_t i = 0; i + 1 < message.header_count(); ++i)
    EXPECT_EQ(message.header(i).line_end, message.header(i + 1).line);
}

TEST(MessageTest, Responses) {
  const Message ok = parsed("SIP/2.0 200 All is \xc3\xa4 well\r\nl: 0\r\n\r\n");
  EXPECT_TRUE(ok.is_response());
  EXPECT_EQ(ok.status(), 200);
  EXPECT_EQ(ok.reason(), "All is \xc3\xa4 well");
  EXPECT_EQ(parsed("SIP/2.0 100 \r\nl: 0\r\n\r\n").status(), 100);
  EXPECT_EQ(parsed("sip/2.0 699\r\nl: 0\r\n\r\n").status(), 699);
  for (const char* bad : {"SIP/2.0 099 x", "SIP/2.0 700 x", "SIP/2.0 20 x", "SIP/2.0 2000 x", "SIP/2.0  200 x",
                          "SIP/2.0 2x0 x", "SIP/2.0 ", "SIP/3.0 200 OK", "SIP/2.0"})
    EXPECT_FALSE(parsed(std::string(bad) + "\r\nl: 0\r\n\r\n").is_response()) << bad;
}

TEST(MessageTest, RequestLinesThatAreRefused) {
  const std::string rest = "\r\nl: 0\r\n\r\n";
  for (const char* bad :
       {"INVITE", "INVITE sip:a", "INVITE  sip:a SIP/2.0", "INVITE sip:a  SIP/2.0", "INVITE sip:a SIP/2.0 ",
        "INVITE sip:a b SIP/2.0", "IN/VITE sip:a SIP/2.0", " SIP/2.0", "INVITE sip:a HTTP/1.1", "INVITE sip:a SIP/2",
        "INVITE sip:a SIP/2.0.0", "INVITE \tsip:a SIP/2.0"})
    EXPECT_EQ(defect_of(bad + rest), 400) << bad;
  EXPECT_EQ(defect_of("INVITE sip:a SIP/7.0" + rest), 505);
  EXPECT_EQ(defect_of("INVITE sip:a sip/2.0" + rest), 0);
}

TEST(MessageTest, HeaderSectionDefects) {
  const std::string start = "INVITE sip:a SIP/2.0\r\n";
  for (const char* bad : {" fold: first\r\n", "no colon\r\n", ": no name\r\n", "two words: x\r\n", "X: a\rb\r\n",
                          "X: a\nY: b\r\n", "l: 5\r\n", "l: 1\r\nl: 2\r\n", "l: -1\r\n"})
    EXPECT_EQ(defect_of(start + bad + "\r\n"), 400) << bad;
  EXPECT_EQ(defect_of("INVITE sip:a SIP/2.0\nl: 0\n\n"), 400);
  EXPECT_EQ(defect_of(start + "l: 0\r\n"), 400);
  EXPECT_EQ(defect_of(""), 400);
  EXPECT_EQ(parsed(std::string_view()).bytes().size(), 0u);
}

TEST(MessageTest, DatagramsAndStreamsDifferInLength) {
  const std::string text = "INVITE sip:a SIP/2.0\r\nl: 2\r\n\r\nhello";
  EXPECT_EQ(parsed(text).body(), "he");
  EXPECT_EQ(parsed(text).defect().status, 0);
  EXPECT_EQ(parsed(text, Carrier::kStream).defect().status, 400);
  const std::string without = "INVITE sip:a SIP/2.0\r\nX: y\r\n\r\nhello";
  EXPECT_EQ(parsed(without).body(), "hello");
  EXPECT_EQ(parsed(without).defect().status, 0);
  EXPECT_EQ(parsed(without, Carrier::kStream).defect().status, 400);
}

TEST(MessageTest, TooManyHeadersAreCountedNotStored) {
  std::string text = "INVITE sip:a SIP/2.0\r\n";
  for (std::size_t i = 0; i < kMaxHeaders; ++i) text += "X: y\r\n";
  EXPECT_EQ(defect_of(text + "\r\n"), 0);
  const Message message = parsed(text + "Via: z\r\n\r\n");
  EXPECT_EQ(message.defect().status, 513);
  EXPECT_EQ(message.header_count(), kMaxHeaders);
}

TEST(MessageTest, AMessageIsUsedAgain) {
  Message message;
  const std::string first = testing::invite("Route: <sip:a>\n");
  message.parse(first, Carrier::kStream);
  EXPECT_TRUE(message.has(HeaderId::kRoute));
  message.parse("SIP/2.0 200 OK\r\nl: 0\r\n\r\n", Carrier::kStream);
  EXPECT_FALSE(message.has(HeaderId::kRoute));
  EXPECT_FALSE(message.has(HeaderId::kVia));
  EXPECT_EQ(message.method_name(), "");
  EXPECT_EQ(message.defect().status, 0);
}

TEST(MessageTest, EveryKnownHeaderNameWithAnyCase) {
  const std::pair<const char*, HeaderId> names[] = {{"call-id", HeaderId::kCallId},
                                                    {"I", HeaderId::kCallId},
                                                    {"CONTACT", HeaderId::kContact},
                                                    {"m", HeaderId::kContact},
                                                    {"content-LENGTH", HeaderId::kContentLength},
                                                    {"L", HeaderId::kContentLength},
                                                    {"Content-type", HeaderId::kContentType},
                                                    {"c", HeaderId::kContentType},
                                                    {"cseq", HeaderId::kCSeq},
                                                    {"from", HeaderId::kFrom},
                                                    {"F", HeaderId::kFrom},
                                                    {"max-forwards", HeaderId::kMaxForwards},
                                                    {"Proxy-require", HeaderId::kProxyRequire},
                                                    {"record-route", HeaderId::kRecordRoute},
                                                    {"ReQuire", HeaderId::kRequire},
                                                    {"ROUTE", HeaderId::kRoute},
                                                    {"supported", HeaderId::kSupported},
                                                    {"K", HeaderId::kSupported},
                                                    {"timestamp", HeaderId::kTimestamp},
                                                    {"TO", HeaderId::kTo},
                                                    {"t", HeaderId::kTo},
                                                    {"unsupported", HeaderId::kUnsupported},
                                                    {"via", HeaderId::kVia},
                                                    {"V", HeaderId::kVia},
                                                    {"Vib", HeaderId::kOther},
                                                    {"x", HeaderId::kOther},
                                                    {"Content-Lengtj", HeaderId::kOther},
                                                    {"", HeaderId::kOther}};
  for (const auto& [name, id] : names) EXPECT_EQ(header_id(name), id) << name;
}

TEST(ValueCursorTest, CommasQuotesAndBrackets) {
  const std::string text = crlf(R"(
INVITE sip:a SIP/2.0
Route: "a, b\"," <sip:x,y@h>;p="q,r" ,<sip:2>
Route:
Route: <sip:3>,,
  <sip:4>
Route: "open, <sip:5>
l: 0

)");
  const Message message = parsed(text);
  ASSERT_EQ(message.defect().status, 0);
  std::vector<std::string> values;
  std::string ends;
  for (ValueCursor cursor(message, HeaderId::kRoute); const auto value = cursor.next();) {
    values.emplace_back(value->text);
    ends += value->last_on_line ? '|' : ',';
  }
  EXPECT_EQ(values, (std::vector<std::string>{"\"a, b\\\",\" <sip:x,y@h>;p=\"q,r\"", "<sip:2>", "<sip:3>", "",
                                              "<sip:4>", "\"open, <sip:5>"}));
  EXPECT_EQ(ends, ",|,,||");
}

}  // namespace
}  // namespace ktrunk::sip
