// RFC 5922 7 and RFC 5924 5 by the daemon whole, both ways: which trunk a peer is that connects to us, and whom a trunk
// of ours takes for its peer. One table of certificates, each shown to ktrunkd by a client (7.4) and by a server (7.3).
#include <sys/socket.h>

#include <sstream>

#include "handshake/tls_test_pki.h"
#include "system/daemon_fixture.h"

namespace ktrunk::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::SizeIs;

// What becomes of the connection.
enum class Verdict : std::uint8_t {
  kPeer,      // it is the trunk's
  kStranger,  // the certificate is good, but not the trunk's: accepted as nobody's; a trunk of ours refuses it
  kRefused,
};
enum class Flaw : std::uint8_t { kNone, kExpired, kNotYetValid, kOtherAuthority };

struct Case {
  const char* name;
  const char* alternative_names;  // subjectAltName
  const char* common_name;
  const char* wanted;  // the trunk's verify_name
  Verdict verdict;     // of both, unless the certificate's purpose says otherwise
  const char* usage = "";
  Verdict as_client = verdict;  // where client_purpose = "client"
  Verdict as_server = verdict;
  Flaw flaw = Flaw::kNone;
};

constexpr auto kPeer = Verdict::kPeer;
constexpr auto kStranger = Verdict::kStranger;
constexpr auto kRefused = Verdict::kRefused;
constexpr const char* kDomain = "example.com";
constexpr const char* kSip = "1.3.6.1.5.5.7.3.20";  // id-kp-sipDomain

const Case kCases[] = {
    // 7.1, 1a: sip URIs
    {"sip-uri", "URI:sip:example.com", "x", kDomain, kPeer},
    {"sip-uri-in-any-case", "URI:SIP:Example.COM", "x", kDomain, kPeer},
    {"sip-uri-with-root-dot", "URI:sip:example.com.", "x", kDomain, kPeer},
    {"sip-uri-with-port", "URI:sip:example.com:5061", "x", kDomain, kPeer},
    {"sip-uri-of-another", "URI:sip:example.org", "x", kDomain, kStranger},
    {"sip-uri-of-a-host-below", "URI:sip:below.example.com", "x", kDomain, kStranger},
    {"second-of-several-sip-uris", "URI:sip:example.org,URI:sip:example.com", "x", kDomain, kPeer},
    {"sip-uri-with-user", "URI:sip:alice@example.com", "x", kDomain, kStranger},
    {"sips-uri", "URI:sips:example.com", "x", kDomain, kStranger},
    {"https-uri", "URI:https://example.com", "x", kDomain, kStranger},
    // 7.1, 1b: DNS names, where there is no sip URI
    {"dns-name", "DNS:example.com", "x", kDomain, kPeer},
    {"dns-name-in-any-case", "DNS:EXAMPLE.com", "x", kDomain, kPeer},
    {"dns-name-with-root-dot", "DNS:example.com.", "x", kDomain, kPeer},
    {"wanted-with-root-dot", "DNS:dotted.example", "x", "dotted.example.", kPeer},
    {"second-of-several-dns-names", "DNS:example.org,DNS:example.com", "x", kDomain, kPeer},
    {"sip-uri-beside-dns-name", "DNS:example.org,URI:sip:example.com", "x", kDomain, kPeer},
    {"dns-name-beside-another-sip-uri", "URI:sip:example.org,DNS:example.com", "x", kDomain, kStranger},
    {"dns-name-beside-uri-with-user", "URI:sip:alice@example.org,DNS:example.com", "x", kDomain, kPeer},
    {"dns-name-beside-sips-uri", "URI:sips:example.org,DNS:example.com", "x", kDomain, kPeer},
    // 7.2: no wildcards
    {"wildcard", "DNS:*.example.com", "x", "pbx.example.com", kStranger},
    {"wildcard-common-name", "", "*.example.com", "pbx.example.com", kStranger},
    // 7.1, 2: the common name, where there is no subjectAltName
    {"common-name", "", "example.com", kDomain, kPeer},
    {"common-name-beside-dns-name", "DNS:example.org", "example.com", kDomain, kStranger},
    {"common-name-beside-sip-uri", "URI:sip:example.org", "example.com", kDomain, kStranger},
    {"common-name-beside-mail", "email:a@example.org", "example.com", kDomain, kStranger},
    // 7.1, 3: no identity
    {"no-identity", "", "Example Ltd", kDomain, kStranger},
    {"no-name-at-all", "", "", kDomain, kStranger},
    // 7.3, 7.4: nothing counts in a certificate that is not valid
    {"expired", "URI:sip:example.com", "x", kDomain, kRefused, "", kRefused, kRefused, Flaw::kExpired},
    {"not-yet-valid", "URI:sip:example.com", "x", kDomain, kRefused, "", kRefused, kRefused, Flaw::kNotYetValid},
    {"of-another-authority", "URI:sip:example.com", "x", kDomain, kRefused, "", kRefused, kRefused,
     Flaw::kOtherAuthority},
    // RFC 5924 5: extendedKeyUsage
    {"for-sip", "URI:sip:example.com", "x", kDomain, kPeer, kSip},
    {"for-anything", "URI:sip:example.com", "x", kDomain, kPeer, "anyExtendedKeyUsage"},
    {"for-clients-and-servers", "URI:sip:example.com", "x", kDomain, kPeer, "serverAuth,clientAuth"},
    {"for-clients", "URI:sip:example.com", "x", kDomain, kPeer, "clientAuth", kPeer, kRefused},
    {"for-servers", "URI:sip:example.com", "x", kDomain, kPeer, "serverAuth", kRefused, kPeer},
    {"for-code", "URI:sip:example.com", "x", kDomain, kRefused, "codeSigning"},
};

