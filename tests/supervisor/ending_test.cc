// What an end means on the wire and in the log; how many connections an address has.
#include "supervisor/ending.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "supervisor/address_counts.h"

namespace ktrunk::supervisor {
namespace {

using ipc::FaultReason;
using ktls::AlertDescription;
using testing::HasSubstr;
using namespace std::chrono_literals;

TEST(EndingTest, BadRecordsHaveTheirOwnAlerts) {
  const auto alert = [](int code) { return ending_of({.reason = FaultReason::kBadRecord, .detail = code}).alert; };
  EXPECT_EQ(alert(EBADMSG), AlertDescription::kBadRecordMac);
  EXPECT_EQ(alert(EMSGSIZE), AlertDescription::kRecordOverflow);
  EXPECT_EQ(alert(EINVAL), AlertDescription::kProtocolVersion);
  EXPECT_EQ(alert(0), AlertDescription::kBadRecordMac);
}

TEST(EndingTest, EveryReasonHasAnEnd) {
  for (auto reason = FaultReason::kCloseNotify; reason <= FaultReason::kKeyLimit;
       reason = static_cast<FaultReason>(static_cast<int>(reason) + 1)) {
    const ipc::Fault fault{.reason = reason, .detail = 7};
    EXPECT_NE(reason_text(fault), "unknown reason");
    const bool fatal = ending_of(fault).alert != AlertDescription::kCloseNotify;
    EXPECT_TRUE(!fatal || ending_of(fault).stream == Ending::Stream::kInOrder) << "an alert that would not be sent";
  }
}

TEST(EndingTest, SaysWhichKernelWouldHaveCarriedOn) {
  EXPECT_THAT(reason_text({.reason = FaultReason::kNoRekey}), testing::AllOf(HasSubstr("6.14"), HasSubstr("Linux")));
}

TEST(EndingTest, NamesTrunkOrListener) {
  config::Config config;
  config.trunks.resize(1);
  config.trunks[0].name = "pbx";
  config.listeners.resize(1);
  config.listeners[0].name = "wan";
  ipc::ConnectionInfo info;
  info.peer = *Address::parse("192.0.2.1:5061");
  EXPECT_EQ(connection_name(config, info), "connection, tls 192.0.2.1:5061");
  info.listener = ListenerId{0};
  EXPECT_EQ(connection_name(config, info), "listener 'wan', tls 192.0.2.1:5061");
  info.trunk = TrunkId{0};
  EXPECT_EQ(connection_name(config, info), "trunk 'pbx', tls 192.0.2.1:5061");
}

TEST(AddressCountsTest, CountsByAddressAloneAndForgets) {
  using Outcome = AddressCounts::Outcome;
  AddressCounts counts;
  const Address a1 = *Address::parse("192.0.2.1:1");
  const Address a2 = *Address::parse("192.0.2.1:2");
  const Address mapped = *Address::parse("[::ffff:192.0.2.1]:3");
  const Address v6 = *Address::parse("[2001:db8::1]:3");
  EXPECT_EQ(counts.add(a1, 2), Outcome::kCounted);
  EXPECT_EQ(counts.add(mapped, 2), Outcome::kCounted);
  EXPECT_EQ(counts.add(a2, 2), Outcome::kFull);
  EXPECT_EQ(counts.add(v6, 2), Outcome::kCounted);
  EXPECT_EQ(counts.addresses(), 2U);
  counts.remove(a2);
  EXPECT_EQ(counts.add(a1, 2), Outcome::kCounted);
  for (const Address& each : {a1, mapped, v6}) counts.remove(each);
  EXPECT_EQ(counts.addresses(), 0U);
  counts.remove(a1);
}

TEST(AddressCountsTest, OneLinePerAddressAndTime) {
  AddressCounts counts;
  const Address one = *Address::parse("192.0.2.1:1");
  const Address other = *Address::parse("192.0.2.2:1");
  (void)counts.add(one, 1);
  (void)counts.add(other, 1);
  const Clock::time_point start{};
  EXPECT_EQ(counts.refused(one, start), 1U);
  EXPECT_EQ(counts.refused(one, start + 1s), std::nullopt);
  EXPECT_EQ(counts.refused(other, start + 1s), 1U);
  EXPECT_EQ(counts.refused(one, start + 9s), std::nullopt);
  EXPECT_EQ(counts.refused(one, start + 10s), 3U);
}

}  // namespace
}  // namespace ktrunk::supervisor
