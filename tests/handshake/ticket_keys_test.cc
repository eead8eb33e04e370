// Session tickets: keys that several processes share and that go out of use, and what a ticket never gets past.
#include "handshake/ticket_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "handshake/tls_context_bench.h"

namespace ktrunk::handshake {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;
using test::Meeting;
using test::Pki;

const TicketKeys::Clock::time_point kStart = TicketKeys::Clock::now();

class TicketKeysTest : public testing::TestWithParam<int> {
 protected:
  TicketKeysTest() { listener_.name = "edge"; }

  static TicketKeys keys(ipc::TicketKeyRing& ring, std::uint8_t process) {
    auto made = TicketKeys::on(ring, HandshakeIndex{process}, hours(1));
    return std::move(made.value());
  }
  Meeting meet(const config::Listener& listener, TicketKeys& keys, SSL_SESSION* resume = nullptr,
               const Pki::Files& certificate = {}) {
    const auto context = TlsContext::for_listener(listener, &keys);
    EXPECT_TRUE(context.has_value()) << context.error().what;
    return test::meet(*context, pki_.authority_file(),
                      {.version = GetParam(), .certificate = certificate, .resume = resume});
  }
  Meeting meet(TicketKeys& with, SSL_SESSION* resume = nullptr) { return meet(listener_, with, resume); }

