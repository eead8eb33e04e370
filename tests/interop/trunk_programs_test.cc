// Trunks of ours to other people's TLS servers: GnuTLS's, which sends back what it gets, and OpenSSL's, which lets our
// trunk resume its session.
#include <algorithm>

#include "interop/interop_fixture.h"

namespace ktrunk::test {
namespace {

using testing::AnyOf;
using testing::SizeIs;

class TrunkPrograms : public InteropTest, public testing::WithParamInterface<std::string> {
 protected:
  [[nodiscard]] static std::string version() { return GetParam(); }
  [[nodiscard]] static std::string priority() { return fmt::format("NORMAL:-VERS-ALL:+VERS-TLS{}", version()); }
  // gnutls-serv as the PBX: it sends back what comes, as it came. It listens at every address.
  [[nodiscard]] static std::unique_ptr<Conversation> gnutls_server(const Address& at,
                                                                   const std::vector<std::string>& more) {
    const Certificates& files = certificates();
    std::vector<std::string> command = {"gnutls-serv",
                                        "--echo",
                                        "--crlf",
                                        "--port",
                                        std::to_string(at.port()),
                                        "--priority",
                                        priority(),
                                        "--x509certfile",
                                        files.pbx.certificate,
                                        "--x509keyfile",
                                        files.pbx.key};
    std::ranges::copy(more, std::back_inserter(command));
    return Conversation::start(command);
  }
  void expect_connection() const {
    const auto found = tls_connections("pbx");
    ASSERT_THAT(found, SizeIs(1)) << daemon_->log();
    EXPECT_TRUE(record_layer_fits(found[0]));
    EXPECT_EQ(found[0]["tls_version"], version());
  }
  // A request whose echo ktrunkd answers, as it may go no further; of that answer's echo the caller hears. So two
  // messages pass in each direction.
  void make_the_round(SipStream& caller) const {
    SipMessage request = make_request({.uri = "sip:bob@pbx.test",
                                       .transport = "TCP",
                                       .sent_by = caller.stream().local().text(),
                                       .branch = "",
                                       .call_id = "",
                                       .body = ""});
    request.set("Max-Forwards", "1");
    ASSERT_TRUE(caller.send(request));
    const auto response = caller.receive(kLong);
    ASSERT_TRUE(response) << response.error().what << daemon_->log();
    EXPECT_THAT(response->status(), AnyOf(482, 483)) << response->text();
    EXPECT_EQ(response->header("Call-ID"), request.header("Call-ID"));
    EXPECT_THAT(response->all("Via"), SizeIs(1)) << response->text();
  }
};

TEST_P(TrunkPrograms, GnutlsServer) {
  KTRUNK_REQUIRE(missing_program("gnutls-serv", "gnutls-bin"));
  const Address pbx = free_address_for_any();
  const auto server = gnutls_server(pbx, {"--disable-client-cert"});
  ASSERT_NE(server, nullptr);
  ASSERT_NO_FATAL_FAILURE(start(pbx_at(pbx)));
  expect_connection();
  auto tcp = TcpStream::connect(edge_tcp_);
  ASSERT_TRUE(tcp) << tcp.error().what;
  SipStream caller(std::move(*tcp));
  for (int i = 0; i < 20; ++i) ASSERT_NO_FATAL_FAILURE(make_the_round(caller)) << i << server->output();
  expect_connection();
}

TEST_P(TrunkPrograms, GnutlsServerThatWantsOurCertificate) {
  KTRUNK_REQUIRE(missing_program("gnutls-serv", "gnutls-bin"));
  const Address pbx = free_address_for_any();
  const auto server =
      gnutls_server(pbx, {"--require-client-cert", "--verify-client-cert", "--x509cafile", certificates().ca.file()});
  ASSERT_NE(server, nullptr);
  ASSERT_NO_FATAL_FAILURE(start(pbx_at(pbx)));
  auto tcp = TcpStream::connect(edge_tcp_);
  ASSERT_TRUE(tcp) << tcp.error().what;
  SipStream caller(std::move(*tcp));
  ASSERT_NO_FATAL_FAILURE(make_the_round(caller)) << server->output();
  expect_connection();
  EXPECT_TRUE(server->heard("The certificate is trusted")) << server->output();
}

TEST_P(TrunkPrograms, OpensslServerLetsATrunkResume) {
  KTRUNK_REQUIRE(missing_program("openssl", "openssl"));
  const Certificates& files = certificates();
  const Address pbx = free_address();
  const auto server = Conversation::start({"openssl", "s_server", "-accept", pbx.text(), "-cert", files.pbx.certificate,
                                           "-key", files.pbx.key, "-CAfile", files.ca.file(), "-Verify", "1",
                                           "-verify_return_error", version() == "1.3" ? "-tls1_3" : "-tls1_2"});
  ASSERT_NE(server, nullptr);
  ASSERT_NO_FATAL_FAILURE(start(pbx_at(pbx)));
  const auto count = [&](const std::string& counter) {
    const auto now = daemon_->status();
    return now ? (*now)["handshakes"].value(counter, std::uint64_t{0}) : std::uint64_t{0};
  };
  const auto times = [&](std::string_view text) {
    const std::string output = server->output();
    std::uint64_t found = 0;
    for (std::size_t at = 0; (at = output.find(text, at)) != std::string::npos; ++at) ++found;
    return found;
  };
  EXPECT_EQ(times("Reused session-id"), 0u);
  for (std::uint64_t round = 1; round <= 2; ++round) {
    expect_connection();
    const auto carried = tls_connections("pbx");
    ASSERT_FALSE(carried.empty());
    if (version() == "1.3" &&
        carried[0]["record_layer"] == "kernel") {  // in relay OpenSSL has them without being asked
      EXPECT_TRUE(eventually([&] { return count("tickets") >= round; }, kLong)) << daemon_->log();
    }
    // What is no SIP makes ktrunkd end the connection in order, and connect again.
    ASSERT_TRUE(server->say("!!! not SIP !!!\r\n\r\n"));
    EXPECT_TRUE(eventually([&] { return times("Reused session-id") == round; }, kLong))
        << server->output() << daemon_->log();
    EXPECT_TRUE(eventually([&] { return count("resumed") == round; }, kLong)) << daemon_->log();
    ASSERT_TRUE(eventually(
        [&] {
          const auto now = tls_connections("pbx");
          return now.size() == 1 && now[0]["id"] != carried[0]["id"];
        },
        kLong))
        << daemon_->log();
  }
}

INSTANTIATE_TEST_SUITE_P(Versions, TrunkPrograms, testing::Values("1.3", "1.2"),
                         [](const auto& version) { return version.param == "1.3" ? "Tls13" : "Tls12"; });

}  // namespace
}  // namespace ktrunk::test
