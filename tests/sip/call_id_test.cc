#include "sip/call_id.h"

#include <gtest/gtest.h>

namespace ktrunk::sip {
namespace {

TEST(CallId, IsFoundInAnyFormThatTheStandardAllows) {
  EXPECT_EQ(find_call_id("OPTIONS sip:a SIP/2.0\r\nTo: b\r\nCall-ID: one@host\r\nCSeq: 1 OPTIONS\r\n\r\n"), "one@host");
  EXPECT_EQ(find_call_id("OPTIONS sip:a SIP/2.0\r\ncALL-iD \t:\t one \r\n\r\n"), "one");
  EXPECT_EQ(find_call_id("OPTIONS sip:a SIP/2.0\r\ni:one\r\n\r\n"), "one");
  EXPECT_EQ(find_call_id("OPTIONS sip:a SIP/2.0\r\nI : one\r\n\r\n"), "one");
  EXPECT_EQ(find_call_id("OPTIONS sip:a SIP/2.0\r\nCall-ID:\r\n one\r\n\r\n"), "one") << "folded";
  EXPECT_EQ(find_call_id("OPTIONS sip:a SIP/2.0\nCall-ID: one\n\n"), "one") << "lines end in LF";
  EXPECT_EQ(find_call_id("OPTIONS sip:a SIP/2.0\r\nCall-ID: one\r\ni: two\r\n\r\n"), "one") << "the first";
}

TEST(CallId, IsNotFoundElsewhere) {
  for (const char* message : {"", "\n", "OPTIONS", "OPTIONS sip:a SIP/2.0\r\n\r\n", "Call-ID: one\r\n\r\n",
                              "OPTIONS sip:a SIP/2.0\r\nX-Call-ID: one\r\nCall-IDs: two\r\n\r\nCall-ID: three\r\n",
                              "OPTIONS sip:a SIP/2.0\r\nSubject: x\r\n", "OPTIONS sip:a SIP/2.0\r\nCall-ID",
                              "OPTIONS sip:a SIP/2.0\r\ni", "OPTIONS sip:a SIP/2.0\r\nCall-ID:"})
    EXPECT_EQ(find_call_id(message), "") << message;
}

}  // namespace
}  // namespace ktrunk::sip
