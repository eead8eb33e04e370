// Framer: outcomes, limits, and that no cut of the stream changes them.
#include "sip/framer.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "sip/message.h"
#include "sip/proxy_world.h"

namespace ktrunk::sip {
namespace {

using testing::crlf;
using Outcome = Framer::Outcome;

struct Event {
  Outcome outcome;
  std::size_t length;
  int status;
  friend bool operator==(const Event&, const Event&) = default;
};

// Feeds the stream with `cuts` telling how many more octets arrive each time; the rest arrives at the end.
std::vector<Event> frame(std::string_view stream, const std::vector<std::size_t>& cuts, std::size_t limit = 65535) {
  Framer framer(limit);
  std::vector<Event> events;
  std::string buffer;
  std::size_t fed = 0;
  std::size_t cut = 0;
  while (fed < stream.size()) {
    const std::size_t step = cut < cuts.size() ? cuts[cut++] : stream.size() - fed;
    buffer += stream.substr(fed, step);
    fed = std::min(stream.size(), fed + step);
    for (;;) {
      const std::string copy = buffer;  // the bytes may move between calls
      const auto result = framer.next(copy);
      if (result.outcome == Outcome::kNeedMore) break;
      events.push_back({result.outcome, result.length, result.status});
      if (result.outcome == Outcome::kMalformed) return events;
      EXPECT_FALSE(framer.mid_message());
      EXPECT_LE(result.length, buffer.size());
      buffer.erase(0, result.length);
    }
  }
  return events;
}

std::string with_length(std::string_view length_lines, std::string_view body) {
  return "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP c\r\n" + std::string(length_lines) + "\r\n" + std::string(body);
}

int status_of(std::string_view stream, std::size_t limit = 65535) {
  Framer framer(limit);
  const auto result = framer.next(stream);
  return result.outcome == Outcome::kMalformed ? result.status : 0;
}

TEST(FramerTest, EveryCutAndRandomCutsGiveTheSameOutcomes) {
  const std::string stream = "\r\n" + with_length("Content-Length: 5\r\n", "a\r\n\r\n") + "\r\n\r\n" +
                             with_length("l:0\r\n", "") + "\r\n\r\n\r\n\r\n" +
                             with_length("CONTENT-length \t:\r\n 00000000000000000000012 \r\n", "012345678901") +
                             "\r\n" + with_length("Content-Length: 3\r\nl: 3\r\n", "xyz") +
                             "OPTIONS sip:lf SIP/2.0\nl: 2\nSubject: a\n b\n\nhi" + with_length("", "");
  const auto whole = frame(stream, {});
  ASSERT_EQ(whole.size(), 11u);
  EXPECT_EQ(whole.back(), (Event{Outcome::kMalformed, with_length("", "").size(), 400}));
  for (std::size_t first = 1; first < stream.size(); ++first) EXPECT_EQ(frame(stream, {first}), whole) << first;
  EXPECT_EQ(frame(stream, std::vector<std::size_t>(stream.size(), 1)), whole);
  std::mt19937 random(4711);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::size_t> cuts;
    for (std::size_t sum = 0; sum < stream.size(); sum += cuts.back()) cuts.push_back(1 + random() % 40);
    EXPECT_EQ(frame(stream, cuts), whole);
  }
}

TEST(FramerTest, KeepalivesBetweenMessages) {
  Framer framer(65535);
  EXPECT_EQ(framer.next("").outcome, Outcome::kNeedMore);
  for (const char* undecided : {"\r", "\r\n", "\r\n\r"}) {
    EXPECT_EQ(framer.next(undecided).outcome, Outcome::kNeedMore);
    EXPECT_FALSE(framer.mid_message());  // a pong may be all that ever comes
  }
  EXPECT_EQ(framer.next("\r\n\r\n").outcome, Outcome::kPing);
  const auto skip = framer.next("\r\nI");
  EXPECT_EQ(skip.outcome, Outcome::kSkip);
  EXPECT_EQ(skip.length, 2u);
  EXPECT_EQ(framer.next("\n").length, 1u);
  EXPECT_EQ(framer.next("\rX").outcome, Outcome::kMalformed);
  EXPECT_EQ(framer.next("I").outcome, Outcome::kNeedMore);
  EXPECT_TRUE(framer.mid_message());
}

TEST(FramerTest, AMessageThatStaysShortKeepsTheClockRunning) {
  Framer framer(65535);
  const std::string message = with_length("Content-Length: 9999\r\n", "only this");
  EXPECT_EQ(framer.next(message).outcome, Outcome::kNeedMore);
  EXPECT_TRUE(framer.mid_message());
}

TEST(FramerTest, LengthsThatCannotBeFramed) {
  for (const char* bad :
       {"", "Content-Length: -999\r\n", "Content-Length: 12a\r\n", "Content-Length:\r\n", "Content-Length: 0x10\r\n",
        "Content-Length: +5\r\n", "Content-Length: 5 5\r\n", "Content-Length: 5,5\r\n",
        "Content-Length: 13\r\nContent-Length: 5\r\n", "l: 5\r\nContent-Length: 6\r\n", "Content-Length: 5\r\nl: x\r\n",
        "Content-Length: \"5\"\r\n", "Content-Length: 5\r\n 6\r\n", "XContent-Length: 5\r\n", " Content-Length: 5\r\n",
        "l: 99999999999\r\nl: x\r\n", "l: 99999999999\r\nl: 5\r\n"})
    EXPECT_EQ(status_of(with_length(bad, "hello")), 400) << bad;
  for (const char* large :
       {"Content-Length: 65536\r\n", "Content-Length: 99999999999999999999999999\r\n",
        "Content-Length: 18446744073709551615\r\n", "Content-Length: 18446744073709551621\r\n", "l: 65535\r\n"})
    EXPECT_EQ(status_of(with_length(large, "hello")), 413) << large;
}

TEST(FramerTest, AnAnswerableMalformedMessageReportsItsHeaders) {
  Framer framer(65535);
  const std::string message = with_length("Content-Length: nonsense\r\n", "");
  const auto result = framer.next(message + "body and the next message");
  EXPECT_EQ(result.outcome, Outcome::kMalformed);
  EXPECT_EQ(result.length, message.size());
}

TEST(FramerTest, LimitsAreExact) {
  const std::string message = with_length("Content-Length: 10\r\n", "0123456789");
  EXPECT_EQ(frame(message, {}, message.size()).front().outcome, Outcome::kMessage);
  EXPECT_EQ(status_of(message, message.size() - 1), 413);

  const std::string start = "OPTIONS sip:a@b SIP/2.0\r\nl: 0\r\nX: ";
  const std::string fits = start + std::string(kMaxHeaderSectionBytes - start.size() - 4, 'x') + "\r\n\r\n";
  EXPECT_EQ(frame(fits, {}).front().outcome, Outcome::kMessage);
  EXPECT_EQ(status_of(start + "x" + fits.substr(start.size())), 413);
  EXPECT_EQ(frame("x" + fits, {100, 5000}), frame("x" + fits, {}));
  const std::string endless(kMaxHeaderSectionBytes - 1, 'a');
  Framer framer(65535);
  EXPECT_EQ(framer.next(endless).outcome, Outcome::kNeedMore);
  EXPECT_EQ(framer.next(endless + "a").outcome, Outcome::kMalformed);
}

TEST(FramerTest, MixedLineEndsAreRefused) {
  EXPECT_EQ(status_of("OPTIONS sip:a SIP/2.0\r\nl: 0\n\r\n\r\n"), 400);
  EXPECT_EQ(status_of("OPTIONS sip:a SIP/2.0\r\nl: 0\r\n\n\r\n"), 400);
  EXPECT_EQ(status_of("OPTIONS sip:a SIP/2.0\nl: 0\r\n\r\n"), 400);
  EXPECT_EQ(status_of("OPTIONS sip:a SIP/2.0\nl: 0\n\n"), 0);
}

// Whatever is framed, the parser finds the same end of the headers and the same body.
TEST(FramerTest, AgreesWithTheParser) {
  const char* const lines[] = {"l: 3\r\n",
                               "Content-Length: 3\r\n",
                               "Subject: a\r\n  b\r\n",
                               "X: \r\n \r\n",
                               "Y:\r\n",
                               " \r\n",
                               "no colon\r\n",
                               ": empty\r\n",
                               "L : 4\r\n",
                               "Content-Length\r\n : 3\r\n",
                               "l: 3\r\n\t\r\n",
                               "Z: a\rb\r\n",
                               "Content-Type: l\r\n",
                               "Q: \"\r\n l: 7\"\r\n"};
  constexpr std::size_t kCount = std::size(lines);
  int sound = 0;
  for (std::size_t i = 0; i < kCount * kCount * kCount; ++i) {
    const std::string text = std::string("OPTIONS sip:a SIP/2.0\r\n") + lines[i % kCount] + lines[i / kCount % kCount] +
                             lines[i / kCount / kCount] + "\r\n" + "123456789";
    Framer framer(65535);
    const auto result = framer.next(text);
    Message message;
    if (result.outcome != Outcome::kMessage) {
      message.parse(text, Carrier::kStream);
      EXPECT_NE(message.defect().status, 0) << text;
      continue;
    }
    message.parse(std::string_view(text).substr(0, result.length), Carrier::kStream);
    EXPECT_EQ(message.header_section_size() + message.body().size(), result.length) << text;
    EXPECT_EQ(message.header_section_size(), text.size() - 9) << text;
    if (message.defect().status == 0) ++sound;
  }
  EXPECT_GT(sound, 100);
}

}  // namespace
}  // namespace ktrunk::sip
