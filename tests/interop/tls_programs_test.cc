// TLS programs against ktrunkd, in both roles: OpenSSL's and GnuTLS's clients connect to it, OpenSSL's server is the
// target of a trunk. SIP goes through their standard input and output.
#include <algorithm>

#include "interop/interop_fixture.h"

namespace ktrunk::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;
using testing::StartsWith;

struct Suite {
  std::string name;
  std::string version;  // "1.3"
  std::string openssl;  // the suite's name
  std::string gnutls;   // the cipher's name in a priority string
};
void PrintTo(const Suite& suite, std::ostream* out) { *out << suite.name; }

const auto kSuites =
    testing::Values(Suite{"Tls13Aes128", "1.3", "TLS_AES_128_GCM_SHA256", "AES-128-GCM"},
                    Suite{"Tls13Aes256", "1.3", "TLS_AES_256_GCM_SHA384", "AES-256-GCM"},
                    Suite{"Tls13Chacha20", "1.3", "TLS_CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"},
                    Suite{"Tls12Aes128", "1.2", "ECDHE-ECDSA-AES128-GCM-SHA256", "AES-128-GCM"},
                    Suite{"Tls12Aes256", "1.2", "ECDHE-ECDSA-AES256-GCM-SHA384", "AES-256-GCM"},
                    Suite{"Tls12Chacha20", "1.2", "ECDHE-ECDSA-CHACHA20-POLY1305", "CHACHA20-POLY1305"});

// The options that leave OpenSSL's programs this suite alone.
std::vector<std::string> openssl_suite(const Suite& suite) {
  if (suite.version == "1.3") return {"-tls1_3", "-ciphersuites", suite.openssl};
  return {"-tls1_2", "-cipher", suite.openssl};
}

class TlsPrograms : public InteropTest, public testing::WithParamInterface<Suite> {
 protected:
  // One request at once; then, in one go, more than one TLS record of them. Each must be answered.
  void ask(Conversation& client) {
    const SipMessage first = options_to_us();
    ASSERT_TRUE(client.say(first.text()));
    const auto response = client.message("SIP/2.0 ");
    ASSERT_TRUE(response) << response.error().what;
    EXPECT_EQ(response->status(), 200) << response->text();
    EXPECT_EQ(response->header("Call-ID"), first.header("Call-ID"));
    EXPECT_THAT(response->header("Via"), StartsWith(first.header("Via")));

    constexpr int kMore = 100;
    std::string more;
    std::vector<std::string> calls;
    for (int i = 0; i < kMore; ++i) {
      const SipMessage request = options_to_us();
      more += request.text();
      calls.push_back("Call-ID: " + request.header("Call-ID") + "\r\n");
    }
    ASSERT_TRUE(client.say(more));
    for (const std::string& call : calls) ASSERT_TRUE(client.heard(call)) << client.output();
  }

  // What ktrunkd says about the client's connection while it is open.
  void check_connection(std::string_view trunk) {
    const auto found = tls_connections(trunk);
    ASSERT_THAT(found, SizeIs(1));
    EXPECT_TRUE(record_layer_fits(found[0]));
    EXPECT_EQ(found[0]["tls_version"], GetParam().version);
    EXPECT_EQ(found[0]["cipher"], GetParam().openssl);
  }
};

TEST_P(TlsPrograms, OpensslClient) {
  KTRUNK_REQUIRE(missing_program("openssl", "openssl"));
  ASSERT_NO_FATAL_FAILURE(start());
  const Certificates& files = certificates();
  std::vector<std::string> command = {
      "openssl",   "s_client", "-connect",      edge_tls_.text(),       "-servername", "edge.test", "-verify_hostname",
      "edge.test", "-CAfile",  files.ca.file(), "-verify_return_error", "-brief",      "-ign_eof"};
  std::ranges::copy(openssl_suite(GetParam()), std::back_inserter(command));
  const auto client = Conversation::start(command);
  ASSERT_NE(client, nullptr);
  ASSERT_NO_FATAL_FAILURE(ask(*client));
  EXPECT_THAT(client->output(), HasSubstr("Verification: OK"));
  EXPECT_THAT(client->output(), HasSubstr("Ciphersuite: " + GetParam().openssl));
  check_connection("");
}

