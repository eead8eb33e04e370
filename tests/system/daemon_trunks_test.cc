// Trunks that are not there, come late, go away or are not who they should be; and configurations that cannot be used.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "cli/control_client.h"
#include "system/daemon_fixture.h"

namespace ktrunk::test {
namespace {

using testing::AllOf;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::SizeIs;

class DaemonTrunks : public DaemonTest {
 protected:
  // A TLS listener and one trunk to `target`, whose certificate must carry verify_name.
  std::string config(const Address& target, std::string_view verify_name = "pbx.test",
                     std::string_view verify_client = "require") const {
    const Certificates& files = certificates();
    return fmt::format(R"([[listen]]
name = "edge-tls"
transport = "tls"
address = "{}"
certificate = "{}"
key = "{}"
ca = "{}"
verify_client = "{}"

[[trunk]]
name = "pbx"
targets = ["tls:{}"]
verify_name = "{}"
ca = "{}"
certificate = "{}"
key = "{}"
)",
                       edge_tls_.text(), files.edge.certificate, files.edge.key, files.ca.file(), verify_client,
                       target.text(), verify_name, files.ca.file(), files.edge.certificate, files.edge.key);
  }

  std::vector<std::string> log_lines(std::string_view with) const {
    std::vector<std::string> found;
    std::istringstream log(daemon_->log());
    for (std::string line; std::getline(log, line);)
      if (line.find(with) != std::string::npos) found.push_back(line);
    return found;
  }
  testing::AssertionResult logs(std::string_view text) const {
    if (eventually([&] { return !log_lines(text).empty(); }, kLong)) return testing::AssertionSuccess();
    return testing::AssertionFailure() << "no '" << text << "' in:\n" << daemon_->log();
  }
};

TEST_F(DaemonTrunks, ATargetThatAppearsLateIsConnectedAndOneThatGoesIsConnectedAgain) {
  const Address target = fresh_address();
  ASSERT_NO_FATAL_FAILURE(launch(config(target)));
  ASSERT_TRUE(logs("connecting again"));
  {
    const auto listener = TcpListener::bind(target);
    ASSERT_TRUE(listener) << listener.error().what;
    const auto stream = accept_tls(*listener);
    ASSERT_NE(stream, nullptr) << daemon_->log();
    const Status ready = daemon_->wait_ready();
    ASSERT_TRUE(ready) << ready.error().what;
  }
  const Status down = daemon_->wait_status([](const Json& now) { return now["trunks"][0]["connections"] == 0; });
  ASSERT_TRUE(down) << down.error().what;
  const auto listener = TcpListener::bind(target);
  ASSERT_TRUE(listener) << listener.error().what;
  const auto stream = accept_tls(*listener);
  ASSERT_NE(stream, nullptr) << daemon_->log();
  const Status ready = daemon_->wait_ready();
  EXPECT_TRUE(ready) << ready.error().what;
}

TEST_F(DaemonTrunks, AnotherNameInTheCertificateIsRefused) {
  auto listener = TcpListener::bind(fresh_address());
  ASSERT_TRUE(listener);
  ASSERT_NO_FATAL_FAILURE(launch(config(listener->address(), "other.test")));
  auto socket = listener->accept(kLong);
  ASSERT_TRUE(socket) << daemon_->log();
  listener = fail("closed: there is one attempt");
  // With TLS 1.3 the client may refuse after the server is done: reading shows it.
  auto stream = TlsStream::accept(std::move(*socket), as_pbx(), kLong);
  if (stream) {
    EXPECT_FALSE((*stream)->read_some(kLong));
  }
  ASSERT_TRUE(logs("connecting again"));
  const auto lines = log_lines(" failed: ");
  ASSERT_THAT(lines, SizeIs(1)) << daemon_->log();
  EXPECT_THAT(lines[0], AllOf(HasSubstr("'pbx'"), HasSubstr("pbx.test"), HasSubstr("'other.test'"),
                              HasSubstr("trunk.verify_name")));
}

TEST_F(DaemonTrunks, AnUnknownAuthorityIsRefused) {
  auto listener = TcpListener::bind(fresh_address());
  ASSERT_TRUE(listener);
  ASSERT_NO_FATAL_FAILURE(launch(config(listener->address())));
  auto socket = listener->accept(kLong);
  ASSERT_TRUE(socket) << daemon_->log();
  listener = fail("closed: there is one attempt");
  TlsOptions stranger = as_pbx();
  stranger.certificate = certificates().stranger.certificate;
  stranger.key = certificates().stranger.key;
  auto stream = TlsStream::accept(std::move(*socket), stranger, kLong);
  if (stream) {
    EXPECT_FALSE((*stream)->read_some(kLong));
  }
  ASSERT_TRUE(logs("connecting again"));
  const auto lines = log_lines(" failed: ");
  ASSERT_THAT(lines, SizeIs(1)) << daemon_->log();
  EXPECT_THAT(lines[0], AllOf(HasSubstr("'pbx'"), HasSubstr("unknown CA"), HasSubstr("'trunk.ca'")));
}

TEST_F(DaemonTrunks, AMissingOrStrangeClientCertificateIsRefused) {
  ASSERT_NO_FATAL_FAILURE(start());
  TlsOptions without = as_carrier();
  without.certificate = without.key = "";
  TlsOptions stranger = as_carrier();
  stranger.certificate = certificates().stranger.certificate;
  stranger.key = certificates().stranger.key;
  for (const TlsOptions& options : {without, stranger}) {
    auto stream = TlsStream::connect(edge_tls_, options, kLong);
    if (!stream) continue;
    const auto end = (*stream)->read_some(kLong);
    EXPECT_FALSE(end) << "an alert was expected";
  }
  ASSERT_TRUE(logs("'listen.verify_client'"));
  ASSERT_TRUE(logs("'listen.ca'"));
  EXPECT_THAT(log_lines(" failed: "), SizeIs(2)) << daemon_->log();
  EXPECT_THAT(of_trunk(status(), "carrier"), SizeIs(0));
}

TEST_F(DaemonTrunks, ACertificateOfAnotherNameIsNoTrunk) {
  ASSERT_NO_FATAL_FAILURE(start());
  TlsOptions options = as_carrier();
  options.certificate = certificates().pbx.certificate;
  options.key = certificates().pbx.key;
  auto stream = call_in(options);
  ASSERT_NE(stream, nullptr);
  SipStream peer(std::move(stream));
  EXPECT_TRUE(answers(peer, options_to_us(), 200));
  EXPECT_THAT(of_trunk(status(), "carrier"), SizeIs(0));
}

// ---- configurations

class DaemonConfig : public DaemonTrunks {
 protected:
  // Starts ktrunkd, which must end with exit status 1, and gives its output.
  std::string refused(const std::string& text, const std::string& control = "") {
    auto daemon = Daemon::launch({.config = text, .ktrunk_lines = "", .control = control, .env = {}, .timeout = kLong});
    EXPECT_TRUE(daemon) << daemon.error().what;
    if (!daemon) return {};
    daemon_ = std::move(*daemon);
    const auto exit = daemon_->process().wait(kLong);
    EXPECT_TRUE(exit) << "it runs\n" << daemon_->log();
    if (exit) {
      EXPECT_EQ(exit->code, 1) << exit_text(*exit);
    }
    EXPECT_TRUE(eventually([&] { return daemon_->process().others_in_group().empty(); }, kLong));
    return daemon_->log();
  }
};

TEST_F(DaemonConfig, AnUnknownKeyIsNamed) {
  const std::string log = refused("[[listen]]\ntransport = \"tcp\"\naddress = \"127.0.0.1:5060\"\nadress = \"x\"\n");
  EXPECT_THAT(log, AllOf(HasSubstr(daemon_->config_file() + ":"), HasSubstr("listen[0].adress"), HasSubstr("address")));
}

TEST_F(DaemonConfig, APortInUseIsNamed) {
  const auto taken = TcpListener::bind(fresh_address());
  ASSERT_TRUE(taken);
  const std::string address = taken->address().text();
  const std::string log =
      refused(fmt::format("[[listen]]\nname = \"busy\"\ntransport = \"tcp\"\naddress = \"{}\"\n", address));
  EXPECT_THAT(log, AllOf(HasSubstr("listen 'busy'"), HasSubstr(address), HasSubstr("EADDRINUSE")));
}

TEST_F(DaemonConfig, WhatLiesInTheControlSocketsPlaceIsLeftAlone) {
  const TempFolder folder;
  const std::string listener = fmt::format("[[listen]]\ntransport = \"tcp\"\naddress = \"{}\"\n", edge_tcp_.text());
  const std::string file = folder.write("precious", "not to be lost");
  const std::string directory = folder.file("folder");
  std::filesystem::create_directory(directory);
  const std::string link = folder.file("link");
  std::filesystem::create_symlink(file, link);
  for (const std::string& path : {file, directory, link}) {
    const std::string log = refused(listener, path);
    EXPECT_THAT(log, AllOf(HasSubstr(path), HasSubstr("no socket"), HasSubstr("ktrunk.control")));
  }
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_TRUE(std::filesystem::is_directory(directory));
  EXPECT_EQ(std::filesystem::file_size(file), 14u);
}

TEST_F(DaemonConfig, AControlSocketThatCannotBeMadeIsNamed) {
  const std::string listener = fmt::format("[[listen]]\ntransport = \"tcp\"\naddress = \"{}\"\n", edge_tcp_.text());
  const std::string log = refused(listener, "/proc/none/control.sock");
  EXPECT_THAT(log, AllOf(HasSubstr("/proc/none/control.sock"), HasSubstr("ENOENT"), HasSubstr("ktrunk.control")));
}

// It serves with those that it may have, and says who wants more and where they are allowed.
TEST_F(DaemonConfig, TooFewOpenFilesAreNamed) {
  const TempFolder folder;
  const std::string control = folder.file("control.sock");
  const std::string file = folder.write(
      "k.toml",
      fmt::format("[ktrunk]\nworkers = 1\ncontrol = \"{}\"\n[limits]\nmax_connections = 700\nhandshakes = 300\n"
                  "[[listen]]\ntransport = \"tcp\"\naddress = \"{}\"\n",
                  control, edge_tcp_.text()));
  std::vector<std::string> command = {"prlimit", "--nofile=400:1000", built_program("ktrunkd"), "--config", file};
  if (::geteuid() == 0) command.insert(command.begin(), {"setpriv", "--bounding-set=-sys_resource"});
  auto process = Process::start({.argv = command, .env = {}, .output = folder.file("log")});
  ASSERT_TRUE(process) << process.error().what;
  EXPECT_TRUE(eventually([&] { return cli::ask(control, "status").has_value(); }, kLong)) << process->output();
  EXPECT_THAT(process->output(), AllOf(HasSubstr("may open 1000 files"), HasSubstr("limits.max_connections = 700"),
                                       HasSubstr("limits.handshakes = 300"), HasSubstr("LimitNOFILE=")));
  ASSERT_TRUE(process->signal(SIGTERM));
  const auto exit = process->wait(kLong);
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->code, 0) << exit_text(*exit) << process->output();
}

TEST_F(DaemonConfig, AMissingFileIsNamed) {
  const std::string log = refused(
      fmt::format("[[listen]]\ntransport = \"tls\"\naddress = \"{}\"\ncertificate = \"none.pem\"\nkey = \"none.key\"\n",
                  edge_tls_.text()));
  EXPECT_THAT(
      log, AllOf(HasSubstr(daemon_->config_file() + ":"), HasSubstr("listen[0].certificate"), HasSubstr("none.pem")));
}

TEST_F(DaemonConfig, AKeyOfAnotherCertificateIsNamed) {
  const Certificates& files = certificates();
  const std::string log = refused(fmt::format(
      "[[listen]]\nname = \"edge\"\ntransport = \"tls\"\naddress = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
      edge_tls_.text(), files.edge.certificate, files.pbx.key));
  EXPECT_THAT(log, AllOf(ContainsRegex(daemon_->config_file() + ":[0-9]+: error: "), HasSubstr(files.pbx.key),
                         HasSubstr("does not belong")));
}

}  // namespace
}  // namespace ktrunk::test
