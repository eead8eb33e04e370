// The torture messages of RFC 4475 and RFC 5118, from a folder that INDEX.tsv describes.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <map>
#include <sstream>

#include "sip/framer.h"
#include "sip/proxy_world.h"

namespace ktrunk::sip::testing {
namespace {

struct Sample {
  std::string name;     // "wsinv", "ipv6-good"
  std::string verdict;  // valid, invalid, semantic, extra
  std::string framing;  // exact, "450 trailing octets", "short by N", unframable, "-"
  std::string bytes;
};

std::string read_all(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<Sample> load() {
  const std::string folder = KTRUNK_TORTURE_DIR;
  std::vector<Sample> samples;
  std::ifstream index(folder + "/INDEX.tsv");
  for (std::string line; std::getline(index, line);) {
    if (line.starts_with('#')) continue;
    std::vector<std::string> fields;
    std::istringstream split(line);
    for (std::string field; std::getline(split, field, '\t');) fields.push_back(field);
    if (fields.size() < 12) continue;
    std::string name = fields[1].substr(fields[1].find('/') + 1);
    // RFC 5118's files have LF line ends; their CRLF twins are what peers send.
    const std::string path = fields[0] == "5118" ? "rfc5118-crlf/" + name + ".dat" : fields[1];
    name = name.substr(0, name.find('.'));
    // The index measures the files as they are; the twins are whole.
    const std::string framing = fields[0] == "5118" ? "exact" : fields[11];
    samples.push_back({name, fields[4], framing, read_all(folder + "/" + path)});
  }
  return samples;
}

class TortureTest : public ::testing::Test {
 protected:
  void SetUp() override {
    samples = load();
    if (samples.empty()) GTEST_SKIP() << "no torture messages in " KTRUNK_TORTURE_DIR " (set KTRUNK_TORTURE_DIR)";
    for (const Sample& sample : samples) ASSERT_FALSE(sample.bytes.empty()) << sample.name;
  }
  std::vector<Sample> samples;
};

TEST_F(TortureTest, FramesAsTheIndexSays) {
  for (const Sample& sample : samples) {
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
  const std::map<std::string, int> refused = {
      {"badinv01", 400},
      {"clerr", 400},
      {"ncl", 400},
      {"scalar02", 400},
      {"quotbal", 400},
      {"ltgtruri", 400},
      {"lwsruri", 400},
      {"lwsstart", 400},
      {"trws", 400},
      {"escruri", 400},
      {"badaspec", 400},
      {"baddn", 400},
      {"badvers", 505},
      {"mismatch01", 400},
      {"mismatch02", 400},
      {"insuf", 400},
      {"unkscm", 416},
      {"novelsc", 416},
      {"bext01", 420},
      {"multi01", 400},
      {"mcl01", 400},
      {"zeromf", 483},
      {"ipv6-bad", 400},
      {"via-received-param-no-delim", 200},  // OPTIONS to an address that happens to be one of ours
                                             // Responses, none of them to a request of ours.
      {"scalarlg", kDropped},
      {"bigcode", kDropped},
      {"unreason", kDropped},
      {"noreason", kDropped},
      {"test", kDropped},
      {"bcast", kDropped}};
  World world;
  // As a peer that sends datagrams, for not all can be framed on a stream.
  const Flow source = udp_flow(TrunkId{0}, ListenerId{1}, "192.0.2.99", 5060);
  for (const Sample& sample : samples) {
    const std::string& bytes = sample.bytes;
    const Decision decision = world.decide(bytes, source);
    const auto expected = refused.find(sample.name);
    const Reply* reply = std::get_if<Reply>(&decision);
    EXPECT_EQ(verdict(decision), expected == refused.end() ? kSentToTrunk : expected->second)
        << sample.name << ": " << (reply != nullptr ? reply->reason : "");
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
  for (const Sample& sample : samples) {
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
  const std::string bytes = read_all(std::string(KTRUNK_TORTURE_DIR) + "/rfc5118/ipv6-good");
  Framer framer(65535);
  EXPECT_EQ(framer.next(bytes).outcome, Framer::Outcome::kMessage);
  EXPECT_EQ(verdict(world.decide(bytes, world.carrier)), 400);
  EXPECT_EQ(world.message.request_uri(), "sip:[2001:db8::10]");
}

}  // namespace
}  // namespace ktrunk::sip::testing
