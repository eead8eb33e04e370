// Errors name the owner, the configuration's key and the file, and say what to do.
#include "handshake/tls_context.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <sys/stat.h>

#include <cstdio>
#include <fstream>
#include <sstream>

#include "handshake/tls_test_pki.h"

namespace ktrunk::handshake {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

test::Pki& pki() {
  static test::Pki made;
  return made;
}
const test::Pki::Files& files() {
  static const auto made = pki().issue({});
  return made;
}
std::string error_of(const config::Listener& listener) {
  const auto context = TlsContext::for_listener(listener);
  return context ? "" : context.error().what;
}
std::string error_of(const config::Trunk& trunk) {
  const auto context = TlsContext::for_trunk(trunk);
  return context ? "" : context.error().what;
}
std::string text_of(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(TlsContext, ListenerAndTrunkAsTheyShouldBe) {
  const auto listener = TlsContext::for_listener(pki().listener(files()));
  ASSERT_TRUE(listener.has_value()) << listener.error().what;
  EXPECT_THAT(listener->warnings(), IsEmpty());
  EXPECT_EQ(listener->owner(), "listener 'edge'");
  const SSL_CTX* context = listener->get();
  EXPECT_NE(SSL_CTX_get_options(context) & SSL_OP_NO_RENEGOTIATION, 0u);
  EXPECT_NE(SSL_CTX_get_options(context) & SSL_OP_NO_COMPRESSION, 0u);
  EXPECT_EQ(SSL_CTX_get_options(context) & SSL_OP_ENABLE_KTLS, 0u);
  EXPECT_EQ(SSL_CTX_get_max_early_data(context), 0u);
  EXPECT_EQ(SSL_CTX_get_num_tickets(context), 2u);
  EXPECT_EQ(SSL_CTX_get_verify_mode(context), SSL_VERIFY_NONE);

  auto wanted = pki().trunk();
  wanted.verify_name = "carrier.example";
  const auto trunk = TlsContext::for_trunk(wanted);
  ASSERT_TRUE(trunk.has_value()) << trunk.error().what;
  EXPECT_EQ(trunk->verify_name(), "carrier.example");
  EXPECT_EQ(SSL_CTX_get_verify_mode(trunk->get()), SSL_VERIFY_PEER);
}

TEST(TlsContext, TrunkWithoutCaTakesTheSystems) {
  auto trunk = pki().trunk();
  trunk.tls.ca.clear();
  EXPECT_EQ(error_of(trunk), "");
}

TEST(TlsContext, MissingFiles) {
  auto listener = pki().listener(files());
  listener.tls.certificate = "/no/such.pem";
  EXPECT_THAT(error_of(listener), AllOf(HasSubstr("listener 'edge'"), HasSubstr("'listen.certificate'"),
                                        HasSubstr("/no/such.pem"), HasSubstr("ENOENT")));
  listener = pki().listener(files());
  listener.tls.key = "/no/such.key";
  EXPECT_THAT(error_of(listener), AllOf(HasSubstr("'listen.key'"), HasSubstr("/no/such.key")));
  listener = pki().listener(files());
  listener.tls.key.clear();
  EXPECT_THAT(error_of(listener), AllOf(HasSubstr("'listen.key'"), HasSubstr("missing")));
  auto trunk = pki().trunk();
  trunk.tls.ca = "/no/such-ca.pem";
  EXPECT_THAT(error_of(trunk), AllOf(HasSubstr("trunk 'carrier'"), HasSubstr("'trunk.ca'"), HasSubstr("such-ca.pem")));
  trunk = pki().trunk();
  trunk.tls.certificate = files().certificate;
  EXPECT_THAT(error_of(trunk), HasSubstr("both or neither"));
}

TEST(TlsContext, AFolderIsNoCertificate) {
  auto listener = pki().listener(files());
  listener.tls.certificate = pki().folder();
  EXPECT_THAT(error_of(listener), HasSubstr("'listen.certificate'"));
}

TEST(TlsContext, FilesWithSomethingElseInThem) {
  auto listener = pki().listener(files());
  listener.tls.certificate = pki().write_file("empty.pem", "");
  EXPECT_THAT(error_of(listener), HasSubstr("no PEM certificate in it"));
  listener.tls.certificate = files().key;
  EXPECT_THAT(error_of(listener), HasSubstr("no PEM certificate in it"));
  listener = pki().listener(files());
  listener.tls.key = files().certificate;
  EXPECT_THAT(error_of(listener), HasSubstr("no PEM private key in it"));
  listener.tls.key = pki().write_file("broken.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
  EXPECT_THAT(error_of(listener), HasSubstr("not a valid private key"));
  auto trunk = pki().trunk();
  trunk.tls.ca = pki().write_file("empty-ca.pem", "# nothing\n");
  EXPECT_THAT(error_of(trunk), AllOf(HasSubstr("'trunk.ca'"), HasSubstr("no CA certificate")));
}

// Every cut of a good certificate and key is an error, never a crash, until only the last line's end is missing.
TEST(TlsContext, CutFiles) {
  const std::string certificate = text_of(files().certificate);
  const std::string key = text_of(files().key);
  for (std::size_t size = 0; size + 6 < certificate.size(); size += 17) {
    auto listener = pki().listener(files());
    listener.tls.certificate = pki().write_file("cut.pem", certificate.substr(0, size));
    EXPECT_NE(error_of(listener), "") << size;
  }
  for (std::size_t size = 0; size + 6 < key.size(); size += 7) {
    auto listener = pki().listener(files());
    listener.tls.key = pki().write_file("cut.key", key.substr(0, size));
    EXPECT_NE(error_of(listener), "") << size;
  }
}

TEST(TlsContext, KeyOfAnotherCertificate) {
  auto listener = pki().listener(files());
  listener.tls.key = pki().issue({}).key;
  EXPECT_THAT(error_of(listener),
              AllOf(HasSubstr("'listen.key'"), HasSubstr("does not belong"), HasSubstr(files().certificate)));
  listener.tls.key = pki().issue({.rsa = true}).key;  // of another kind altogether
  EXPECT_THAT(error_of(listener), HasSubstr("does not belong"));
}

TEST(TlsContext, EncryptedKeyAsksNobody) {
  auto listener = pki().listener(files());
  const std::string path = pki().folder() + "/secret.key";
  std::FILE* in = std::fopen(files().key.c_str(), "r");
  EVP_PKEY* key = PEM_read_PrivateKey(in, nullptr, nullptr, nullptr);
  std::fclose(in);
  std::FILE* out = std::fopen(path.c_str(), "w");
  unsigned char password[] = "secret";
  ASSERT_EQ(PEM_write_PrivateKey(out, key, EVP_aes_128_cbc(), password, 6, nullptr, nullptr), 1);
  std::fclose(out);
  EVP_PKEY_free(key);
  listener.tls.key = path;
  EXPECT_THAT(error_of(listener), HasSubstr("encrypted"));
}

TEST(TlsContext, CipherNamesThatOpenSslDoesNotKnow) {
  auto listener = pki().listener(files());
  listener.tls.ciphers = "NO-SUCH-CIPHER";
  EXPECT_THAT(error_of(listener), AllOf(HasSubstr("'listen.ciphers'"), HasSubstr("NO-SUCH-CIPHER")));
  listener = pki().listener(files());
  listener.tls.ciphersuites = "TLS_NO_SUCH";
  EXPECT_THAT(error_of(listener), HasSubstr("'listen.ciphersuites'"));
  listener = pki().listener(files());
  listener.tls.allow_tls12 = listener.tls.allow_tls13 = false;
  EXPECT_THAT(error_of(listener), HasSubstr("no TLS version"));
}

TEST(TlsContext, VerificationNeedsACa) {
  auto listener = pki().listener(files());
  listener.verify_client = config::ClientVerification::kRequire;
  EXPECT_THAT(error_of(listener), HasSubstr("'listen.ca'"));
  listener.tls.ca = pki().authority_file();
  const auto context = TlsContext::for_listener(listener);
  ASSERT_TRUE(context.has_value());
  EXPECT_EQ(SSL_CTX_get_verify_mode(context->get()), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT);
  listener.verify_client = config::ClientVerification::kOptional;
  EXPECT_EQ(SSL_CTX_get_verify_mode(TlsContext::for_listener(listener).value().get()), SSL_VERIFY_PEER);
}

TEST(TlsContext, WarnsOfDatesAndOfReadableKeys) {
  const auto warnings = [](const test::Pki::Files& with) {
    const auto context = TlsContext::for_listener(pki().listener(with));
    EXPECT_TRUE(context.has_value());
    return context && context->warnings().size() == 1 ? context->warnings().front() : std::string();
  };
  EXPECT_THAT(warnings(pki().issue({.valid_from_s = -7200, .valid_to_s = -3600})), HasSubstr("has expired"));
  EXPECT_THAT(warnings(pki().issue({.valid_from_s = 3600})), HasSubstr("not valid yet"));
  EXPECT_THAT(warnings(pki().issue({.valid_to_s = 3L * 86400 + 600})), HasSubstr("expires in 3 days"));
  const auto open = pki().issue({});
  ::chmod(open.key.c_str(), 0644);
  EXPECT_THAT(warnings(open), AllOf(HasSubstr("'listen.key'"), HasSubstr("chmod 600")));
}

}  // namespace
}  // namespace ktrunk::handshake
