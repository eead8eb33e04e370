// Admission and the failure log: pure, with a clock of their own.
#include "handshake/admission.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "handshake/failure_log.h"

namespace ktrunk::test {
namespace {

using handshake::Admission;
using handshake::AdmissionLimits;
using handshake::FailureLog;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Verdict = Admission::Verdict;

Address ip(const std::string& text, std::uint16_t port = 40000) { return *Address::from_ip(text, port); }
Address nth(unsigned n) { return ip(fmt::format("10.{}.{}.{}", n >> 16 & 255, n >> 8 & 255, n & 255)); }

class AdmissionTest : public testing::Test {
 protected:
  Verdict arrive(Admission& admission, const Address& peer) {
    const auto answer = admission.handshake(++key_, peer, now_);
    given_up_ = answer.give_up;
    return answer.verdict;
  }
  std::uint64_t key_ = 0;
  Clock::time_point now_{std::chrono::hours(1)};
  std::optional<std::uint64_t> given_up_;
};

TEST(AddressBlockTest, IsAnIpv4AddressOrAnIpv6NetworkOf64Bits) {
  EXPECT_EQ(AddressBlock(ip("192.0.2.1", 1)), AddressBlock(ip("192.0.2.1", 2)));
  EXPECT_NE(AddressBlock(ip("192.0.2.1")), AddressBlock(ip("192.0.2.2")));
  EXPECT_EQ(AddressBlock(ip("192.0.2.1")), AddressBlock(ip("::ffff:192.0.2.1")));
  EXPECT_NE(AddressBlock(ip("::ffff:192.0.2.1")), AddressBlock(ip("::ffff:192.0.2.2")));
  EXPECT_EQ(AddressBlock(ip("2001:db8:1:2::1")), AddressBlock(ip("2001:db8:1:2:ffff:ffff:ffff:ffff")));
  EXPECT_NE(AddressBlock(ip("2001:db8:1:2::1")), AddressBlock(ip("2001:db8:1:3::1")));
  EXPECT_NE(AddressBlock(ip("0.0.0.1")), AddressBlock(ip("::1")));
  EXPECT_NE(AddressBlock(ip("0.0.0.0")), AddressBlock(Address()));
}

TEST(AdmissionLimitsTest, AreSharedRoundedUp) {
  config::Limits limits;
  limits.handshakes = 10;
  limits.handshake_rate = 1;
  const AdmissionLimits share = AdmissionLimits::share(limits, 4);
  EXPECT_EQ(share.handshakes, 3U);
  EXPECT_EQ(share.handshake_rate, 1U);
  EXPECT_EQ(share.handshakes_per_address, limits.handshakes_per_address);
  EXPECT_EQ(share.connections_per_address, limits.connections_per_address);
  limits.handshakes = 0xffffffff;
  EXPECT_EQ(AdmissionLimits::share(limits, 8).handshakes, 0x20000000U);
  EXPECT_EQ(AdmissionLimits::share(limits, 1).handshakes, 0xffffffffU);
}

TEST_F(AdmissionTest, AnAddressHasSoManyInProgress) {
  Admission admission({.handshakes = 100, .handshakes_per_address = 3, .handshake_rate = 100});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(arrive(admission, nth(1)), Verdict::kAdmitted);
  EXPECT_EQ(arrive(admission, nth(1)), Verdict::kAddressHandshakes);
  EXPECT_EQ(arrive(admission, nth(2)), Verdict::kAdmitted);
  admission.ended(2);
  EXPECT_EQ(arrive(admission, nth(1)), Verdict::kAdmitted);
  admission.ended(2);    // twice
  admission.ended(999);  // never was
  EXPECT_EQ(arrive(admission, nth(1)), Verdict::kAddressHandshakes);
  EXPECT_EQ(admission.in_progress(), 4U);
}

TEST_F(AdmissionTest, AnAddressBeginsSoManyASecond) {
  Admission admission({.handshakes = 100, .handshakes_per_address = 100, .handshake_rate = 10});
  const auto come_and_go = [&](const Address& peer) {
    const Verdict verdict = arrive(admission, peer);
    admission.ended(key_);
    return verdict;
  };
  for (int i = 0; i < 10; ++i) EXPECT_EQ(come_and_go(nth(1)), Verdict::kAdmitted);
  EXPECT_EQ(come_and_go(nth(1)), Verdict::kAddressRate);
  EXPECT_EQ(come_and_go(nth(2)), Verdict::kAdmitted);
  now_ += milliseconds(50);
  EXPECT_EQ(come_and_go(nth(1)), Verdict::kAddressRate);
  now_ += milliseconds(50);  // two looks add up to one handshake
  EXPECT_EQ(come_and_go(nth(1)), Verdict::kAdmitted);
  EXPECT_EQ(come_and_go(nth(1)), Verdict::kAddressRate);
  now_ += seconds(3600);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(come_and_go(nth(1)), Verdict::kAdmitted);
  EXPECT_EQ(come_and_go(nth(1)), Verdict::kAddressRate);
}

TEST_F(AdmissionTest, AnAddressHasSoManyConnections) {
  Admission admission({.connections_per_address = 2});
  admission.opened(ip("2001:db8::1"), now_);
  EXPECT_EQ(arrive(admission, ip("2001:db8::2")), Verdict::kAdmitted);
  admission.opened(ip("2001:db8::2"), now_);
  EXPECT_EQ(arrive(admission, ip("2001:db8::3")), Verdict::kAddressConnections);
  EXPECT_EQ(admission.plain(ip("2001:db8::3"), now_), Verdict::kAddressConnections);
  EXPECT_EQ(admission.plain(ip("2001:db8:0:1::3"), now_), Verdict::kAdmitted);
  admission.closed(ip("2001:db8::1"));
  EXPECT_EQ(admission.plain(ip("2001:db8::3"), now_), Verdict::kAdmitted);
  admission.closed(ip("2001:db8::1"));
  admission.closed(ip("2001:db8::1"));  // more than were opened
  admission.closed(nth(7));
  admission.opened(ip("2001:db8::1"), now_);
  EXPECT_EQ(arrive(admission, ip("2001:db8::3")), Verdict::kAdmitted);
}

TEST_F(AdmissionTest, ACrowdOfOneAddressLosesItsOwnOldest) {
  Admission admission({.handshakes = 10, .handshakes_per_address = 8, .handshake_rate = 100});
  EXPECT_EQ(arrive(admission, nth(1)), Verdict::kAdmitted);  // 1
  EXPECT_EQ(arrive(admission, nth(2)), Verdict::kAdmitted);  // 2
  for (int i = 0; i < 8; ++i) EXPECT_EQ(arrive(admission, nth(66)), Verdict::kAdmitted);
  EXPECT_FALSE(given_up_);
  EXPECT_EQ(arrive(admission, nth(3)), Verdict::kAdmitted);
  EXPECT_EQ(given_up_, 3U);
  EXPECT_EQ(arrive(admission, nth(66)), Verdict::kAdmitted);
  EXPECT_EQ(given_up_, 4U);
  EXPECT_EQ(admission.in_progress(), 10U);
}

TEST_F(AdmissionTest, OfACrowdOfManyAddressesTheOldestGoes) {
  Admission admission({.handshakes = 4, .handshakes_per_address = 8, .handshake_rate = 100});
  for (unsigned i = 0; i < 4; ++i) EXPECT_EQ(arrive(admission, nth(i)), Verdict::kAdmitted);
  for (unsigned i = 4; i < 40; ++i) {
    EXPECT_EQ(arrive(admission, nth(i)), Verdict::kAdmitted);
    EXPECT_EQ(given_up_, i - 3);
  }
  EXPECT_EQ(admission.take_victim(), 37U);
  EXPECT_EQ(admission.in_progress(), 3U);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(admission.take_victim());
  EXPECT_FALSE(admission.take_victim());
}

TEST_F(AdmissionTest, ItsMemoryIsBounded) {
  Admission admission({.handshakes = 16, .handshakes_per_address = 2, .handshake_rate = 10});
  admission.opened(nth(0), now_);
  for (unsigned i = 1; i < 200'000; ++i) {
    (void)arrive(admission, nth(i));
    ASSERT_LE(admission.addresses(), Admission::kMostAddresses);
    ASSERT_LE(admission.in_progress(), 16U);
  }
  // Those with something open are not forgotten, the others are once their rate is full.
  now_ += seconds(2);
  for (unsigned i = 0; i < 20'000; ++i) (void)admission.plain(nth(300'000 + i), now_ += milliseconds(1));
  EXPECT_LT(admission.addresses(), 1200U);
  EXPECT_EQ(admission.in_progress(), 16U);
  Admission full({.connections_per_address = 1});
  full.opened(nth(0), now_);
  for (unsigned i = 1; i < 200'000; ++i) (void)full.plain(nth(i), now_);
  EXPECT_EQ(full.plain(nth(0), now_), Verdict::kAddressConnections);
}

// Against a simple model, with everything at random.
TEST_F(AdmissionTest, CountsAsASimpleModelDoes) {
  std::minstd_rand random(7);
  Admission admission({.handshakes = 20, .handshakes_per_address = 6, .handshake_rate = 1'000'000});
  std::vector<std::pair<std::uint64_t, unsigned>> model;  // key, address
  const auto count_of = [&](unsigned address) {
    return std::ranges::count(model, address, &std::pair<std::uint64_t, unsigned>::second);
  };
  for (int i = 0; i < 20'000; ++i) {
    now_ += milliseconds(random() % 3);
    if (random() % 3 == 0 && !model.empty()) {
      const auto at = model.begin() + static_cast<std::ptrdiff_t>(random() % model.size());
      admission.ended(at->first);
      model.erase(at);
      continue;
    }
    const auto address = static_cast<unsigned>(random() % 9);
    const Verdict verdict = arrive(admission, nth(address));
    ASSERT_EQ(verdict, count_of(address) < 6 ? Verdict::kAdmitted : Verdict::kAddressHandshakes);
    if (verdict != Verdict::kAdmitted) continue;
    ASSERT_EQ(given_up_.has_value(), model.size() == 20);
    if (given_up_) {
      const auto at = std::ranges::find(model, *given_up_, &std::pair<std::uint64_t, unsigned>::first);
      ASSERT_NE(at, model.end());
      for (unsigned other = 0; other < 9; ++other) ASSERT_LE(count_of(other), count_of(at->second));
      for (auto earlier = model.begin(); earlier != at; ++earlier) ASSERT_NE(earlier->second, at->second);
      model.erase(at);
    }
    model.emplace_back(key_, address);
    ASSERT_EQ(admission.in_progress(), model.size());
  }
}

TEST(FailureLogTest, OneLineAnAddressAndPeriod) {
  FailureLog log(seconds(10));
  Clock::time_point now{std::chrono::hours(1)};
  EXPECT_EQ(log.line(nth(1), now), "");
  for (int i = 0; i < 41; ++i) EXPECT_FALSE(log.line(nth(1), now += milliseconds(10)));
  EXPECT_EQ(log.line(nth(2), now), "");
  now += seconds(10);
  EXPECT_EQ(log.line(nth(1), now), "; 41 more from there are not shown");
  EXPECT_EQ(log.line(nth(2), now), "");
}

TEST(FailureLogTest, ACrowdWritesABoundedNumberOfLines) {
  FailureLog log(seconds(1));
  Clock::time_point now{std::chrono::hours(1)};
  unsigned lines = 0;
  unsigned left_out = 0;
  for (unsigned i = 0; i < 100'000; ++i) {
    const auto line = log.line(nth(i), now += std::chrono::microseconds(50));  // five seconds in all
    lines += line ? 1 : 0;
    left_out += line ? 0 : 1;
    ASSERT_LE(log.addresses(), FailureLog::kMostAddresses);
  }
  EXPECT_LE(lines, 6 * FailureLog::kLinesPerSecond);
  EXPECT_GE(lines, 4 * FailureLog::kLinesPerSecond);
  EXPECT_GT(left_out, 0U);
  const auto next = log.line(nth(500'000), now += seconds(1));
  ASSERT_TRUE(next);
  EXPECT_NE(next->find("from other addresses are not shown"), std::string::npos) << *next;
}

TEST(FailureLogTest, WhatAForgottenAddressHadLeftOutIsSaid) {
  FailureLog log(seconds(1));
  Clock::time_point now{std::chrono::hours(1)};
  EXPECT_TRUE(log.line(nth(1), now));
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(log.line(nth(1), now));
  EXPECT_EQ(log.line(nth(2), now += seconds(60)), "; 5 from other addresses are not shown");
  EXPECT_EQ(log.addresses(), 1U);
}

}  // namespace
}  // namespace ktrunk::test
