// Every message of RFC 4475 and RFC 5118 over a TLS connection to ktrunkd: whole, octet by octet and randomly cut. Each
// gets the verdict of the index, and the connection lives on where it should. What is forwarded is the original but for
// what a proxy must change.
#include <random>

#include "support/round_trip.h"
#include "support/scale.h"
#include "support/torture.h"
#include "system/daemon_fixture.h"

namespace ktrunk::test {
namespace {

// Repetitions divided by KTRUNK_TEST_SCALE.
int scaled(int count) { return std::max(1, count / static_cast<int>(scale())); }

std::uint32_t new_seed() {
  const char* text = std::getenv("KTRUNK_TEST_SEED");
  return text != nullptr ? static_cast<std::uint32_t>(std::strtoul(text, nullptr, 0)) : std::random_device{}();
}

// Octets of a stream until some of them are `last`.
class Capture {
 public:
  explicit Capture(ByteStream& stream) : stream_(stream) {}

  [[nodiscard]] Result<std::string> until(std::string_view last) {
    for (;;) {
      if (const std::size_t at = octets_.find(last); at != std::string::npos) {
        std::string taken = octets_.substr(0, at + last.size());
        octets_.erase(0, taken.size());
        return taken;
      }
      auto more = stream_.read_some(kLong);
      if (!more) return std::unexpected(more.error());
      if (more->empty()) return fail("the stream has ended after: {}", octets_);
      octets_ += *more;
    }
  }
  // All until the peer ends the stream in order.
  [[nodiscard]] Result<std::string> until_end() {
    for (;;) {
      auto more = stream_.read_some(kLong);
      if (!more) return std::unexpected(more.error());
      if (more->empty()) return std::exchange(octets_, {});
      octets_ += *more;
    }
  }

 private:
  ByteStream& stream_;
  std::string octets_;
};

using Cutter = std::function<std::size_t(std::size_t left)>;  // how many octets to send next

class TortureStream : public DaemonTest {
 protected:
  void SetUp() override {
    messages_ = torture_messages();
    if (messages_.empty()) GTEST_SKIP() << "no torture messages in " << torture_folder() << " (set KTRUNK_TORTURE_DIR)";
  }

  void start_with(const std::string& partial_message) {
    ASSERT_NO_FATAL_FAILURE(start({.limits = "partial_message = \"" + partial_message + "\"",
                                   .tables = "[[route]]\nfrom_trunk = \"carrier\"\nto = \"pbx-tls\"\n",
                                   .ktrunk_lines = "",
                                   .workers = {}}));
    pbx_.emplace(pbx_tls_->stream());
  }

  void call() {
    carrier_ = call_in();
    ASSERT_NE(carrier_, nullptr);
    answers_.emplace(*carrier_);
  }

  // The last `at_once` octets go together.
  void send_cut(std::string_view octets, const Cutter& cut, std::size_t at_once = 0) {
    while (!octets.empty()) {
      const std::size_t before = octets.size() > at_once ? octets.size() - at_once : 0;
      const std::size_t size = before != 0 ? std::min(before, cut(before)) : octets.size();
      ASSERT_TRUE(carrier_->write_all(octets.substr(0, size), kLong));
      octets.remove_prefix(size);
    }
  }

  // A request that is forwarded and answered behind the others. What came before it, at the PBX and at the carrier:
  // what the proxy made of the octets sent until now. Keepalives answered are left out.
  void mark(std::string& forwarded, std::string& answered) {
    const std::string call_id = fmt::format("marker-{}", ++marks_);
    const SipMessage marker = make_request({.method = "MESSAGE",
                                            .uri = "sip:marker@tls.test",
                                            .branch = "",
                                            .call_id = call_id,
                                            .body = fmt::format("end of {}.", call_id)});
    ASSERT_TRUE(carrier_->write_all(marker.text(), kLong));
    auto at_pbx = pbx_->until(marker.body);
    ASSERT_TRUE(at_pbx) << at_pbx.error().what << daemon_->log();
    const std::size_t begin = at_pbx->rfind("MESSAGE sip:marker@tls.test");
    ASSERT_NE(begin, std::string::npos);
    forwarded = at_pbx->substr(0, begin);
    const auto request = SipMessage::parse(at_pbx->substr(begin));
    ASSERT_TRUE(request) << request.error().what;
    SipMessage response = make_response(*request, 200, "OK");
    response.body = marker.body;
    ASSERT_TRUE(pbx_tls_->send(response));
    auto at_carrier = answers_->until(marker.body);
    ASSERT_TRUE(at_carrier) << at_carrier.error().what << daemon_->log();
    answered = at_carrier->substr(0, at_carrier->rfind("SIP/2.0 200 "));
    while (answered.starts_with("\r\n")) answered.erase(0, 2);
  }