TEST_P(TlsPrograms, GnutlsClientWithCertificate) {
  KTRUNK_REQUIRE(missing_program("gnutls-cli", "gnutls-bin"));
  ASSERT_NO_FATAL_FAILURE(start());
  const Certificates& files = certificates();
  const auto client = Conversation::start(
      {"gnutls-cli", "--x509cafile", files.ca.file(), "--x509certfile", files.carrier.certificate, "--x509keyfile",
       files.carrier.key, "--sni-hostname", "edge.test", "--verify-hostname", "edge.test", "--priority",
       fmt::format("NORMAL:-VERS-ALL:+VERS-TLS{}:-CIPHER-ALL:+{}", GetParam().version, GetParam().gnutls), "--port",
       std::to_string(edge_tls_.port()), edge_tls_.ip()});
  ASSERT_NE(client, nullptr);
  ASSERT_NO_FATAL_FAILURE(ask(*client));
  EXPECT_THAT(client->output(), HasSubstr("The certificate is trusted"));
  check_connection("carrier");
  // At the end of its input it sends close_notify and waits for ktrunkd's.
  client->hang_up();
  EXPECT_TRUE(client->ends_with(0));
}

TEST_P(TlsPrograms, OpensslServerAsTarget) {
  KTRUNK_REQUIRE(missing_program("openssl", "openssl"));
  const Certificates& files = certificates();
  const Address pbx = free_address();
  std::vector<std::string> command = {
      "openssl",     "s_server", "-accept",       pbx.text(), "-cert", files.pbx.certificate,  "-key",
      files.pbx.key, "-CAfile",  files.ca.file(), "-Verify",  "1",     "-verify_return_error", "-quiet"};
  std::ranges::copy(openssl_suite(GetParam()), std::back_inserter(command));
  const auto server = Conversation::start(command);
  ASSERT_NE(server, nullptr);
  ASSERT_NO_FATAL_FAILURE(start(pbx_at(pbx)));
  check_connection("pbx");

  auto tcp = TcpStream::connect(edge_tcp_);
  ASSERT_TRUE(tcp) << tcp.error().what;
  SipStream caller(std::move(*tcp));
  for (const std::string method : {"OPTIONS", "INVITE"}) {
    const SipMessage sent = make_request({.method = method,
                                          .uri = "sip:bob@pbx.test",
                                          .transport = "TCP",
                                          .sent_by = caller.stream().local().text(),
                                          .branch = "",
                                          .call_id = "",
                                          .body = ""});
    ASSERT_TRUE(caller.send(sent));
    const auto arrived = server->message(sent.start_line);
    ASSERT_TRUE(arrived) << arrived.error().what;
    const auto vias = arrived->all("Via");
    ASSERT_THAT(vias, SizeIs(2)) << arrived->text();
    EXPECT_THAT(vias[0], StartsWith(fmt::format("SIP/2.0/TLS {};branch=z9hG4bK", edge_tls_.text())));
    EXPECT_THAT(vias[1], StartsWith(sent.header("Via")));
    EXPECT_EQ(arrived->header("Max-Forwards"), "69");

    SipMessage answer = make_response(*arrived, 200, "OK");
    answer.body = "typed by hand";
    ASSERT_TRUE(server->say(answer.text()));
    const auto got = caller.receive(kLong);
    ASSERT_TRUE(got) << got.error().what;
    EXPECT_EQ(got->status(), 200);
    EXPECT_EQ(got->header("CSeq"), sent.header("CSeq"));
    EXPECT_EQ(got->body, "typed by hand");
    EXPECT_THAT(got->all("Via"), ElementsAre(vias[1]));
  }
  const auto carried = tls_connections("pbx");
  ASSERT_THAT(carried, SizeIs(1));
}

INSTANTIATE_TEST_SUITE_P(Suites, TlsPrograms, kSuites, [](const auto& suite) { return suite.param.name; });

}  // namespace
}  // namespace ktrunk::test
