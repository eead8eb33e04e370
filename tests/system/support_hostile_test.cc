// HostilePeer against OpenSSL: an ordinary peer until told otherwise, and then every abuse arrives as meant.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <string>

#include "support/certificates.h"
#include "support/hostile_peer.h"
#include "support/process.h"

namespace ktrunk::test {
namespace {

using ktls::AlertDescription;
using ktls::AlertLevel;
using ktls::RecordType;

struct Point {
  const char* name;
  int version;
  const char* ciphers;       // TLS 1.2
  const char* ciphersuites;  // TLS 1.3
};
void PrintTo(const Point& point, std::ostream* out) { *out << point.name; }

class HostilePeerTest : public testing::TestWithParam<Point> {
 protected:
  [[nodiscard]] TlsOptions server() const {
    return {.certificate = files_.certificate,
            .key = files_.key,
            .min_version = GetParam().version,
            .max_version = GetParam().version,
            .ciphers = GetParam().ciphers,
            .ciphersuites = GetParam().ciphersuites};
  }
  [[nodiscard]] TlsOptions client() const { return {.ca = authority_.file(), .verify_name = "sip.example.com"}; }
  [[nodiscard]] static bool tls13() { return GetParam().version == TLS1_3_VERSION; }

  void hostile_client() {
    auto listener = TcpListener::bind(free_address());
    ASSERT_TRUE(listener);
    auto accepted = std::async(std::launch::async, [&] { return TlsStream::accept(*listener->accept(), server()); });
    auto peer = HostilePeer::connect(listener->address(), client());
    auto other = accepted.get();
    ASSERT_TRUE(peer) << peer.error().what;
    ASSERT_TRUE(other) << other.error().what;
    peer_ = std::move(*peer);
    openssl_ = std::move(*other);
  }
  void hostile_server() {
    auto listener = TcpListener::bind(free_address());
    ASSERT_TRUE(listener);
    auto accepted = std::async(std::launch::async, [&] { return HostilePeer::accept(*listener->accept(), server()); });
    auto other = TlsStream::connect(listener->address(), client());
    auto peer = accepted.get();
    ASSERT_TRUE(peer) << peer.error().what;
    ASSERT_TRUE(other) << other.error().what;
    peer_ = std::move(*peer);
    openssl_ = std::move(*other);
  }
  void ping_pong() {
    ASSERT_TRUE(peer_->write_all("ping"));
    EXPECT_EQ(openssl_->read_some().value_or("?"), "ping");
    ASSERT_TRUE(openssl_->write_all("pong"));
    EXPECT_EQ(peer_->read_some().value_or("?"), "pong");
  }
  // OpenSSL reads on, fails, and says so.
  void answered_with(AlertDescription description) {
    const auto got = openssl_->read_some();
    EXPECT_FALSE(got) << *got;
    const auto end = peer_->receive_end();
    EXPECT_EQ(end.how, HostilePeer::End::How::kAlert) << end.error.what;
    EXPECT_EQ(ktls::alert_name(end.alert.description), ktls::alert_name(description));
    EXPECT_EQ(end.alert.level, AlertLevel::kFatal);
  }