  void expect_forwarded(std::string_view original, std::string_view sent) {
    EXPECT_EQ(unexplained_change(original, sent, edge_tls_.text()), "") << sent;
  }

  void expect_verdict(const TortureMessage& message, const Cutter& cut) {
    SCOPED_TRACE(message.name);
    if (carrier_ == nullptr) {
      ASSERT_NO_FATAL_FAILURE(call());
    }
    // What cannot be framed ends the stream where its headers do: whoever writes on then may find it gone.
    const std::string_view bytes = message.bytes;
    const std::size_t headers = std::min(bytes.find("\r\n\r\n"), bytes.size() - 1);
    ASSERT_NO_FATAL_FAILURE(send_cut(bytes, cut, message.framing == "unframable" ? bytes.size() - headers : 0));
    std::string forwarded;
    std::string answered;
    const bool trailing = message.framing.ends_with("trailing octets");
    if (message.framing == "unframable" || trailing) {
      // Ended in order, as nothing behind it can be framed. The others live on.
      const auto all = answers_->until_end();
      ASSERT_TRUE(all) << all.error().what;
      carrier_.reset();
      ASSERT_NO_FATAL_FAILURE(call());
      ASSERT_NO_FATAL_FAILURE(mark(forwarded, answered));
      EXPECT_EQ(answered, "");
      if (trailing) {
        EXPECT_EQ(*all, "") << "what is left is no request, so it is not answered";
        return expect_two_messages(message, forwarded);
      }
      EXPECT_TRUE(all->starts_with("SIP/2.0 400 ")) << *all;
      EXPECT_EQ(all->find("\r\n\r\n"), all->size() - 4) << "one answer: " << *all;
      EXPECT_EQ(forwarded, "");
      return;
    }
    ASSERT_NO_FATAL_FAILURE(mark(forwarded, answered));
    const int verdict = torture_verdict(message.name);
    if (verdict != kTortureForwarded) {
      EXPECT_EQ(forwarded, "");
      if (verdict == kTortureDropped) {
        EXPECT_EQ(answered, "");
        return;
      }
      EXPECT_TRUE(answered.starts_with(fmt::format("SIP/2.0 {} ", verdict))) << answered;
      EXPECT_EQ(answered.find("\r\n\r\n"), answered.size() - 4) << "one answer: " << answered;
      if (verdict == 420) {
        EXPECT_THAT(answered,
                    testing::HasSubstr("\r\nUnsupported: noProxiesSupportThis, norDoAnyProxiesSupportThis\r\n"));
      }
      return;
    }
    EXPECT_EQ(answered, "");
    expect_forwarded(message.bytes, forwarded);
  }

  // dblreq: on a stream the octets behind the first message are a second one, whose Content-Length is five too few;
  // these cannot be framed.
  void expect_two_messages(const TortureMessage& message, const std::string& forwarded) {
    const std::size_t second = message.bytes.size() - std::stoul(message.framing) + 2;
    const std::size_t there = forwarded.find("INVITE sip:");
    ASSERT_NE(there, std::string::npos) << forwarded;
    const std::string_view bytes = message.bytes;
    ASSERT_TRUE(bytes.substr(second).starts_with("INVITE sip:") && bytes.ends_with("C\r\n\r\n"));
    expect_forwarded(bytes.substr(0, second - 2), forwarded.substr(0, there));
    expect_forwarded(bytes.substr(second, bytes.size() - second - 5), forwarded.substr(there));
  }

  // Those that never become whole wait for the rest; they have a test of their own.
  static bool waits(const TortureMessage& message) {
    return message.framing.starts_with("short") || message.framing == "-";
  }
  void expect_verdicts(const Cutter& cut) {
    for (const TortureMessage& message : messages_) {
      if (waits(message)) continue;
      ASSERT_NO_FATAL_FAILURE(expect_verdict(message, cut));
    }
  }

