// What a listener offers: certificates by name and kind of key, stapled responses, ALPN, groups, suites.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "handshake/tls_context_bench.h"

namespace ktrunk::handshake {
namespace {

using test::ClientWish;
using test::Meeting;
using test::Pki;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Pki& pki() {
  static Pki made;
  return made;
}

config::Certificate entry(const Pki::Files& files, std::vector<std::string> names = {}, std::string ocsp = "") {
  return {files.certificate, files.key, std::move(ocsp), std::move(names)};
}

Meeting meet(const config::Listener& listener, const ClientWish& wish = {}) {
  const auto context = TlsContext::for_listener(listener);
  EXPECT_TRUE(context.has_value()) << context.error().what;
  return context ? test::meet(*context, pki().authority_file(), wish) : Meeting{};
}

std::string error_of(const config::Listener& listener) {
  const auto context = TlsContext::for_listener(listener);
  return context ? "" : context.error().what;
}

class ServerNames : public testing::TestWithParam<int> {};

TEST_P(ServerNames, ChooseTheCertificate) {
  auto listener = pki().listener(pki().issue({.common_name = "default", .names = "DNS:default.example"}));
  listener.certificates = {
      entry(pki().issue({.common_name = "b", .names = "DNS:b.example,DNS:*.b.example"})),
      entry(pki().issue({.common_name = "c", .names = "DNS:ignored.example"}), {"c.b.example", "*.c.example"}),
      entry(pki().issue({.common_name = "uri", .names = "URI:sip:domain.example,DNS:host.domain.example"})),
  };
  const std::pair<const char*, const char*> expected[] = {{"", "default"},
                                                          {"default.example", "default"},
                                                          {"b.example", "b"},
                                                          {"B.Example", "b"},
                                                          {"x.b.example", "b"},
                                                          {"c.b.example", "c"},
                                                          {"y.x.b.example", "default"},
                                                          {"x.c.example", "c"},
                                                          {"c.example", "default"},
                                                          {"ignored.example", "default"},
                                                          {"other.example", "default"},
                                                          {"domain.example", "uri"},
                                                          {"host.domain.example", "uri"}};
  for (const auto& [name, leaf] : expected) {
    const Meeting meeting = meet(listener, {.server_name = name, .version = GetParam()});
    EXPECT_EQ(meeting.leaf, leaf) << name << ": " << meeting.error;
    EXPECT_EQ(meeting.relay_note, "") << name;  // its secrets were seen: the keys could move to the kernel
  }
}

INSTANTIATE_TEST_SUITE_P(Versions, ServerNames, testing::Values(TLS1_2_VERSION, TLS1_3_VERSION),
                         [](const auto& i) { return i.param == TLS1_2_VERSION ? "Tls12" : "Tls13"; });

TEST(ServerNames, KindsOfKeyStandTogether) {
  const std::string names = "DNS:a.example,DNS:b.example";
  auto listener = pki().listener(pki().issue({.common_name = "rsa", .names = names, .rsa = true}));
  listener.certificates = {entry(pki().issue({.common_name = "ec", .names = names})),
                           entry(pki().issue({.common_name = "other-ec", .names = "DNS:c.example"})),
                           entry(pki().issue({.common_name = "wild-rsa", .names = "DNS:*.example", .rsa = true}))};
  const ClientWish rsa_only{.server_name = "b.example", .signatures = "RSA-PSS+SHA256:RSA+SHA256"};
  const ClientWish ec_only{.server_name = "b.example", .signatures = "ECDSA+SHA256"};
  EXPECT_EQ(meet(listener, ec_only).leaf, "ec");
  EXPECT_EQ(meet(listener, rsa_only).leaf, "wild-rsa");  // a listed certificate before the default
  // No name: the default, and beside it the one of another kind with all its names.
  EXPECT_EQ(meet(listener, {.signatures = ec_only.signatures}).leaf, "ec");
  EXPECT_EQ(meet(listener, {.signatures = rsa_only.signatures}).leaf, "rsa");
  EXPECT_EQ(meet(listener, {.server_name = "c.example", .signatures = rsa_only.signatures}).leaf, "wild-rsa");
  EXPECT_EQ(meet(listener, {.server_name = "c.example", .signatures = ec_only.signatures}).leaf, "other-ec");
  // A kind that no certificate for the name has is no reason to show another's.
  const Meeting none = meet(listener, {.server_name = "x.example", .signatures = ec_only.signatures});
  EXPECT_FALSE(none.done);
  EXPECT_EQ(none.alert, ktls::AlertDescription::kHandshakeFailure);
}

TEST(ServerNames, TheSameNameTwiceIsAnError) {
  auto listener = pki().listener(pki().issue({}));
  const auto first = pki().issue({.names = "DNS:a.example"});
  const auto second = pki().issue({.names = "DNS:b.example"});
  listener.certificates = {entry(first), entry(second, {"b.example", "a.example"})};
  EXPECT_THAT(error_of(listener), AllOf(HasSubstr("listener 'edge': key 'listen.certificates.names': 'a.example'"),
                                        HasSubstr(first.certificate), HasSubstr(second.certificate)));
  listener.certificates[1] = entry(pki().issue({.rsa = true}), {"a.example"});
  EXPECT_EQ(error_of(listener), "");
  // A listed certificate goes before the default one.
  listener.certificates = {entry(pki().issue({.common_name = "listed", .names = "DNS:sip.example.com"}))};
  EXPECT_EQ(meet(listener, {.server_name = "sip.example.com"}).leaf, "listed");
}

TEST(ServerNames, FilesOfAnEntryAreChecked) {
  auto listener = pki().listener(pki().issue({}));
  const auto files = pki().issue({.names = "DNS:a.example"});
  const auto other = pki().issue({});
  listener.certificates = {{files.certificate, other.key, "", {}}};
  EXPECT_THAT(error_of(listener), AllOf(HasSubstr("'listen.certificates.key'"), HasSubstr(other.key),
                                        HasSubstr("does not belong"), HasSubstr(files.certificate)));
  listener.certificates = {{"/no/such.pem", files.key, "", {}}};
  EXPECT_THAT(error_of(listener), AllOf(HasSubstr("'listen.certificates.certificate'"), HasSubstr("/no/such.pem")));
  listener.certificates = {entry(pki().issue({.names = "IP:192.0.2.1"}))};
  EXPECT_THAT(error_of(listener), HasSubstr("expected 'names'"));
}

TEST(Stapling, ShowsTheResponseOfTheCertificateThatWasChosen) {
  const auto fallback = pki().issue({.common_name = "default"});
  const auto other = pki().issue({.common_name = "b", .names = "DNS:b.example"});
  const std::string first = pki().ocsp(fallback);
  const std::string second = pki().ocsp(other);
  auto listener = pki().listener(fallback);
  listener.tls.ocsp = pki().write_file("first.ocsp", first);
  listener.certificates = {entry(other, {}, pki().write_file("second.ocsp", second)),
                           entry(pki().issue({.names = "DNS:c.example"}))};
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    EXPECT_EQ(meet(listener, {.version = version, .ask_status = true}).status, first);
    EXPECT_EQ(meet(listener, {.server_name = "b.example", .version = version, .ask_status = true}).status, second);
    EXPECT_EQ(meet(listener, {.server_name = "c.example", .version = version, .ask_status = true}).status, "");
    EXPECT_EQ(meet(listener, {.version = version}).status, "");
  }
}

// What a client gets behind the leaf: the file's issuers, or those that are among the listener's authorities.
TEST(Chains, AreCompletedFromTheAuthoritiesButForTheRoot) {
  Pki root("Root");
  Pki middle("Middle", root);
  const auto files = middle.issue({.common_name = "leaf"});
  auto listener = middle.listener(files);
  listener.verify_client = config::ClientVerification::kOptional;
  listener.tls.ca = root.write_file("both.pem", middle.authority_text() + root.authority_text());
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    const auto issuers = [&] {
      const auto context = TlsContext::for_listener(listener);
      EXPECT_TRUE(context.has_value()) << context.error().what;
      const Meeting meeting = test::meet(*context, root.authority_file(), {.version = version});
      EXPECT_EQ(meeting.leaf, "leaf") << meeting.error;
      return meeting.issuers;
    };
    EXPECT_THAT(issuers(), ElementsAre("Middle"));
    listener.tls.certificate = middle.chain_file(files);
    EXPECT_THAT(issuers(), ElementsAre("Middle"));
    listener.verify_client = config::ClientVerification::kOff;  // no authorities
    EXPECT_THAT(issuers(), ElementsAre("Middle"));
    listener.verify_client = config::ClientVerification::kOptional;
    listener.tls.certificate = files.certificate;
  }
}