  TempFolder folder_;
  CertificateAuthority authority_{folder_.path(), "ca"};
  CertificateFiles files_ = authority_.issue({.name = "server", .dns = {"sip.example.com"}});
  std::unique_ptr<HostilePeer> peer_;
  std::unique_ptr<TlsStream> openssl_;
};

TEST_P(HostilePeerTest, IsAnOrdinaryClient) {
  ASSERT_NO_FATAL_FAILURE(hostile_client());
  EXPECT_EQ(peer_->tls13(), tls13());
  for (int i = 0; i < 3; ++i) ASSERT_NO_FATAL_FAILURE(ping_pong());
  ASSERT_TRUE(openssl_->write_all(std::string(40'000, 'x')));
  std::size_t got = 0;
  while (got < 40'000) {
    const auto some = peer_->read_some();
    ASSERT_TRUE(some) << some.error().what;
    got += some->size();
  }
  ASSERT_TRUE(peer_->finish());
  EXPECT_EQ(openssl_->read_some().value_or("?"), "");
  ASSERT_TRUE(openssl_->finish());
  EXPECT_EQ(peer_->read_some().value_or("?"), "");
}

TEST_P(HostilePeerTest, IsAnOrdinaryServer) {
  ASSERT_NO_FATAL_FAILURE(hostile_server());
  for (int i = 0; i < 3; ++i) ASSERT_NO_FATAL_FAILURE(ping_pong());
  ASSERT_TRUE(openssl_->finish());
  EXPECT_EQ(peer_->read_some().value_or("?"), "");
}

TEST_P(HostilePeerTest, FollowsAndMakesKeyUpdates) {
  if (!tls13()) return;  // there are none
  ASSERT_NO_FATAL_FAILURE(hostile_client());
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(peer_->key_update(i % 2 == 0 ? KeyUpdateRequest::kRequested : KeyUpdateRequest::kNotRequested));
    ASSERT_NO_FATAL_FAILURE(ping_pong());
    ASSERT_TRUE(openssl_->key_update(i % 2 == 0 ? SSL_KEY_UPDATE_NOT_REQUESTED : SSL_KEY_UPDATE_REQUESTED));
    ASSERT_NO_FATAL_FAILURE(ping_pong());
    ASSERT_NO_FATAL_FAILURE(ping_pong());
  }
  // Five of OpenSSL's own, and three answers to ours.
  EXPECT_EQ(peer_->key_updates_received(), 8u);
  EXPECT_EQ(peer_->key_updates_sent(), 7u);
}

TEST_P(HostilePeerTest, SendsTicketsThatOpensslTakes) {
  if (!tls13()) return;
  ASSERT_NO_FATAL_FAILURE(hostile_server());
  ASSERT_TRUE(peer_->send(RecordType::kHandshake, ticket_message()));
  ASSERT_NO_FATAL_FAILURE(ping_pong());
  EXPECT_EQ(::SSL_SESSION_has_ticket(::SSL_get_session(openssl_->ssl())), 1);
}

TEST_P(HostilePeerTest, PaddedAndEmptyRecordsAreOrdinary) {
  ASSERT_NO_FATAL_FAILURE(hostile_client());
  ASSERT_TRUE(peer_->send(RecordType::kApplicationData, ""));
  ASSERT_TRUE(peer_->send(RecordType::kApplicationData, "padded", {.padding = 1000}));
  EXPECT_EQ(openssl_->read_some().value_or("?"), "padded");
  std::string two = peer_->seal(RecordType::kApplicationData, "one");
  two += peer_->seal(RecordType::kApplicationData, "two");
  for (const char octet : two) ASSERT_TRUE(peer_->send_raw({&octet, 1}));
  EXPECT_EQ(openssl_->read_some().value_or("?"), "one");
  EXPECT_EQ(openssl_->read_some().value_or("?"), "two");
}

TEST_P(HostilePeerTest, WrongTag) {
  ASSERT_NO_FATAL_FAILURE(hostile_client());
  ASSERT_TRUE(peer_->send(RecordType::kApplicationData, "x", {.tag = RecordShape::Tag::kWrong}));
  ASSERT_NO_FATAL_FAILURE(answered_with(AlertDescription::kBadRecordMac));
}

TEST_P(HostilePeerTest, WrongNumber) {
  ASSERT_NO_FATAL_FAILURE(hostile_client());
  ASSERT_TRUE(peer_->send(RecordType::kApplicationData, "x", {.number = 77}));
  ASSERT_NO_FATAL_FAILURE(answered_with(AlertDescription::kBadRecordMac));
}

TEST_P(HostilePeerTest, TooLong) {
  ASSERT_NO_FATAL_FAILURE(hostile_client());
  ASSERT_TRUE(peer_->send(RecordType::kApplicationData, std::string(17'000, 'x')));
  ASSERT_NO_FATAL_FAILURE(answered_with(AlertDescription::kRecordOverflow));
}

TEST_P(HostilePeerTest, UnknownType) {
  ASSERT_NO_FATAL_FAILURE(hostile_client());
  ASSERT_TRUE(peer_->send(std::uint8_t{99}, "x"));
  ASSERT_NO_FATAL_FAILURE(answered_with(AlertDescription::kUnexpectedMessage));
}

TEST_P(HostilePeerTest, MalformedAlert) {
  ASSERT_NO_FATAL_FAILURE(hostile_client());
  ASSERT_TRUE(peer_->send(RecordType::kAlert, "\x01"));
  const auto got = openssl_->read_some();
  EXPECT_FALSE(got);
}

INSTANTIATE_TEST_SUITE_P(Suites, HostilePeerTest,
                         testing::Values(Point{"Tls13Aes128", TLS1_3_VERSION, "", "TLS_AES_128_GCM_SHA256"},
                                         Point{"Tls13Aes256", TLS1_3_VERSION, "", "TLS_AES_256_GCM_SHA384"},
                                         Point{"Tls13Chacha20", TLS1_3_VERSION, "", "TLS_CHACHA20_POLY1305_SHA256"},
                                         Point{"Tls12Aes128", TLS1_2_VERSION, "ECDHE-ECDSA-AES128-GCM-SHA256", ""},
                                         Point{"Tls12Aes256", TLS1_2_VERSION, "ECDHE-ECDSA-AES256-GCM-SHA384", ""},
                                         Point{"Tls12Chacha20", TLS1_2_VERSION, "ECDHE-ECDSA-CHACHA20-POLY1305", ""}),
                         [](const auto& point) { return point.param.name; });

}  // namespace
}  // namespace ktrunk::test