// What a peer is told, and the log says, when a certificate is refused for another reason than its names.
struct Refusal {
  std::string alert;  // in OpenSSL's words, to the peer
  std::string sent;   // in ours
  std::string reason;
  std::string remedy;
};

Refusal refusal(const Case& one, std::string_view table) {
  switch (one.flaw) {
    case Flaw::kExpired:
      return {"certificate expired", "certificate_expired (45)", "has expired", "have the peer renew it"};
    case Flaw::kNotYetValid:
      return {"bad certificate", "bad_certificate (42)", "not yet valid", "check the clock"};
    case Flaw::kOtherAuthority:
      return {"unknown ca", "unknown_ca (48)", "unknown CA", fmt::format("'{}.ca'", table)};
    case Flaw::kNone:
      break;
  }
  return {"unsupported certificate", "unsupported_certificate (43)", "(extendedKeyUsage)",
          table == "listen" ? "'listen.client_purpose'" : "for serverAuth or sipDomain"};
}

class Identity : public DaemonTest, public testing::WithParamInterface<int> {
 protected:
  [[nodiscard]] static Pki::Files certificate_of(const Case& one) {
    Pki::Wish wish{.common_name = one.common_name, .names = one.alternative_names, .usage = one.usage};
    if (one.flaw == Flaw::kExpired) wish.valid_to_s = -60;
    if (one.flaw == Flaw::kNotYetValid) wish.valid_from_s = 3600;
    return one.flaw == Flaw::kOtherAuthority ? others().issue(wish) : pki().issue(wish);
  }
  [[nodiscard]] static TlsOptions options(const Pki::Files& files) {
    return {.certificate = files.certificate,
            .key = files.key,
            .ca = "",
            .min_version = GetParam(),
            .max_version = GetParam(),
            .ciphers = "",
            .ciphersuites = "",
            .server_name = "",
            .verify_name = ""};
  }
  static Pki& pki() {
    static Pki made;
    return made;
  }
  static Pki& others() {
    static Pki made("Other CA");
    return made;
  }
  static const Pki::Files& ours() {
    static const Pki::Files made = pki().issue({.names = "DNS:edge.test"});
    return made;
  }
  [[nodiscard]] std::vector<std::string> failures(std::string_view of) const {
    std::vector<std::string> found;
    std::istringstream log(daemon_->log());
    for (std::string line; std::getline(log, line);)
      if (line.find(" failed: ") != std::string::npos && line.find(of) != std::string::npos) found.push_back(line);
    return found;
  }
  // The refused peer's stream, or why there is none, tells it why.
  static void expect_alert(const Result<std::unique_ptr<TlsStream>>& stream, std::string_view alert) {
    if (!stream) {
      EXPECT_THAT(stream.error().what, HasSubstr(alert));
      return;
    }
    const auto end = (*stream)->read_some(kLong);  // TLS 1.3: the other end is refused after it is done
    ASSERT_FALSE(end) << "an alert was expected";
    EXPECT_THAT(end.error().what, HasSubstr(alert));
  }
  // The one line about it.
  void expect_line(std::string_view of, const Refusal& why) const {
    ASSERT_TRUE(eventually([&] { return !failures(of).empty(); }, kLong)) << daemon_->log();
    const auto lines = failures(of);
    ASSERT_THAT(lines, SizeIs(1));
    EXPECT_THAT(lines[0], AllOf(HasSubstr(why.reason), HasSubstr(why.remedy), HasSubstr("[sent alert " + why.sent)));
  }
  void expect_trunk(const Address& peer, std::string_view trunk) const {
    const Json now = status();
    const auto found = connections(now, [&](const Json& c) { return c["peer"] == peer.text(); });
    ASSERT_THAT(found, SizeIs(1)) << now.dump(2);
    EXPECT_EQ(found[0]["trunk"], trunk);
    EXPECT_EQ(found[0]["tls_version"], GetParam() == TLS1_3_VERSION ? "1.3" : "1.2");
  }
};

// A TCP connection from an address of its own: what a peer may make ktrunkd log in a second is limited.
Fd dial(const Address& to, unsigned number) {
  Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto from = Address::from_ip(fmt::format("127.7.{}.{}", number / 250, number % 250 + 1), 0);
  EXPECT_EQ(::bind(socket.get(), from->data(), from->size()), 0);
  EXPECT_EQ(::connect(socket.get(), to.data(), to.size()), 0);
  return socket;
}

