// What `ktrunk trace` makes of what the workers tell: text, pcap, and the end.
#include "cli/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <bit>
#include <csignal>
#include <cstring>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace ktrunk::cli {
namespace {

using testing::HasSubstr;

ipc::TraceHead head_of(std::string_view octets) {
  ipc::TraceHead head;
  head.seconds = 1'700'000'000;
  head.microseconds = 42;
  head.octets = static_cast<std::uint32_t>(octets.size());
  head.from = Address::parse("192.0.2.1:5061").value();
  head.to = Address::parse("192.0.2.2:40000").value();
  return head;
}

TEST(TraceText, OneLineAndTheMessage) {
  ipc::TraceHead head = head_of("x");
  EXPECT_EQ(trace_text(head, "OPTIONS sip:a SIP/2.0\r\nA: b\r\n\r\nbody", "pbx"),
            "2023-11-14 22:13:20.000042 UTC  received 192.0.2.1:5061 -> 192.0.2.2:40000  tls  from trunk pbx\n"
            "OPTIONS sip:a SIP/2.0\nA: b\n\nbody\n\n");
  head.direction = ipc::TraceHead::Direction::kSent;
  head.transport = config::Transport::kUdp;
  EXPECT_THAT(trace_text(head, "\x1b]0;owned\x07\n\r\r\n", "pbx"),
              HasSubstr("sent 192.0.2.1:5061 -> 192.0.2.2:40000  udp  to trunk pbx\n?]0;owned?\n?\n\n"));
  EXPECT_THAT(trace_text(head, "", "pbx"), testing::EndsWith("pbx\n\n"));
  head.seconds = ~std::uint64_t{0};
  EXPECT_THAT(trace_text(head, "x", "pbx"), HasSubstr("sent 192.0.2.1"));
}

// The file by its bytes, on a little-endian machine.
TEST(Pcap, IsAsTheFormatsSay) {
  using std::string_literals::operator""s;
  if (std::endian::native != std::endian::little) GTEST_SKIP() << "written down for the other order of octets";
  EXPECT_EQ(pcap_header(), "\xd4\xc3\xb2\xa1\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\x04\0\xfc\0\0\0"s);
  EXPECT_EQ(pcap_record(head_of("SIP"), "SIP"),
            "\0\xf1\x53\x65\x2a\0\0\0\x37\0\0\0\x37\0\0\0"s        // time, 55 octets
            "\0\x0c\0\x04sip\0"s                                   // dissector
            "\0\x14\0\x04\xc0\0\x02\x01\0\x19\0\x04\0\0\x13\xc5"s  // from
            "\0\x15\0\x04\xc0\0\x02\x02\0\x1a\0\x04\0\0\x9c\x40"s  // to
            "\0\x18\0\x04\0\0\0\x02"s                              // TCP
            "\0\0\0\0SIP"s);
}

TEST(Pcap, Ipv6AndUdpAndUnknown) {
  using std::string_literals::operator""s;
  ipc::TraceHead head = head_of("");
  head.transport = config::Transport::kUdp;
  head.from = Address::parse("[2001:db8::1]:5060").value();
  head.to = {};
  const std::string record = pcap_record(head, "");
  EXPECT_THAT(record, HasSubstr("\0\x16\0\x10\x20\x01\x0d\xb8"s));
  EXPECT_THAT(record, HasSubstr("\0\x18\0\x04\0\0\0\x03"s));
  EXPECT_EQ(record.find("\0\x1a\0\x04"s), std::string::npos);
}

TEST(Pcap, APacketIsCutWhereReadersStop) {
  const std::string octets(1u << 20, 'x');
  const std::string record = pcap_record(head_of(octets), octets);
  EXPECT_EQ(record.size(), 16u + 262'144u);
  std::uint32_t kept = 0;
  std::uint32_t was = 0;
  std::memcpy(&kept, record.data() + 8, sizeof kept);
  std::memcpy(&was, record.data() + 12, sizeof was);
  EXPECT_EQ(kept, 262'144u);
  EXPECT_EQ(was, (1u << 20) + 52u);
}

class Following : public testing::Test {
 protected:
  void SetUp() override {
    std::tie(source_.messages, worker_) = pair(SOCK_SEQPACKET);
    std::tie(source_.control, daemon_) = pair(SOCK_STREAM);
  }
  static std::pair<Fd, Fd> pair(int type) {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    return {Fd(ends[0]), Fd(ends[1])};
  }
  void tell(ipc::TraceHead head, std::string_view octets) {
    std::string packet(sizeof head, '\0');
    std::memcpy(packet.data(), &head, sizeof head);
    packet += octets;
    EXPECT_EQ(::send(worker_.get(), packet.data(), packet.size(), 0), static_cast<ssize_t>(packet.size()));
  }
  Result<TraceEnded> follow(std::uint64_t most = 0) {
    return follow_trace(
        source_,
        [this](const ipc::TraceHead&, std::string_view octets) -> Status {
          seen_.emplace_back(octets);
          return {};
        },
        most);
  }
  TraceSource source_;
  Fd worker_;
  Fd daemon_;
  std::vector<std::string> seen_;
};

TEST_F(Following, EndsWithEnoughOrWithTheDaemon) {
  for (const char* octets : {"a", "b", "c"}) tell(head_of("x"), octets);
  auto ended = follow(2);
  ASSERT_TRUE(ended) << ended.error().what;
  EXPECT_EQ(ended->why, TraceEnded::Why::kEnough);
  EXPECT_EQ(ended->messages, 2u);
  daemon_.reset();
  ended = follow();
  ASSERT_TRUE(ended) << ended.error().what;
  EXPECT_EQ(ended->why, TraceEnded::Why::kDaemonEnded);
  EXPECT_EQ(seen_, (std::vector<std::string>{"a", "b", "c"})) << "what was there is shown";
}

TEST_F(Following, EndsWhenNobodyIsLeftToTell) {
  worker_.reset();
  const auto ended = follow();
  ASSERT_TRUE(ended) << ended.error().what;
  EXPECT_EQ(ended->why, TraceEnded::Why::kDaemonEnded);
}

TEST_F(Following, AddsUpWhatEachWorkerDropped) {
  ipc::TraceHead head = head_of("x");
  for (const auto& [worker, dropped] : {std::pair{0, 3}, std::pair{1, 10}, std::pair{0, 5}}) {
    head.worker = static_cast<std::uint8_t>(worker);
    head.dropped = static_cast<std::uint64_t>(dropped);
    tell(head, "x");
  }
  const auto ended = follow(3);
  ASSERT_TRUE(ended) << ended.error().what;
  EXPECT_EQ(ended->dropped, 15u);
}

TEST_F(Following, WhatIsNoMessageOfThisVersionIsAnError) {
  const auto refused = [&](const auto& act) {
    SetUp();
    act();
    const auto ended = follow();
    ASSERT_FALSE(ended);
    EXPECT_THAT(ended.error().what, HasSubstr("different versions"));
  };
  refused([&] { ASSERT_EQ(::send(worker_.get(), "short", 5, 0), 5); });
  refused([&] {
    ipc::TraceHead head = head_of("x");
    head.layout = 1;
    tell(head, "x");
  });
  refused([&] { tell(head_of("x"), "xx"); });
}

TEST_F(Following, ASignalEndsIt) {
  tell(head_of("x"), "x");
  // Blocked by follow_trace(), so that it is pending when it looks.
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGTERM);
  ASSERT_EQ(::sigprocmask(SIG_BLOCK, &set, nullptr), 0);
  ASSERT_EQ(::raise(SIGTERM), 0);
  const auto ended = follow();
  ASSERT_TRUE(ended) << ended.error().what;
  EXPECT_EQ(ended->why, TraceEnded::Why::kInterrupted);
  EXPECT_EQ(ended->messages, 1u);
}

}  // namespace
}  // namespace ktrunk::cli