TEST(Chains, MayBeALeafAlone) {
  const auto listener = pki().listener(pki().issue({.common_name = "leaf"}));
  const Meeting meeting = meet(listener, {});
  EXPECT_EQ(meeting.leaf, "leaf");
  EXPECT_THAT(meeting.issuers, IsEmpty());
}

TEST(Stapling, RefusesAndWarns) {
  const auto files = pki().issue({});
  auto listener = pki().listener(files);
  const auto error = [&](const std::string& der) {
    listener.tls.ocsp = pki().write_file("bad.ocsp", der);
    return error_of(listener);
  };
  const auto warning = [&](const std::string& der) {
    listener.tls.ocsp = pki().write_file("odd.ocsp", der);
    const auto context = TlsContext::for_listener(listener);
    EXPECT_TRUE(context.has_value()) << context.error().what;
    EXPECT_EQ(test::meet(*context, pki().authority_file(), {.ask_status = true}).status, "");
    return context && context->warnings().size() == 1 ? context->warnings().front() : "";
  };
  using Ocsp = Pki::Ocsp;
  const std::string good = pki().ocsp(files);
  EXPECT_EQ(error(good), "");
  EXPECT_THAT(error(""), AllOf(HasSubstr("'listen.ocsp'"), HasSubstr("not an OCSP response")));
  EXPECT_THAT(error(good + "x"), HasSubstr("not an OCSP response"));
  for (std::size_t size = 0; size < good.size(); size += 13) EXPECT_NE(error(good.substr(0, size)), "") << size;
  EXPECT_THAT(error(pki().ocsp(files, Ocsp::kTryLater)), HasSubstr("trylater"));
  EXPECT_THAT(error(pki().ocsp(pki().issue({}))), HasSubstr("not about the certificate"));
  Pki stranger;  // the same name, another key
  EXPECT_THAT(warning(pki().ocsp(files, Ocsp::kGood, -7200, -3600)), HasSubstr("has expired"));
  EXPECT_THAT(warning(pki().ocsp(files, Ocsp::kGood, 3600, 7200)), HasSubstr("not valid yet"));
  EXPECT_THAT(warning(pki().ocsp(files, Ocsp::kRevoked)), HasSubstr("revoked"));
  // With the issuer at hand, its key counts, and the signature.
  listener.tls.certificate = pki().chain_file(files);
  EXPECT_THAT(error(stranger.ocsp(files)), HasSubstr("not about the certificate"));
  EXPECT_EQ(error(good), "");
  std::string forged = good;
  forged.back() = static_cast<char>(forged.back() ^ 1);
  EXPECT_NE(error(forged), "");
}

