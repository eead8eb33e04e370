// What other people's TLS programs do with an established session: KeyUpdates at will, and coming back with a ticket.
#include <signal.h>

#include <algorithm>
#include <filesystem>

#include "interop/interop_fixture.h"

namespace ktrunk::test {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

class SessionPrograms : public InteropTest, public testing::WithParamInterface<std::string> {
 protected:
  [[nodiscard]] static std::string version() { return GetParam(); }
  [[nodiscard]] static std::vector<std::string> openssl_version() {
    return {version() == "1.3" ? "-tls1_3" : "-tls1_2"};
  }
  [[nodiscard]] std::vector<std::string> openssl_client(const std::vector<std::string>& more) const {
    const Certificates& files = certificates();
    std::vector<std::string> command = {
        "openssl", "s_client",      "-connect", edge_tls_.text(),          "-servername", "edge.test",
        "-CAfile", files.ca.file(), "-cert",    files.carrier.certificate, "-key",        files.carrier.key};
    std::ranges::copy(openssl_version(), std::back_inserter(command));
    std::ranges::copy(more, std::back_inserter(command));
    return command;
  }
  [[nodiscard]] std::vector<std::string> gnutls_client(const std::vector<std::string>& more) const {
    const Certificates& files = certificates();
    std::vector<std::string> command = {"gnutls-cli",
                                        "--x509cafile",
                                        files.ca.file(),
                                        "--x509certfile",
                                        files.carrier.certificate,
                                        "--x509keyfile",
                                        files.carrier.key,
                                        "--sni-hostname",
                                        "edge.test",
                                        "--verify-hostname",
                                        "edge.test",
                                        "--priority",
                                        fmt::format("NORMAL:-VERS-ALL:+VERS-TLS{}", version()),
                                        "--port",
                                        std::to_string(edge_tls_.port())};
    std::ranges::copy(more, std::back_inserter(command));
    command.push_back(edge_tls_.ip());
    return command;
  }
  void ask(Conversation& client) const {
    const SipMessage request = options_to_us();
    ASSERT_TRUE(client.say(request.text()));
    ASSERT_TRUE(client.heard("Call-ID: " + request.header("Call-ID"))) << client.output() << daemon_->log();
  }
  // Kernels without rekey end the connection instead; that is tested elsewhere.
  [[nodiscard]] static bool cannot_rekey(const std::vector<Json>& connections) {
    return !connections.empty() && connections[0]["record_layer"] == "kernel" && !ktls_support().rekey;
  }
  // With several handshake processes that share the key of tickets: a ticket of before the first of them has made that
  // key opens in no other. Each says once, when it starts, what the kernel can do.
  void start_with_shared_tickets() {
    ASSERT_NO_FATAL_FAILURE(start("", "handshake_processes = 3"));
    const auto started = [&] {
      const std::string log = daemon_->log();
      std::size_t count = 0;
      for (std::size_t at = 0; (at = log.find("kernel TLS", at)) != std::string::npos; ++at) ++count;
      return count == 3;
    };
    ASSERT_TRUE(eventually(started, kLong)) << daemon_->log();
  }
  void restart_handshake_processes() {
    const auto before = daemon_->status();
    ASSERT_TRUE(before);
    std::vector<pid_t> killed;
    for (const Json& process : (*before)["processes"]) {
      if (!process["name"].get<std::string>().starts_with("handshake")) continue;
      killed.push_back(process["pid"]);
      ASSERT_EQ(::kill(killed.back(), SIGKILL), 0);
    }
    ASSERT_FALSE(killed.empty());
    const Status again = daemon_->wait_status([&](const Json& now) {
      return std::ranges::all_of(now["processes"], [&](const Json& process) {
        return process["pid"] > 1 && std::ranges::find(killed, process["pid"].get<pid_t>()) == killed.end();
      });
    });
    ASSERT_TRUE(again) << again.error().what;
  }
};

TEST_P(SessionPrograms, GnutlsUpdatesKeys) {
  KTRUNK_REQUIRE(missing_program("gnutls-cli", "gnutls-bin"));
  if (version() != "1.3") GTEST_SKIP() << "TLS 1.3 alone has KeyUpdate";
  ASSERT_NO_FATAL_FAILURE(start());
  const auto client = Conversation::start(gnutls_client({"--inline-commands"}));
  ASSERT_NE(client, nullptr);
  ASSERT_NO_FATAL_FAILURE(ask(*client));
  if (cannot_rekey(tls_connections("carrier"))) GTEST_SKIP() << "this kernel takes no second set of keys";
  for (int i = 0; i < 8; ++i) {  // GnuTLS itself takes more in a second for an attack
    ASSERT_TRUE(client->say(i % 2 == 0 ? "^rekey^\n" : "^rekey1^\n"));  // the first asks for ours too
    ASSERT_NO_FATAL_FAILURE(ask(*client)) << "round " << i;
  }
  EXPECT_THAT(tls_connections("carrier"), SizeIs(1));
}

TEST_P(SessionPrograms, OpensslUpdatesKeys) {
  KTRUNK_REQUIRE(missing_program("openssl", "openssl"));
  if (version() != "1.3") GTEST_SKIP() << "TLS 1.3 alone has KeyUpdate";
  ASSERT_NO_FATAL_FAILURE(start());
  const auto client = Conversation::start(openssl_client({}));
  ASSERT_NE(client, nullptr);
  ASSERT_NO_FATAL_FAILURE(ask(*client));
  if (cannot_rekey(tls_connections("carrier"))) GTEST_SKIP() << "this kernel takes no second set of keys";
  constexpr std::size_t kRounds = 10;
  for (std::size_t i = 0; i < kRounds; ++i) {
    ASSERT_TRUE(client->say(i % 2 == 0 ? "K\n" : "k\n"));  // K asks for ours too
    const auto done = [&] {
      const std::string output = client->output();
      std::size_t count = 0;
      for (std::size_t at = 0; (at = output.find("KEYUPDATE\n", at)) != std::string::npos; ++at) ++count;
      return count == i + 1;
    };
    ASSERT_TRUE(eventually(done, kLong)) << client->output();
    ASSERT_NO_FATAL_FAILURE(ask(*client)) << "round " << i;
  }
  EXPECT_THAT(tls_connections("carrier"), SizeIs(1));
}

TEST_P(SessionPrograms, OpensslResumesAcrossARestart) {
  KTRUNK_REQUIRE(missing_program("openssl", "openssl"));
  ASSERT_NO_FATAL_FAILURE(start_with_shared_tickets());
  const TempFolder folder;
  const std::string session = folder.file("session.pem");
  {
    const auto client = Conversation::start(openssl_client({"-sess_out", session}));
    ASSERT_NE(client, nullptr);
    ASSERT_NO_FATAL_FAILURE(ask(*client));
    ASSERT_TRUE(client->heard("New, TLSv" + version())) << client->output();
    ASSERT_TRUE(client->say("Q\n"));
    EXPECT_TRUE(client->ends_with(0));
  }
  ASSERT_TRUE(std::filesystem::exists(session));
  for (int round = 0; round < 4; ++round) {
    if (round == 2) {
      ASSERT_NO_FATAL_FAILURE(restart_handshake_processes());
    }
    const auto client = Conversation::start(openssl_client({"-sess_in", session}));
    ASSERT_NE(client, nullptr);
    ASSERT_TRUE(client->heard("Reused, TLSv" + version())) << client->output() << daemon_->log();
    ASSERT_NO_FATAL_FAILURE(ask(*client));
    EXPECT_THAT(tls_connections("carrier"), SizeIs(testing::Ge(1u)));
    ASSERT_TRUE(client->say("Q\n"));
    EXPECT_TRUE(client->ends_with(0));
  }
}

TEST_P(SessionPrograms, GnutlsResumes) {
  KTRUNK_REQUIRE(missing_program("gnutls-cli", "gnutls-bin"));
  ASSERT_NO_FATAL_FAILURE(start_with_shared_tickets());
  closed_early_ = 1;  // gnutls-cli ends its first connection at once
  const auto client = Conversation::start(gnutls_client({"--resume", "--waitresumption"}));
  ASSERT_NE(client, nullptr);
  ASSERT_TRUE(client->heard("This is a resumed session")) << client->output() << daemon_->log();
  ASSERT_NO_FATAL_FAILURE(ask(*client));
}

INSTANTIATE_TEST_SUITE_P(Versions, SessionPrograms, testing::Values("1.3", "1.2"),
                         [](const auto& version) { return version.param == "1.3" ? "Tls13" : "Tls12"; });

}  // namespace
}  // namespace ktrunk::test
