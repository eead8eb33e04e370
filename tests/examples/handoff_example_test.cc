// examples/handoff, with ktrunkd-handshake --serve and other people's programs as peers; in the kernel or relayed.
#include <fstream>

#include "examples_fixture.h"

namespace ktrunk::test {
namespace {

using testing::HasSubstr;
using testing::Not;

class HandoffExampleTest : public ExamplesTest {
 protected:
  void SetUp() override {
    ExamplesTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    folder_.write("handoff.toml",
                  fmt::format(R"([ktrunk]
record_layer = "{}"

[[listen]]
name = "edge"
transport = "tls"
address = "127.0.0.1:5061"
certificate = "{}"
key = "{}"

[[trunk]]
name = "carrier"
targets = ["tls:edge.test"]
ca = "{}"
)",
                              kKernel ? "kernel" : "relay", edge_.certificate, edge_.key, authority_.file()));
    launch(service_, {handshake_program(), "--serve", socket_, folder_.file("handoff.toml")}, "ready for requests");
  }
  void TearDown() override {
    if (!service_) return;
    ASSERT_TRUE(service_->signal(SIGTERM));
    const auto exit = service_->wait(kLong);
    ASSERT_TRUE(exit);
    EXPECT_EQ(exit->code, 0) << exit_text(*exit) << "\n" << service_->output();
    EXPECT_FALSE(std::filesystem::exists(socket_));
  }
  [[nodiscard]] std::vector<std::string> command(std::vector<std::string> arguments) const {
    std::vector<std::string> all = {example("handoff")};
    if (!kKernel) all.emplace_back("--relay");
    all.insert(all.end(), arguments.begin(), arguments.end());
    return all;
  }
  static constexpr const char* kWhere = kKernel ? "in the kernel" : "relayed: configured";

  std::string socket_ = folder_.file("handshake.sock");
  std::optional<Process> service_;
};

TEST_F(HandoffExampleTest, AcceptsFromOpensslAndGnutls) {
  const Address address = *Address::from_ip(ip_, free_address().port());
  std::optional<Process> server;
  ASSERT_NO_FATAL_FAILURE(launch(server, command({"accept", socket_, "edge", address.text()}), "listening"));
  auto openssl = openssl_client(address);
  openssl.insert(openssl.end(), {"-alpn", "sip/2"});
  for (const auto& client_command : {openssl, gnutls_client(address)}) {
    KTRUNK_REQUIRE(missing(client_command));
    const auto client = Conversation::start(client_command);
    ASSERT_NE(client, nullptr);
    ASSERT_TRUE(client->say("hello, whoever makes the records\n"));
    ASSERT_TRUE(client->heard("hello, whoever makes the records")) << client->output() << server->output();
    std::string more;
    for (int i = 0; i < 500; ++i) more += fmt::format("line {} of many, more than one record holds\n", i);
    ASSERT_TRUE(client->say(more));
    ASSERT_TRUE(client->heard("line 499 of many, more than one record holds\n")) << client->output();
    client->hang_up();
    EXPECT_TRUE(client->ends_with(0));
  }
  EXPECT_THAT(server->output(), HasSubstr(kWhere));
  EXPECT_THAT(server->output(), HasSubstr("protocol: sip/2"));
  EXPECT_THAT(server->output(), Not(HasSubstr("failed")));
}

TEST_F(HandoffExampleTest, ConnectsToOpenssl) {
  KTRUNK_REQUIRE(missing_program("openssl", "openssl"));
  const Address address = *Address::from_ip(ip_, free_address().port());
  const auto peer = Conversation::start(
      {"openssl", "s_server", "-accept", address.text(), "-cert", edge_.certificate, "-key", edge_.key, "-quiet"});
  ASSERT_NE(peer, nullptr);
  const auto listens = [&] {
    const auto stream = TcpStream::connect(address);
    return stream.has_value();
  };
  ASSERT_TRUE(eventually(listens, kLong)) << peer->output();
  const auto client = Conversation::start(command({"connect", socket_, "carrier", "edge.test", address.text()}));
  ASSERT_NE(client, nullptr);
  ASSERT_TRUE(client->heard(kWhere)) << client->output();
  EXPECT_TRUE(client->heard("peer: dns:edge.test")) << client->output();
  ASSERT_TRUE(client->say("from the client\n"));
  ASSERT_TRUE(peer->heard("from the client")) << peer->output() << client->output();
  ASSERT_TRUE(peer->say("from the server\n"));
  ASSERT_TRUE(client->heard("from the server")) << client->output();
  client->hang_up();
  EXPECT_TRUE(client->ends_with(0));
}

TEST_F(HandoffExampleTest, WrongNameIsSaid) {
  KTRUNK_REQUIRE(missing_program("openssl", "openssl"));
  const Address address = *Address::from_ip(ip_, free_address().port());
  const auto peer = Conversation::start(
      {"openssl", "s_server", "-accept", address.text(), "-cert", edge_.certificate, "-key", edge_.key, "-quiet"});
  ASSERT_NE(peer, nullptr);
  ASSERT_TRUE(eventually([&] { return TcpStream::connect(address).has_value(); }, kLong)) << peer->output();
  const auto client = Conversation::start(command({"connect", socket_, "carrier", "wrong.test", address.text()}));
  ASSERT_NE(client, nullptr);
  EXPECT_TRUE(client->ends_with(1));
  EXPECT_THAT(client->output(), HasSubstr("wrong.test"));
}

TEST_F(HandoffExampleTest, NeedsNoTlsLibrary) {
  const Address address = *Address::from_ip(ip_, free_address().port());
  std::optional<Process> server;
  ASSERT_NO_FATAL_FAILURE(launch(server, command({"accept", socket_, "edge", address.text()}), "listening"));
  std::ifstream maps(fmt::format("/proc/{}/maps", server->pid()));
  const std::string mapped{std::istreambuf_iterator<char>(maps), {}};
  EXPECT_THAT(mapped, HasSubstr("libc.so"));
  EXPECT_THAT(mapped, Not(HasSubstr("libssl")));
  EXPECT_THAT(mapped, Not(HasSubstr("libcrypto")));
}

TEST_F(HandoffExampleTest, SurvivesReloadSignal) {
  ASSERT_TRUE(service_->signal(SIGHUP));
  EXPECT_TRUE(eventually([&] { return service_->output().find("have been read again") != std::string::npos; }, kLong))
      << service_->output();
}

}  // namespace
}  // namespace ktrunk::test