TEST_P(Identity, OfPeersThatConnectToUs) {
  const Address edges[] = {edge_tls_, fresh_address()};
  std::string config;
  for (const std::size_t any : {0u, 1u})
    config += fmt::format(
        "[[listen]]\nname = \"{0}\"\ntransport = \"tls\"\naddress = \"{1}\"\ncertificate = \"{2}\"\nkey = \"{3}\"\n"
        "ca = \"{4}\"\nverify_client = \"require\"\nclient_purpose = \"{0}\"\n",
        any == 1 ? "any" : "client", edges[any].text(), ours().certificate, ours().key, pki().authority_file());
  for (const char* name : {"somebody.else.example", kDomain, "pbx.example.com", "dotted.example."})
    config += fmt::format("[[trunk]]\nname = \"{0}\"\nverify_name = \"{0}\"\nlisten = \"client\"\n", name);
  ASSERT_NO_FATAL_FAILURE(launch(config));
  const Status ready = daemon_->wait_ready();
  ASSERT_TRUE(ready) << ready.error().what;

  unsigned number = 0;
  for (const Case& one : kCases) {
    const Pki::Files files = certificate_of(one);
    for (const bool any : {false, true}) {
      SCOPED_TRACE(fmt::format("{}, client_purpose = \"{}\"", one.name, any ? "any" : "client"));
      const Verdict verdict = any ? one.verdict : one.as_client;
      Fd socket = dial(edges[any ? 1 : 0], number++);
      TcpStream tcp{std::move(socket)};
      const Address self = tcp.local();
      auto stream = TlsStream::handshake(tcp.take(), options(files), kLong);
      if (verdict == Verdict::kRefused) {
        const Refusal why = refusal(one, "listen");
        expect_alert(stream, why.alert);
        expect_line(fmt::format("from {} ", self.text()), why);
        continue;
      }
      ASSERT_TRUE(stream) << stream.error().what << daemon_->log();
      SipStream sip(std::move(*stream));
      EXPECT_TRUE(answers(sip, options_to_us(), 200)) << daemon_->log();
      expect_trunk(self, verdict == Verdict::kPeer ? one.wanted : "");
      EXPECT_THAT(failures(self.text()), SizeIs(0));
    }
  }
}

TEST_P(Identity, OfPeersThatWeConnectTo) {
  std::vector<std::optional<TcpListener>> listeners;
  std::string config = fmt::format(
      "[[listen]]\nname = \"edge\"\ntransport = \"tls\"\naddress = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
      edge_tls_.text(), ours().certificate, ours().key);
  for (const Case& one : kCases) {
    auto listener = TcpListener::bind(fresh_address());
    ASSERT_TRUE(listener) << listener.error().what;
    config += fmt::format("[[trunk]]\nname = \"{}\"\ntargets = [\"tls:{}\"]\nverify_name = \"{}\"\nca = \"{}\"\n",
                          one.name, listener->address().text(), one.wanted, pki().authority_file());
    listeners.emplace_back(std::move(*listener));
  }
  // Each waits for its turn, which on an emulated machine takes a while.
  ASSERT_NO_FATAL_FAILURE(launch("[limits]\nhandshake = \"5m\"\n" + config));

  std::size_t place = 0;
  for (const Case& one : kCases) {
    SCOPED_TRACE(one.name);
    std::optional<TcpListener>& listener = listeners[place++];
    auto socket = listener->accept(kLong);
    ASSERT_TRUE(socket) << socket.error().what << daemon_->log();
    const Address self = listener->address();
    listener.reset();  // it is tried once
    auto stream = TlsStream::accept(std::move(*socket), options(certificate_of(one)), kLong);
    const std::string line = fmt::format("trunk '{}': handshake to {} ", one.name, self.text());
    if (one.as_server != Verdict::kPeer) {
      const Refusal why = one.as_server == Verdict::kRefused
                              ? refusal(one, "trunk")
                              : Refusal{"bad certificate", "bad_certificate (42)",
                                        fmt::format("not for '{}'", one.wanted), "set 'trunk.verify_name'"};
      expect_alert(stream, why.alert);
      expect_line(line, why);
      EXPECT_THAT(of_trunk(status(), one.name), SizeIs(0));
      continue;
    }
    ASSERT_TRUE(stream) << stream.error().what << daemon_->log();
    SipStream sip(std::move(*stream));
    EXPECT_TRUE(answers(sip, options_to_us(), 200)) << daemon_->log();
    expect_trunk(self, one.name);
    EXPECT_THAT(failures(line), SizeIs(0));
  }
}

INSTANTIATE_TEST_SUITE_P(Rfc5922, Identity, testing::Values(TLS1_2_VERSION, TLS1_3_VERSION),
                         [](const auto& version) { return version.param == TLS1_3_VERSION ? "Tls13" : "Tls12"; });

}  // namespace
}  // namespace ktrunk::test
