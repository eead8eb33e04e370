#include "ktls/control_record.h"

#include <gtest/gtest.h>
#include <linux/tls.h>

#include <cstring>
#include <vector>

namespace ktrunk::ktls {
namespace {

// A control buffer as the kernel fills it in.
std::vector<std::byte> control(int level, int type, std::size_t length, std::uint8_t value) {
  std::vector<std::byte> out(kControlBytes);
  cmsghdr header = {};
  header.cmsg_level = level;
  header.cmsg_type = type;
  header.cmsg_len = length;
  std::memcpy(out.data(), &header, sizeof header);
  out[CMSG_LEN(0)] = std::byte{value};
  return out;
}

constexpr std::size_t kOne = CMSG_LEN(1);

TEST(RecordTypeOf, EveryValueTheKernelGives) {
  for (unsigned value = 0; value < 256; ++value) {
    const auto type = record_type(control(SOL_TLS, TLS_GET_RECORD_TYPE, kOne, static_cast<std::uint8_t>(value)), 0);
    ASSERT_TRUE(type.has_value());
    EXPECT_EQ(static_cast<unsigned>(*type), value);
  }
}

TEST(RecordTypeOf, NoControlMessageIsData) {
  EXPECT_EQ(record_type({}, 0).value(), RecordType::kApplicationData);
  EXPECT_EQ(record_type({}, MSG_EOR).value(), RecordType::kApplicationData);
}

TEST(RecordTypeOf, TruncationIsAnErrorWhateverElseIsThere) {
  EXPECT_FALSE(record_type({}, MSG_CTRUNC).has_value());
  EXPECT_FALSE(record_type(control(SOL_TLS, TLS_GET_RECORD_TYPE, kOne, 23), MSG_CTRUNC).has_value());
}

TEST(RecordTypeOf, EveryCutIsAnErrorAndNothingIsReadBeyondIt) {
  const auto whole = control(SOL_TLS, TLS_GET_RECORD_TYPE, kOne, 21);
  for (std::size_t size = 1; size < kOne; ++size) {
    const std::vector<std::byte> cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_FALSE(record_type(cut, 0).has_value()) << size;
  }
  const std::vector<std::byte> unpadded(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(kOne));
  EXPECT_EQ(record_type(unpadded, 0).value(), RecordType::kAlert);
}

TEST(RecordTypeOf, OtherControlMessagesAreErrors) {
  EXPECT_FALSE(record_type(control(SOL_SOCKET, TLS_GET_RECORD_TYPE, kOne, 21), 0).has_value());
  EXPECT_FALSE(record_type(control(SOL_TLS, TLS_SET_RECORD_TYPE, kOne, 21), 0).has_value());
  EXPECT_FALSE(record_type(control(SOL_TLS, TLS_GET_RECORD_TYPE, 0, 21), 0).has_value());
  EXPECT_FALSE(record_type(control(SOL_TLS, TLS_GET_RECORD_TYPE, SIZE_MAX, 21), 0).has_value());
  auto two = control(SOL_TLS, TLS_GET_RECORD_TYPE, kOne, 21);
  two.resize(2 * kControlBytes);
  EXPECT_FALSE(record_type(two, 0).has_value());
}

TEST(AlertOf, TwoOctetsOfAKnownLevel) {
  const auto parse = [](std::vector<unsigned char> bytes) { return parse_alert(std::as_bytes(std::span(bytes))); };
  EXPECT_EQ(parse({1, 0}).value(), kCloseNotify);
  EXPECT_EQ(parse({2, 48}).value(), (Alert{AlertLevel::kFatal, AlertDescription::kUnknownCa}));
  EXPECT_EQ(alert_name(parse({2, 255}).value().description), "unknown_alert");
  for (const std::vector<unsigned char>& bad :
       {std::vector<unsigned char>{}, {1}, {1, 0, 0}, {0, 0}, {3, 0}, {255, 10}})
    EXPECT_FALSE(parse(bad).has_value());
}

TEST(AlertNames, AreTheRfcs) {
  EXPECT_EQ(alert_name(AlertDescription::kCloseNotify), "close_notify");
  EXPECT_EQ(alert_name(AlertDescription::kUnexpectedMessage), "unexpected_message");
  EXPECT_EQ(alert_name(AlertDescription::kUnknownCa), "unknown_ca");
  EXPECT_EQ(alert_name(AlertDescription::kCertificateRequired), "certificate_required");
  EXPECT_EQ(record_type_name(RecordType::kHandshake), "handshake");
  EXPECT_EQ(record_type_name(static_cast<RecordType>(99)), "unknown");
}

TEST(HandshakeTypeOf, TheFirstOctet) {
  const std::array<std::byte, 4> ticket = {std::byte{4}};
  EXPECT_EQ(handshake_type(ticket), HandshakeType::kNewSessionTicket);
  const std::array<std::byte, 5> update = {std::byte{24}};
  EXPECT_EQ(handshake_type(update), HandshakeType::kKeyUpdate);
  EXPECT_EQ(handshake_type({}), std::nullopt);
}

TEST(AlertMessage, IsOneControlMessageAndTwoOctets) {
  const AlertMessage message(kCloseNotify);
  const msghdr* header = message.header();
  ASSERT_EQ(header->msg_iovlen, 1u);
  ASSERT_EQ(header->msg_iov->iov_len, AlertMessage::kPayloadBytes);
  const auto* payload = static_cast<const unsigned char*>(header->msg_iov->iov_base);
  EXPECT_EQ(payload[0], 1);
  EXPECT_EQ(payload[1], 0);
  cmsghdr record = {};
  ASSERT_GE(header->msg_controllen, kOne);
  std::memcpy(&record, header->msg_control, sizeof record);
  EXPECT_EQ(record.cmsg_level, SOL_TLS);
  EXPECT_EQ(record.cmsg_type, TLS_SET_RECORD_TYPE);
  EXPECT_EQ(record.cmsg_len, kOne);
  EXPECT_EQ(static_cast<const unsigned char*>(header->msg_control)[CMSG_LEN(0)], 21);
  EXPECT_EQ(header->msg_name, nullptr);
}

}  // namespace
}  // namespace ktrunk::ktls
