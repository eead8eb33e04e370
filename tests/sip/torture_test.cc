// The torture messages of RFC 4475 and RFC 5118, framed and decided (tests/system sends them over TLS).
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "sip/framer.h"
#include "sip/proxy_world.h"
#include "support/torture.h"

namespace ktrunk::sip::testing {
namespace {

using test::TortureMessage;

class TortureTest : public ::testing::Test {
 protected:
  void SetUp() override {
    samples = test::torture_messages();
    if (samples.empty())
      GTEST_SKIP() << "no torture messages in " << test::torture_folder() << " (set KTRUNK_TORTURE_DIR)";
    for (const TortureMessage& sample : samples) ASSERT_FALSE(sample.bytes.empty()) << sample.name;
  }
  std::vector<TortureMessage> samples;
};

TEST_F(TortureTest, FramesAsTheIndexSays) {
  for (const TortureMessage& sample : samples) {
    for (const std::size_t step : {sample.bytes.size(), std::size_t{1}, std::size_t{7}}) {
      Framer framer(65535);
      Framer::Result result;
      for (std::size_t fed = std::min(step, sample.bytes.size());; fed = std::min(fed + step, sample.bytes.size())) {
        result = framer.next(std::string_view(sample.bytes).substr(0, fed));
        if (result.outcome != Framer::Outcome::kNeedMore || fed == sample.bytes.size()) break;
      }
      if (sample.framing == "exact") {
        EXPECT_EQ(result.outcome, Framer::Outcome::kMessage) << sample.name;
        EXPECT_EQ(result.length, sample.bytes.size()) << sample.name;
      } else if (sample.framing == "unframable") {
        EXPECT_EQ(result.outcome, Framer::Outcome::kMalformed) << sample.name;
        EXPECT_EQ(result.status, 400) << sample.name;
      } else if (sample.framing.ends_with("trailing octets")) {
        EXPECT_EQ(result.outcome, Framer::Outcome::kMessage) << sample.name;
        EXPECT_EQ(sample.bytes.size() - result.length, std::stoul(sample.framing)) << sample.name;
      } else {
        EXPECT_EQ(result.outcome, Framer::Outcome::kNeedMore) << sample.name << ": " << sample.framing;
        EXPECT_TRUE(framer.mid_message()) << sample.name;
      }
    }
  }
}

// As a proxy whose route table sends everything of the carrier's to the pbx.
TEST_F(TortureTest, Verdicts) {
  World world;
  // As a peer that sends datagrams, for not all can be framed on a stream.
  const Flow source = udp_flow(TrunkId{0}, ListenerId{1}, "192.0.2.99", 5060);
  for (const TortureMessage& sample : samples) {
    const std::string& bytes = sample.bytes;
    const Decision decision = world.decide(bytes, source);
    // OPTIONS to an address that happens to be one of this world's.
    const int expected = sample.name == "via-received-param-no-delim" ? 200 : test::torture_verdict(sample.name);
    const Reply* reply = std::get_if<Reply>(&decision);
    EXPECT_EQ(verdict(decision), expected) << sample.name << ": " << (reply != nullptr ? reply->reason : "");
    if (reply != nullptr) {
      EXPECT_TRUE(world.reply_to(bytes, source, *reply).starts_with("SIP/2.0 ")) << sample.name;
    }
    if (verdict(decision) != kSentToTrunk) continue;
    world.proxy.forward_request(world.message, source, world.carrier, world.edits);
    const std::string sent = world.written();
    Framer framer(65535);
    EXPECT_EQ(framer.next(sent).length, sent.size()) << sample.name;
  }
}

TEST_F(TortureTest, WhatValidOnesHold) {
  std::map<std::string, Message> parsed;
  for (const TortureMessage& sample : samples) {
    parsed[sample.name].parse(sample.bytes, Carrier::kDatagram);
    if (sample.verdict == "valid" && sample.framing == "exact") {
      EXPECT_EQ(parsed[sample.name].defect().status, 0) << sample.name << parsed[sample.name].defect().what;
    }
  }
  EXPECT_EQ(parsed["intmeth"].method_name(), "!interesting-Method0123456789_*+`.%indeed'~");
  EXPECT_EQ(parsed["esc02"].method_name(), "RE%47IST%45R");
  std::size_t contacts = 0;
  for (ValueCursor cursor(parsed["esc02"], HeaderId::kContact); cursor.next();) ++contacts;
  EXPECT_EQ(contacts, 2u);
  std::size_t vias = 0;
  for (ValueCursor cursor(parsed["longreq"], HeaderId::kVia); cursor.next();) ++vias;
  EXPECT_GT(vias, 30u);
  const auto uri = parse_uri(parsed["semiuri"].request_uri());
  ASSERT_TRUE(uri);
  EXPECT_EQ(uri->user, "user;par=u%40example.net");
  const auto ambiguous = parse_uri(parsed["port-ambiguous"].request_uri());
  ASSERT_TRUE(ambiguous);
  EXPECT_EQ(ambiguous->host, "2001:db8::10:5070");
  EXPECT_EQ(ambiguous->port, 0);
}

// RFC 5118's own files, with bare LF: framed and taken apart, but not passed on to peers that count on CRLF.
TEST_F(TortureTest, BareLfIsAnsweredNotForwarded) {
  World world;
  const auto good = std::find_if(samples.begin(), samples.end(), [](auto& one) { return one.name == "ipv6-good"; });
  ASSERT_NE(good, samples.end());
  const std::string& bytes = good->bare_lf;
  Framer framer(65535);
  EXPECT_EQ(framer.next(bytes).outcome, Framer::Outcome::kMessage);
  EXPECT_EQ(verdict(world.decide(bytes, world.carrier)), 400);
  EXPECT_EQ(world.message.request_uri(), "sip:[2001:db8::10]");
}

}  // namespace
}  // namespace ktrunk::sip::testing