  Pki pki_;
  Pki::Files server_ = pki_.issue({});
  config::Listener listener_ = pki_.listener(server_);
  ipc::TicketKeyRing ring_{};
  TicketKeys first_ = keys(ring_, 0);
  TicketKeys second_ = keys(ring_, 1);
};
INSTANTIATE_TEST_SUITE_P(Versions, TicketKeysTest, testing::Values(TLS1_2_VERSION, TLS1_3_VERSION),
                         [](const auto& i) { return i.param == TLS1_2_VERSION ? "Tls12" : "Tls13"; });

TEST_P(TicketKeysTest, ProcessZeroAloneRotates) {
  ASSERT_TRUE(second_.rotate_if_due(kStart));
  EXPECT_EQ(ring_.current.load(), 0u);
  ASSERT_TRUE(first_.rotate_if_due(kStart));
  EXPECT_EQ(ring_.current.load(), 1u);
  ASSERT_TRUE(first_.rotate_if_due(kStart + minutes(59)));
  EXPECT_EQ(ring_.current.load(), 1u);
  ASSERT_TRUE(first_.rotate_if_due(kStart + minutes(61)));
  EXPECT_EQ(ring_.current.load(), 2u);
  EXPECT_NE(ring_.keys[0].name, ring_.keys[1].name);
  EXPECT_NE(ring_.keys[0].aes, ring_.keys[1].aes);
  EXPECT_NE(ring_.keys[0].aes, ring_.keys[0].mac);
  ASSERT_TRUE(first_.rotate_if_due(kStart - hours(24)));  // the clock was set back
  EXPECT_EQ(ring_.current.load(), 3u);
  const ipc::TicketKey none{};
  EXPECT_EQ(std::memcmp(&ring_.keys[0], &none, sizeof none), 0) << "a key that opens nothing is still there";
  // A successor of process 0 goes on where it was.
  auto successor = keys(ring_, 0);
  ASSERT_TRUE(successor.rotate_if_due(kStart - hours(24) + minutes(1)));
  EXPECT_EQ(ring_.current.load(), 3u);
}

TEST_P(TicketKeysTest, ATicketOpensInEveryProcess) {
  ASSERT_TRUE(first_.rotate_if_due(kStart));
  const Meeting full = meet(first_);
  ASSERT_TRUE(full.done) << full.error;
  EXPECT_FALSE(full.resumed);
  EXPECT_TRUE(meet(second_, full.session.get()).resumed);
  auto successor = keys(ring_, 0);
  EXPECT_TRUE(meet(successor, full.session.get()).resumed);
}

TEST_P(TicketKeysTest, TheKeyBeforeOpensAndRenewsOlderOnesDoNot) {
  ASSERT_TRUE(first_.rotate_if_due(kStart));
  const Meeting full = meet(first_);
  ASSERT_TRUE(first_.rotate_if_due(kStart + hours(1)));
  const Meeting again = meet(second_, full.session.get());
  EXPECT_TRUE(again.resumed);
  ASSERT_TRUE(first_.rotate_if_due(kStart + hours(2)));
  EXPECT_FALSE(meet(first_, full.session.get()).resumed);
  EXPECT_TRUE(meet(first_, again.session.get()).resumed) << "the ticket was not renewed";
  for (int i = 3; i < 9; ++i) ASSERT_TRUE(first_.rotate_if_due(kStart + hours(i)));
  const Meeting late = meet(first_, again.session.get());
  EXPECT_TRUE(late.done);
  EXPECT_FALSE(late.resumed);
}

TEST_P(TicketKeysTest, BeforeTheFirstKeyAProcessHasItsOwn) {
  const Meeting full = meet(second_);
  ASSERT_TRUE(full.done) << full.error;
  EXPECT_FALSE(meet(first_, full.session.get()).resumed);
  EXPECT_TRUE(meet(second_, full.session.get()).resumed);
  ASSERT_TRUE(first_.rotate_if_due(kStart));
  const Meeting renewed = meet(second_, full.session.get());
  EXPECT_TRUE(renewed.resumed);
  EXPECT_TRUE(meet(first_, renewed.session.get()).resumed);
}

TEST_P(TicketKeysTest, AnotherListenersTicketIsNone) {
  ASSERT_TRUE(first_.rotate_if_due(kStart));
  const Meeting full = meet(first_);
  auto other = listener_;
  other.name = "other";
  EXPECT_FALSE(meet(other, first_, full.session.get()).resumed);
  EXPECT_TRUE(meet(listener_, first_, full.session.get()).resumed);
}

TEST_P(TicketKeysTest, ATicketGetsPastNoOtherVerification) {
  ASSERT_TRUE(first_.rotate_if_due(kStart));
  const auto client = pki_.issue({.common_name = "client"});
  const auto without = listener_;
  auto verified = listener_;
  verified.verify_client = config::ClientVerification::kOptional;
  verified.tls.ca = pki_.authority_file();
  const Meeting anonymous = meet(without, first_);
  EXPECT_FALSE(meet(verified, first_, anonymous.session.get()).resumed);

  const Meeting full = meet(verified, first_, nullptr, client);
  ASSERT_TRUE(full.peer_known) << full.error;
  const Meeting same = meet(verified, second_, full.session.get(), client);
  EXPECT_TRUE(same.resumed);
  EXPECT_TRUE(same.peer_known);
  auto required = verified;
  required.verify_client = config::ClientVerification::kRequire;
  EXPECT_FALSE(meet(required, first_, full.session.get(), client).resumed);
  auto any = verified;
  any.client_purpose = config::ClientPurpose::kAny;
  EXPECT_FALSE(meet(any, first_, full.session.get(), client).resumed);
  auto revoking = verified;  // a newer list, that has the client in it
  revoking.tls.crl = pki_.write_file("list.pem", pki_.revocations({client}));
  const Meeting refused = meet(revoking, first_, full.session.get(), client);
  EXPECT_FALSE(refused.done);
  EXPECT_EQ(refused.alert, ktls::AlertDescription::kCertificateRevoked);
  Pki other("Other");
  auto trusting = verified;  // another set of authorities under the same file name
  trusting.tls.ca = pki_.write_file("ca.pem", pki_.authority_text() + other.authority_text());
  EXPECT_FALSE(meet(trusting, first_, full.session.get(), client).resumed);
}

TEST_P(TicketKeysTest, NoTicketsMeansNoResumption) {
  ASSERT_TRUE(first_.rotate_if_due(kStart));
  const Meeting full = meet(first_);
  auto none = listener_;
  none.tickets = 0;
  const Meeting without = meet(none, first_);
  EXPECT_TRUE(without.done);
  EXPECT_EQ(SSL_SESSION_has_ticket(without.session.get()), 0);
  EXPECT_FALSE(meet(none, first_, without.session.get()).resumed);
  EXPECT_FALSE(meet(none, first_, full.session.get()).resumed);
}

TEST_P(TicketKeysTest, ForgedTicketsOpenNothing) {
  ASSERT_TRUE(first_.rotate_if_due(kStart));
  ASSERT_TRUE(first_.rotate_if_due(kStart + hours(1)));
  const Meeting full = meet(first_);
  const unsigned char* ticket = nullptr;
  std::size_t size = 0;
  SSL_SESSION_get0_ticket(full.session.get(), &ticket, &size);
  ASSERT_GT(size, 64u);
  unsigned char* der = nullptr;
  const int der_size = i2d_SSL_SESSION(full.session.get(), &der);
  const std::string session(reinterpret_cast<char*>(der), static_cast<std::size_t>(der_size));
  OPENSSL_free(der);
  const std::size_t at = session.find(std::string_view(reinterpret_cast<const char*>(ticket), size));
  ASSERT_NE(at, std::string::npos);
  for (std::size_t i = 0; i < size; i += i < 40 ? 7 : 61) {
    std::string damaged = session;
    damaged[at + i] = static_cast<char>(damaged[at + i] ^ 0x40);
    const auto* begin = reinterpret_cast<const unsigned char*>(damaged.data());
    const test::Memory forged(d2i_SSL_SESSION(nullptr, &begin, static_cast<long>(damaged.size())));
    ASSERT_NE(forged, nullptr);
    const Meeting meeting = meet(first_, forged.get());
    EXPECT_TRUE(meeting.done) << meeting.error;
    EXPECT_FALSE(meeting.resumed) << i;
  }
}

TEST_P(TicketKeysTest, LifetimeIsTheRotation) {
  const auto context = TlsContext::for_listener(listener_, &first_);
  ASSERT_TRUE(context.has_value());
  EXPECT_EQ(SSL_CTX_get_timeout(context->get()), 3600);
  EXPECT_EQ(first_.lifetime(), seconds(3600));
}

}  // namespace
}  // namespace ktrunk::handshake