TEST(Stapling, StopsWhenTheResponseExpires) {
  const auto files = pki().issue({});
  auto listener = pki().listener(files);
  listener.tls.ocsp = pki().write_file("short.ocsp", pki().ocsp(files, Pki::Ocsp::kGood, -60, 2));
  const auto context = TlsContext::for_listener(listener);
  ASSERT_TRUE(context.has_value()) << context.error().what;
  bool stopped = false;
  for (int i = 0; i < 100 && !stopped; ++i) {
    stopped = test::meet(*context, pki().authority_file(), {.ask_status = true}).status.empty();
    if (!stopped) ::usleep(100'000);
  }
  EXPECT_TRUE(stopped);
}

constexpr const char* kSip = "\x05sip/2";
constexpr const char* kHttp = "\x02h2";

TEST(Alpn, AcceptChoosesSipAndRefusesOthers) {
  auto listener = pki().listener(pki().issue({.common_name = "default"}));
  listener.certificates = {entry(pki().issue({.common_name = "b", .names = "DNS:b.example"}))};
  listener.tls.alpn = config::Alpn::kAccept;
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    for (const char* name : {"", "b.example"}) {
      EXPECT_EQ(meet(listener, {.server_name = name, .alpn = kSip, .version = version}).alpn, "sip/2");
      EXPECT_EQ(meet(listener, {.server_name = name, .alpn = std::string(kHttp) + kSip, .version = version}).alpn,
                "sip/2");
      const Meeting none = meet(listener, {.server_name = name, .version = version});
      EXPECT_TRUE(none.done) << none.error;
      EXPECT_EQ(none.alpn, "");
      const Meeting other = meet(listener, {.server_name = name, .alpn = kHttp, .version = version});
      EXPECT_FALSE(other.done);
      EXPECT_EQ(other.alert, ktls::AlertDescription::kNoApplicationProtocol);
      EXPECT_THAT(other.error, HasSubstr("'listen.alpn'"));
    }
  }
}

