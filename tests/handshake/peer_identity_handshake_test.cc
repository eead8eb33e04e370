// RFC 5922 7 and RFC 5924 5, case by case, in real handshakes and in both directions: as the client that checks a
// server's domain (7.3), and as the server that finds out which trunk a client is (7.4).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include "handshake/identity.h"
#include "handshake/tls_session.h"
#include "handshake/tls_test_peer.h"
#include "handshake/tls_test_pki.h"

namespace ktrunk::handshake {
namespace {

using testing::HasSubstr;
using Step = TlsSession::Step;

test::Pki& pki() {
  static test::Pki made;
  return made;
}

enum class Verdict : std::uint8_t { kSame, kOther };

struct Case {
  const char* name;
  const char* alternative_names;  // subjectAltName
  const char* common_name;
  const char* wanted;  // the domain, or the address, that we look for
  Verdict verdict;
};
void PrintTo(const Case& value, std::ostream* out) { *out << value.name; }

constexpr Case kCases[] = {
    // 7.1, 1a: sip URIs
    {"sip_uri", "URI:sip:example.com", "x", "example.com", Verdict::kSame},
    {"sip_uri_scheme_in_any_case", "URI:SiP:example.com", "x", "example.com", Verdict::kSame},
    {"sip_uri_of_another_domain", "URI:sip:example.org", "x", "example.com", Verdict::kOther},
    {"second_of_several_uris", "URI:sip:example.org,URI:sip:example.com", "x", "example.com", Verdict::kSame},
    {"sips_uri_is_none", "URI:sips:example.com", "x", "example.com", Verdict::kOther},
    {"https_uri_is_none", "URI:https://example.com", "x", "example.com", Verdict::kOther},
    {"uri_with_user_is_none", "URI:sip:alice@example.com", "x", "example.com", Verdict::kOther},
    {"uri_with_port", "URI:sip:example.com:5061", "x", "example.com", Verdict::kSame},
    {"uri_with_parameter", "URI:sip:example.com;transport=tls", "x", "example.com", Verdict::kSame},
    // 7.1, 1b: DNS names count only without a sip URI
    {"dns_name", "DNS:example.com", "x", "example.com", Verdict::kSame},
    {"second_of_several_dns_names", "DNS:a.example.com,DNS:example.com", "x", "example.com", Verdict::kSame},
    {"dns_name_beside_sip_uri", "URI:sip:example.org,DNS:example.com", "x", "example.com", Verdict::kOther},
    {"dns_name_beside_uri_with_user", "URI:sip:alice@example.org,DNS:example.com", "x", "example.com", Verdict::kSame},
    {"dns_name_beside_sips_uri", "URI:sips:example.org,DNS:example.com", "x", "example.com", Verdict::kSame},
    {"dns_name_beside_https_uri", "URI:https://example.org,DNS:example.com", "x", "example.com", Verdict::kSame},
    // 7.1, 2: the common name counts only without any subjectAltName
    {"common_name", "", "example.com", "example.com", Verdict::kSame},
    {"common_name_beside_dns_name", "DNS:example.org", "example.com", "example.com", Verdict::kOther},
    {"common_name_beside_sip_uri", "URI:sip:example.org", "example.com", "example.com", Verdict::kOther},
    {"common_name_beside_mail", "email:a@example.org", "example.com", "example.com", Verdict::kOther},
    {"common_name_beside_address", "IP:192.0.2.1", "example.com", "example.com", Verdict::kOther},
    {"common_name_that_is_no_name", "", "Example Ltd", "example.com", Verdict::kOther},
    // 7.2: DNS rules, no suffixes, no wildcards
    {"case_of_dns_name", "DNS:EXAMPLE.com", "x", "Example.Com", Verdict::kSame},
    {"case_of_uri", "URI:sip:EXAMPLE.com", "x", "example.COM", Verdict::kSame},
    {"root_dot_asked_for", "DNS:example.com", "x", "example.com.", Verdict::kSame},
    {"a_subdomain_is_another", "DNS:example.com", "x", "sip.example.com", Verdict::kOther},
    {"a_parent_is_another", "DNS:sip.example.com", "x", "example.com", Verdict::kOther},
    {"a_suffix_is_another", "DNS:notexample.com", "x", "example.com", Verdict::kOther},
    {"wildcard_dns_name", "DNS:*.example.com", "x", "sip.example.com", Verdict::kOther},
    {"wildcard_uri", "URI:sip:*.example.com", "x", "sip.example.com", Verdict::kOther},
    {"wildcard_common_name", "", "*.example.com", "sip.example.com", Verdict::kOther},
    {"wildcard_of_part", "DNS:s*.example.com", "x", "sip.example.com", Verdict::kOther},
    // Addresses: as addresses alone
    {"address", "IP:192.0.2.1", "x", "192.0.2.1", Verdict::kSame},
    {"address_v6_in_another_form", "IP:2001:db8::1", "x", "2001:0DB8::0:1", Verdict::kSame},
    {"address_as_dns_name", "DNS:192.0.2.1", "x", "192.0.2.1", Verdict::kOther},
    {"address_as_common_name", "", "192.0.2.1", "192.0.2.1", Verdict::kOther},
    {"address_in_uri", "URI:sip:192.0.2.1", "x", "192.0.2.1", Verdict::kSame},
    {"another_address", "IP:192.0.2.2", "x", "192.0.2.1", Verdict::kOther},
};

class IdentityTest : public testing::TestWithParam<Case> {};

// 7.3: the name is the domain before any resolution: the target's host, whatever address or SRV host that leads to.
TEST_P(IdentityTest, OfAServer) {
  const Case& c = GetParam();
  const auto files = pki().issue({.common_name = c.common_name, .names = c.alternative_names});
  const auto context = TlsContext::for_trunk(pki().trunk());
  ASSERT_TRUE(context.has_value()) << context.error().what;
  const auto theirs = test::server_context(files.certificate, files.key);
  test::TcpPair sockets = test::tcp_pair();
  auto ours = TlsSession::connect(*context, std::move(sockets.first), c.wanted);
  ASSERT_TRUE(ours.has_value()) << ours.error().what;
  test::Peer peer(theirs.get(), std::move(sockets.second), Role::kAccept);
  EXPECT_EQ(test::shake(*ours, peer), c.verdict == Verdict::kSame ? Step::kDone : Step::kFailed);
  if (c.verdict == Verdict::kOther) {
    EXPECT_THAT(ours->failure().error.what, HasSubstr("'trunk.verify_name'"));
    ASSERT_TRUE(ours->failure().sent.has_value());
  }
}

TEST_P(IdentityTest, OfAClient) {
  const Case& c = GetParam();
  static const auto server = pki().issue({});
  auto listener = pki().listener(server);
  listener.verify_client = config::ClientVerification::kRequire;
  listener.tls.ca = pki().authority_file();
  const auto context = TlsContext::for_listener(listener);
  ASSERT_TRUE(context.has_value()) << context.error().what;
  const auto files = pki().issue({.common_name = c.common_name, .names = c.alternative_names});
  const auto theirs = test::client_context(pki().authority_file());
  ASSERT_EQ(SSL_CTX_use_certificate_chain_file(theirs.get(), files.certificate.c_str()), 1);
  ASSERT_EQ(SSL_CTX_use_PrivateKey_file(theirs.get(), files.key.c_str(), SSL_FILETYPE_PEM), 1);
  test::TcpPair sockets = test::tcp_pair();
  auto ours = TlsSession::accept(*context, std::move(sockets.second));
  ASSERT_TRUE(ours.has_value());
  test::Peer peer(theirs.get(), std::move(sockets.first), Role::kConnect);
  ASSERT_EQ(test::shake(*ours, peer), Step::kDone) << ours->failure().error.what;
  ASSERT_TRUE(ours->negotiated().peer.has_value());

  config::Config config;
  config.trunks.resize(2);
  config.trunks[0].verify_name = "somebody.else.example";
  config.trunks[1].verify_name = c.wanted;
  const TrunkId trunk = identify(config, config::PeerAddresses(config),
                                 {.identity = &*ours->negotiated().peer, .address = {}, .listener = {}})
                            .trunk;
  EXPECT_EQ(trunk.valid(), c.verdict == Verdict::kSame);
  if (trunk.valid()) {
    EXPECT_EQ(trunk, TrunkId{1});
  }
}

INSTANTIATE_TEST_SUITE_P(Rfc5922, IdentityTest, testing::ValuesIn(kCases), [](const auto& i) { return i.param.name; });

// What extendedKeyUsage lets a certificate be: as a server, as a client, as a client under client_purpose = "any".
struct UsageCase {
  const char* name;
  const char* usage;
  const char* key_usage;
  bool server;
  bool client;
  bool any;
};
void PrintTo(const UsageCase& value, std::ostream* out) { *out << value.name; }

constexpr const char* kSip = "1.3.6.1.5.5.7.3.20";
constexpr UsageCase kUsageCases[] = {
    {"none", "", "", true, true, true},
    {"server", "serverAuth", "", true, false, true},
    {"client", "clientAuth", "", false, true, true},
    {"both", "serverAuth,clientAuth", "", true, true, true},
    {"sip", kSip, "", true, true, true},
    {"any_usage", "anyExtendedKeyUsage", "", true, true, true},
    {"sip_and_server", "serverAuth,1.3.6.1.5.5.7.3.20", "", true, true, true},
    {"code", "codeSigning", "", false, false, false},
    {"mail_and_time", "emailProtection,timeStamping", "", false, false, false},
    {"an_oid_like_sips", "1.3.6.1.5.5.7.3.21", "", false, false, false},
    {"sip_but_key_may_not_sign", kSip, "keyCertSign", false, false, false},
    {"none_but_key_may_not_sign", "", "cRLSign", false, false, false},
    {"sip_and_key_signs", kSip, "digitalSignature", true, true, true},
};

class UsageTest : public testing::TestWithParam<UsageCase> {};

TEST_P(UsageTest, OfAServer) {
  const UsageCase& c = GetParam();
  const auto files = pki().issue({.usage = c.usage, .key_usage = c.key_usage});
  const auto context = TlsContext::for_trunk(pki().trunk());
  const auto theirs = test::server_context(files.certificate, files.key);
  test::TcpPair sockets = test::tcp_pair();
  auto ours = TlsSession::connect(*context, std::move(sockets.first), "sip.example.com");
  test::Peer peer(theirs.get(), std::move(sockets.second), Role::kAccept);
  EXPECT_EQ(test::shake(*ours, peer), c.server ? Step::kDone : Step::kFailed) << ours->failure().error.what;
  if (!c.server) {
    EXPECT_THAT(ours->failure().error.what, HasSubstr("not for a TLS server"));
    EXPECT_EQ(ours->failure().sent->description, ktls::AlertDescription::kUnsupportedCertificate);
  }
}

TEST_P(UsageTest, OfAClient) {
  const UsageCase& c = GetParam();
  static const auto server = pki().issue({});
  const auto files = pki().issue({.usage = c.usage, .key_usage = c.key_usage});
  for (const auto purpose : {config::ClientPurpose::kClient, config::ClientPurpose::kAny}) {
    auto listener = pki().listener(server);
    listener.verify_client = config::ClientVerification::kRequire;
    listener.client_purpose = purpose;
    listener.tls.ca = pki().authority_file();
    const auto context = TlsContext::for_listener(listener);
    const auto theirs = test::client_context(pki().authority_file());
    ASSERT_EQ(SSL_CTX_use_certificate_chain_file(theirs.get(), files.certificate.c_str()), 1);
    ASSERT_EQ(SSL_CTX_use_PrivateKey_file(theirs.get(), files.key.c_str(), SSL_FILETYPE_PEM), 1);
    test::TcpPair sockets = test::tcp_pair();
    auto ours = TlsSession::accept(*context, std::move(sockets.second));
    test::Peer peer(theirs.get(), std::move(sockets.first), Role::kConnect);
    const bool fits = purpose == config::ClientPurpose::kAny ? c.any : c.client;
    EXPECT_EQ(test::shake(*ours, peer), fits ? Step::kDone : Step::kFailed) << ours->failure().error.what;
    EXPECT_EQ(ours->negotiated().peer.has_value(), fits);
    if (!fits) {
      EXPECT_THAT(ours->failure().error.what, HasSubstr("'listen.client_purpose'"));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Rfc5924, UsageTest, testing::ValuesIn(kUsageCases),
                         [](const auto& i) { return i.param.name; });

// The name stays the one that was asked for when an address is behind it: TlsSession never sees the address.
TEST(IdentityTest, AVerifyNameReplacesTheTargetsHost) {
  const auto files = pki().issue({.names = "DNS:carrier.example"});
  auto trunk = pki().trunk();
  trunk.verify_name = "carrier.example";
  const auto context = TlsContext::for_trunk(trunk);
  const auto theirs = test::server_context(files.certificate, files.key);
  test::TcpPair sockets = test::tcp_pair();
  auto ours = TlsSession::connect(*context, std::move(sockets.first), "192.0.2.7");
  test::Peer peer(theirs.get(), std::move(sockets.second), Role::kAccept);
  EXPECT_EQ(test::shake(*ours, peer), Step::kDone) << ours->failure().error.what;
  EXPECT_STREQ(SSL_get_servername(peer.get(), TLSEXT_NAMETYPE_host_name), "carrier.example");
}

}  // namespace
}  // namespace ktrunk::handshake
