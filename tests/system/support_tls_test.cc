// The TLS peers of the tests, against each other.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <string>

#include "support/certificates.h"
#include "support/process.h"
#include "support/tls_peer.h"

namespace ktrunk::test {
namespace {

using testing::HasSubstr;

using Stream = Result<std::unique_ptr<TlsStream>>;

struct Pair {
  Stream client;
  Stream server;
};

Pair connect_pair(const TlsOptions& client, const TlsOptions& server) {
  const auto listener = TcpListener::bind(free_address());
  if (!listener) return {std::unexpected(listener.error()), std::unexpected(listener.error())};
  auto accepted = std::async(std::launch::async, [&]() -> Stream {
    auto socket = listener->accept();
    if (!socket) return std::unexpected(socket.error());
    return TlsStream::accept(std::move(*socket), server);
  });
  Stream connected = TlsStream::connect(listener->address(), client);
  return {std::move(connected), accepted.get()};
}

class TlsPeerTest : public testing::Test {
 protected:
  [[nodiscard]] TlsOptions server(const CertificateOptions& options) const {
    const CertificateFiles files = authority_.issue(options);
    return {.certificate = files.certificate, .key = files.key};
  }
  [[nodiscard]] TlsOptions client() const { return {.ca = authority_.file(), .verify_name = "sip.example.com"}; }

  TempFolder folder_;
  CertificateAuthority authority_{folder_.path(), "ca"};
  const CertificateOptions good_{.name = "server", .dns = {"sip.example.com"}, .uris = {"sip:example.com"}};
};

void exchange(Pair& pair) {
  ASSERT_TRUE(pair.client) << pair.client.error().what;
  ASSERT_TRUE(pair.server) << pair.server.error().what;
  ASSERT_TRUE((*pair.client)->write_all("ping"));
  EXPECT_EQ((*pair.server)->read_some().value_or("?"), "ping");
  ASSERT_TRUE((*pair.server)->write_all("pong"));
  EXPECT_EQ((*pair.client)->read_some().value_or("?"), "pong");
  ASSERT_TRUE((*pair.client)->finish());
  EXPECT_EQ((*pair.server)->read_some().value_or("?"), "");
}

TEST_F(TlsPeerTest, Tls13) {
  Pair pair = connect_pair(client(), server(good_));
  exchange(pair);
  EXPECT_EQ((*pair.client)->version(), "TLSv1.3");
}

TEST_F(TlsPeerTest, Tls12WithAChosenSuiteAndRsa) {
  CertificateOptions rsa = good_;
  rsa.key = KeyType::kRsa2048;
  TlsOptions options = client();
  options.max_version = TLS1_2_VERSION;
  options.ciphers = "ECDHE-RSA-AES256-GCM-SHA384";
  Pair pair = connect_pair(options, server(rsa));
  exchange(pair);
  EXPECT_EQ((*pair.server)->version(), "TLSv1.2");
  EXPECT_EQ((*pair.server)->cipher(), "ECDHE-RSA-AES256-GCM-SHA384");
}

TEST_F(TlsPeerTest, ClientCertificate) {
  const CertificateFiles files =
      authority_.issue({.name = "client", .common_name = "the client", .dns = {"a.example"}});
  TlsOptions with = client();
  with.certificate = files.certificate;
  with.key = files.key;
  TlsOptions asking = server(good_);
  asking.ca = authority_.file();
  Pair pair = connect_pair(with, asking);
  exchange(pair);
  EXPECT_EQ((*pair.server)->peer_common_name(), "the client");
}

TEST_F(TlsPeerTest, KeyUpdate) {
  Pair pair = connect_pair(client(), server(good_));
  ASSERT_TRUE(pair.client && pair.server);
  ASSERT_TRUE((*pair.client)->key_update(SSL_KEY_UPDATE_REQUESTED));
  exchange(pair);
}

TEST_F(TlsPeerTest, WrongCertificatesAreRefused) {
  CertificateOptions expired = good_;
  expired.validity = Validity::kExpired;
  EXPECT_THAT(connect_pair(client(), server(expired)).client.error().what, HasSubstr("certificate verify failed"));
  CertificateOptions early = good_;
  early.validity = Validity::kNotYet;
  EXPECT_THAT(connect_pair(client(), server(early)).client.error().what, HasSubstr("certificate verify failed"));
  CertificateOptions other_name = good_;
  other_name.dns = {"other.example.com"};
  EXPECT_THAT(connect_pair(client(), server(other_name)).client.error().what, HasSubstr("certificate verify failed"));
  CertificateOptions for_clients = good_;
  for_clients.purpose = Purpose::kClient;
  EXPECT_THAT(connect_pair(client(), server(for_clients)).client.error().what, HasSubstr("certificate verify failed"));
  const CertificateAuthority stranger(folder_.path(), "stranger");
  TlsOptions distrusting = client();
  distrusting.ca = stranger.file();
  EXPECT_THAT(connect_pair(distrusting, server(good_)).client.error().what, HasSubstr("certificate verify failed"));
}

TEST_F(TlsPeerTest, SilenceIsATimeout) {
  Pair pair = connect_pair(client(), server(good_));
  ASSERT_TRUE(pair.client && pair.server);
  const auto nothing = (*pair.client)->read_some(milliseconds(50));
  ASSERT_FALSE(nothing);
  EXPECT_EQ(nothing.error().code, ETIMEDOUT);
}

TEST_F(TlsPeerTest, MuchInBothDirections) {
  Pair pair = connect_pair(client(), server(good_));
  ASSERT_TRUE(pair.client && pair.server);
  const std::string much(3'000'000, 'm');
  auto writer = std::async(std::launch::async, [&] { return (*pair.server)->write_all(much); });
  std::size_t got = 0;
  while (got < much.size()) {
    const auto bytes = (*pair.client)->read_some();
    ASSERT_TRUE(bytes && !bytes->empty());
    got += bytes->size();
  }
  EXPECT_TRUE(writer.get());
}

TEST(FreeAddressTest, IsLoopbackAndDiffers) {
  const Address address = free_address();
  EXPECT_TRUE(address.ip().starts_with("127."));
  EXPECT_NE(address.port(), 0);
  EXPECT_TRUE(TcpListener::bind(address));
}

}  // namespace
}  // namespace ktrunk::test