  std::vector<TortureMessage> messages_;
  std::optional<Capture> pbx_;
  std::unique_ptr<TlsStream> carrier_;
  std::optional<Capture> answers_;
  int marks_ = 0;
};

TEST_F(TortureStream, Whole) {
  ASSERT_NO_FATAL_FAILURE(start_with("60s"));
  expect_verdicts([](std::size_t left) { return left; });
}

TEST_F(TortureStream, OctetByOctet) {
  ASSERT_NO_FATAL_FAILURE(start_with("10m"));
  expect_verdicts([](std::size_t) { return 1; });
}

TEST_F(TortureStream, RandomlyCut) {
  ASSERT_NO_FATAL_FAILURE(start_with("10m"));
  const std::uint32_t seed = new_seed();
  SCOPED_TRACE(fmt::format("KTRUNK_TEST_SEED={}", seed));
  std::printf("KTRUNK_TEST_SEED=%u\n", seed);
  std::mt19937 random(seed);
  for (int round = 0; round < scaled(20); ++round) {
    const std::size_t longest = std::size_t{2} << random() % 10;
    ASSERT_NO_FATAL_FAILURE(expect_verdicts([&](std::size_t) { return 1 + random() % longest; }));
  }
}

// All of them at once, cut anywhere: every message that is answered or forwarded by itself is so in a crowd.
TEST_F(TortureStream, AllInOneStream) {
  ASSERT_NO_FATAL_FAILURE(start_with("10m"));
  const std::uint32_t seed = new_seed();
  std::printf("KTRUNK_TEST_SEED=%u\n", seed);
  std::mt19937 random(seed);
  for (int round = 0; round < scaled(10); ++round) {
    std::string together;
    std::size_t requests = 0;
    std::size_t refusals = 0;
    for (const TortureMessage& message : messages_) {
      if (message.framing != "exact") continue;
      together += message.bytes;
      const int verdict = torture_verdict(message.name);
      if (verdict == kTortureForwarded) ++requests;
      if (verdict > kTortureForwarded) ++refusals;
    }
    ASSERT_NO_FATAL_FAILURE(call());
    ASSERT_NO_FATAL_FAILURE(send_cut(together, [&](std::size_t) { return 1 + random() % 3000; }));
    std::string forwarded;
    std::string answered;
    ASSERT_NO_FATAL_FAILURE(mark(forwarded, answered));
    const auto count = [](std::string_view text, std::string_view what) {
      std::size_t found = 0;
      for (std::size_t at = text.find(what); at != std::string_view::npos; at = text.find(what, at + 1)) ++found;
      return found;
    };
    EXPECT_EQ(count(forwarded, ";branch=z9hG4bKI"), requests) << "seed " << seed;
    EXPECT_EQ(count(answered, "\r\nContent-Length: 0\r\n\r\n"), refusals) << "seed " << seed;
  }
}

// The rest of the message never comes: nothing is said, and after limits.partial_message the connection is closed.
TEST_F(TortureStream, ShortOnesWaitAndTimeOut) {
  ASSERT_NO_FATAL_FAILURE(start_with("1s"));
  int waited = 0;
  for (const TortureMessage& message : messages_) {
    if (!waits(message)) continue;
    ++waited;
    SCOPED_TRACE(message.name);
    ASSERT_NO_FATAL_FAILURE(call());
    ASSERT_TRUE(carrier_->write_all(message.bytes, kLong));
    const auto all = answers_->until_end();
    ASSERT_TRUE(all) << all.error().what;
    EXPECT_EQ(*all, "");
  }
  EXPECT_GT(waited, 1);
  ASSERT_NO_FATAL_FAILURE(call());
  std::string forwarded;
  std::string answered;
  ASSERT_NO_FATAL_FAILURE(mark(forwarded, answered));
  EXPECT_EQ(forwarded + answered, "");
}

// RFC 5118's files have bare LF: understood and refused, and the stream goes on behind those that are whole.
TEST_F(TortureStream, BareLfIsRefused) {
  ASSERT_NO_FATAL_FAILURE(start_with("60s"));
  ASSERT_NO_FATAL_FAILURE(call());
  for (const TortureMessage& message : messages_) {
    // The archive's lengths count CRLFs in some; and two have no empty line.
    if (message.bare_lf.empty() || message.bare_lf.find("\n\n") == std::string::npos ||
        message.name.ends_with("in-sdp"))
      continue;
    SCOPED_TRACE(message.name);
    ASSERT_NO_FATAL_FAILURE(send_cut(message.bare_lf, [](std::size_t left) { return left; }));
    std::string forwarded;
    std::string answered;
    ASSERT_NO_FATAL_FAILURE(mark(forwarded, answered));
    EXPECT_EQ(forwarded, "");
    EXPECT_TRUE(answered.starts_with("SIP/2.0 400 ")) << answered;
  }
}

}  // namespace
}  // namespace ktrunk::test