TEST(Alpn, RequireAndOff) {
  auto listener = pki().listener(pki().issue({}));
  listener.tls.alpn = config::Alpn::kRequire;
  EXPECT_EQ(meet(listener, {.alpn = kSip}).alpn, "sip/2");
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    const Meeting none = meet(listener, {.version = version});
    EXPECT_FALSE(none.done);
    EXPECT_EQ(none.alert, ktls::AlertDescription::kNoApplicationProtocol);
    EXPECT_THAT(none.error, HasSubstr("'listen.alpn'"));
  }
  listener.tls.alpn = config::Alpn::kOff;
  EXPECT_TRUE(meet(listener, {.alpn = kHttp}).done);
  EXPECT_EQ(meet(listener, {.alpn = kSip}).alpn, "");
}

TEST(Alpn, ATrunkOffersAndInsists) {
  const auto files = pki().issue({});
  for (const auto alpn : {config::Alpn::kOff, config::Alpn::kAccept, config::Alpn::kRequire}) {
    for (const bool server_does : {false, true}) {
      auto trunk = pki().trunk();
      trunk.tls.alpn = alpn;
      const auto context = TlsContext::for_trunk(trunk);
      const auto theirs = test::server_context(files.certificate, files.key);
      bool offered = false;
      const auto choose = [](SSL*, const unsigned char** out, unsigned char* size, const unsigned char* in, unsigned,
                             void* seen) {
        *static_cast<bool*>(seen) = true;
        *out = in + 1;
        *size = in[0];
        return SSL_TLSEXT_ERR_OK;
      };
      if (server_does) SSL_CTX_set_alpn_select_cb(theirs.get(), choose, &offered);
      test::TcpPair sockets = test::tcp_pair();
      auto ours = TlsSession::connect(*context, std::move(sockets.first), "sip.example.com");
      test::Peer peer(theirs.get(), std::move(sockets.second), Role::kAccept);
      const bool fails = alpn == config::Alpn::kRequire && !server_does;
      EXPECT_EQ(test::shake(*ours, peer), fails ? TlsSession::Step::kFailed : TlsSession::Step::kDone);
      EXPECT_EQ(offered, server_does && alpn != config::Alpn::kOff);
      if (fails) {
        EXPECT_THAT(ours->failure().error.what, HasSubstr("'trunk.alpn'"));
      }
    }
  }
}

TEST(Groups, AreThoseOfTheConfiguration) {
  auto listener = pki().listener(pki().issue({}));
  listener.tls.groups = "P-384";
  EXPECT_TRUE(meet(listener, {.groups = "X25519:P-384"}).done);  // by HelloRetryRequest
  const Meeting none = meet(listener, {.groups = "X25519", .version = TLS1_3_VERSION});
  EXPECT_FALSE(none.done);
  EXPECT_THAT(none.error, HasSubstr("'listen.groups'"));
  listener.tls.groups = "P-384:no-such-group";
  EXPECT_THAT(error_of(listener), AllOf(HasSubstr("'listen.groups'"), HasSubstr("no-such-group")));
}

TEST(Groups, AHelloRetryKeepsTheChosenCertificate) {
  auto listener = pki().listener(pki().issue({.common_name = "default"}));
  listener.certificates = {entry(pki().issue({.common_name = "b", .names = "DNS:b.example"}))};
  listener.tls.groups = "P-384";
  EXPECT_EQ(meet(listener, {.server_name = "b.example", .groups = "X25519:P-384"}).leaf, "b");
}

// Suites that the kernel cannot do may be configured: their sessions are relayed.
TEST(Suites, CbcIsForTheRelay) {
  auto listener = pki().listener(pki().issue({.rsa = true}));
  for (const std::string cipher : {"ECDHE-RSA-AES128-SHA256", "ECDHE-RSA-AES256-SHA384", "AES128-SHA256"}) {
    listener.tls.ciphers = cipher;
    const Meeting meeting = meet(listener, {.ciphers = cipher, .version = TLS1_2_VERSION});
    EXPECT_TRUE(meeting.done) << meeting.error;
    EXPECT_THAT(meeting.relay_note, HasSubstr(cipher));
  }
  listener.tls.ciphersuites = "TLS_AES_128_CCM_SHA256";
  const auto context = TlsContext::for_listener(listener);
  ASSERT_TRUE(context.has_value());
  EXPECT_EQ(SSL_CTX_get_security_level(context->get()),
            SSL_CTX_get_security_level(test::client_context(pki().authority_file()).get()));
}

}  // namespace
}  // namespace ktrunk::handshake
