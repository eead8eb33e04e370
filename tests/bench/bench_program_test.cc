// ktrunk-bench, whole: load and handshakes against ktrunkd between both ends, the floor by itself; what they write as
// JSON; what they say of wrong use and of servers that are not there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/certificates.h"
#include "support/daemon.h"
#include "support/process.h"
#include "support/tls_peer.h"

namespace ktrunk::test {
namespace {

using Json = nlohmann::ordered_json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr milliseconds kLong{120'000};

struct Ran {
  int code = -1;
  std::string output;
  Json json;
};

class Bench : public testing::Test {
 protected:
  Ran run(std::vector<std::string> arguments) {
    const std::string json = folder_.file("result.json");
    std::filesystem::remove(json);
    std::filesystem::remove(folder_.path() / "out");
    arguments.insert(arguments.begin(), built_program("ktrunk-bench"));
    arguments.insert(arguments.end(), {"--json", json});
    auto process = Process::start({.argv = arguments, .output = folder_.path() / "out"});
    if (!process) return {.output = process.error().what};
    const auto exit = process->wait(kLong);
    Ran ran{.code = exit ? exit->code : -1, .output = process->output()};
    if (std::ifstream file(json); file) ran.json = Json::parse(file, nullptr, false);
    return ran;
  }

  // ktrunkd between the trunks "carrier" and "pbx", which the load generator plays.
  void start_daemon(const std::string& limits = "") {
    const CertificateAuthority ca(folder_.path(), "ca");
    const CertificateFiles edge = ca.issue({.name = "edge", .dns = {"edge.test"}});
    const CertificateFiles carrier = ca.issue({.name = "carrier", .dns = {"carrier.test"}});
    const CertificateFiles pbx = ca.issue({.name = "pbx", .dns = {"pbx.test"}});
    edge_ = free_address();
    do {
      pbx_ = free_address();
    } while (pbx_ == edge_);
    auto daemon = Daemon::launch(
        {.config = fmt::format(R"(
[limits]
handshake_rate = 100000
{5}

[[listen]]
transport = "tls"
address = "{0}"
certificate = "{1}"
key = "{2}"
ca = "{3}"
verify_client = "require"

[[trunk]]
name = "carrier"
verify_name = "carrier.test"

[[trunk]]
name = "pbx"
targets = ["tls:{4}"]
verify_name = "pbx.test"
ca = "{3}"
certificate = "{1}"
key = "{2}"

[[route]]
from_trunk = "carrier"
to = "pbx"
)",
                               edge_.text(), edge.certificate, edge.key, ca.file(), pbx_.text(), limits)});
    ASSERT_TRUE(daemon) << daemon.error().what;
    daemon_ = std::move(*daemon);
    ASSERT_TRUE(daemon_->wait_status([](const Json& now) { return now["state"] == "running"; }));
    connect_ = {"--connect", "tls:" + edge_.text(), "--ca",          ca.file(),  "--cert", carrier.certificate,
                "--key",     carrier.key,           "--verify-name", "edge.test"};
    answer_ = {"--answer", "tls:" + pbx_.text(), "--answer-cert", pbx.certificate, "--answer-key",
               pbx.key,    "--answer-ca",        ca.file()};
  }

  void TearDown() override {
    if (daemon_ != nullptr) {
      EXPECT_TRUE(daemon_->stop());
    }
  }

  // The load command with both ends.
  Ran load(const std::vector<std::string>& more, const std::string& duration = "500ms") {
    std::vector<std::string> arguments = {"load", "--duration", duration, "--warmup", "100ms", "--set-up", "90s"};
    arguments.insert(arguments.end(), connect_.begin(), connect_.end());
    arguments.insert(arguments.end(), answer_.begin(), answer_.end());
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }

  static void expect_all_answered(const Ran& ran) {
    ASSERT_EQ(ran.code, 0) << ran.output;
    ASSERT_TRUE(ran.json.is_object()) << ran.output;
    EXPECT_GT(ran.json["caller"]["answered"], 0) << ran.output;
    for (const char* bad : {"failed", "timeouts", "lost", "unexpected"})
      EXPECT_EQ(ran.json["caller"][bad], 0) << bad << "\n" << ran.output;
  }

  TempFolder folder_;
  Address edge_;
  Address pbx_;
  std::unique_ptr<Daemon> daemon_;
  std::vector<std::string> connect_;
  std::vector<std::string> answer_;
};

TEST_F(Bench, LoadMeasuresMessagesThroughTheDaemon) {
  ASSERT_NO_FATAL_FAILURE(start_daemon());
  const Ran ran = load({"--connections", "2", "--concurrency", "8", "--daemon-control", daemon_->control_socket()});
  ASSERT_NO_FATAL_FAILURE(expect_all_answered(ran));
  EXPECT_EQ(ran.json["program"], "ktrunk-bench");
  EXPECT_EQ(ran.json["command"], "load");
  EXPECT_EQ(ran.json["options"]["role"], "both");
  EXPECT_EQ(ran.json["options"]["message_bytes"], 600);
  EXPECT_EQ(ran.json["connections"]["up"], 2);
  EXPECT_EQ(ran.json["tls"]["version"], "TLS 1.3");
  for (const char* key : {"count", "min", "mean", "p50", "p90", "p99", "p99_9", "max"})
    EXPECT_TRUE(ran.json["latency_us"][key].is_number()) << key;
  EXPECT_LE(ran.json["latency_us"]["p50"], ran.json["latency_us"]["max"]);
  EXPECT_GT(ran.json["cpu"]["total_ns"], 0);
  // The supervisor, a handshake process and two workers.
  EXPECT_EQ(ran.json["cpu"]["processes"].size(), 4u);
  EXPECT_THAT(ran.output, AllOf(HasSubstr("Latency"), HasSubstr("CPU of worker/1")));
}

TEST_F(Bench, LoadMakesCallsAtARate) {
  ASSERT_NO_FATAL_FAILURE(start_daemon());
  const Ran ran = load({"--calls", "--rate", "50", "--tls", "1.2"});
  ASSERT_NO_FATAL_FAILURE(expect_all_answered(ran));
  EXPECT_EQ(ran.json["tls"]["version"], "TLS 1.2");
  EXPECT_GT(ran.json["bye_latency_us"]["count"], 0);
  // INVITE, ACK and BYE of each call; INVITE is answered with three responses, BYE with one.
  EXPECT_GT(ran.json["callee"]["responses"], ran.json["callee"]["requests"]);
}

TEST_F(Bench, LoadUsesOpensslForItsRecordsWhenAsked) {
  ASSERT_NO_FATAL_FAILURE(start_daemon());
  const Ran ran = load({"--record-layer", "user", "--cipher", "TLS_CHACHA20_POLY1305_SHA256", "--method", "OPTIONS"});
  ASSERT_NO_FATAL_FAILURE(expect_all_answered(ran));
  EXPECT_EQ(ran.json["tls"]["records"], "user");
  EXPECT_EQ(ran.json["tls"]["cipher"], "TLS_CHACHA20_POLY1305_SHA256");
}

TEST_F(Bench, LoadInTwoProcesses) {
  const CertificateAuthority ca(folder_.path(), "ca");
  const CertificateFiles files = ca.issue({.name = "callee", .dns = {"callee.test"}});
  const std::string at = "tls:" + free_address().text();
  auto callee =
      Process::start({.argv = {built_program("ktrunk-bench"), "load", "--role", "callee", "--answer", at,
                               "--answer-cert", files.certificate, "--answer-key", files.key, "--duration", "0s"},
                      .output = folder_.path() / "callee"});
  ASSERT_TRUE(callee) << callee.error().what;
  Ran ran;
  ASSERT_TRUE(eventually(
      [&] {
        ran = run({"load", "--connect", at, "--ca", ca.file(), "--verify-name", "callee.test", "--duration", "300ms",
                   "--warmup", "0s"});
        return ran.code == 0;
      },
      kLong))
      << ran.output;
  expect_all_answered(ran);
  ASSERT_TRUE(callee->signal(SIGINT));
  const auto exit = callee->wait(kLong);
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->code, 0) << callee->output();
  EXPECT_THAT(callee->output(), HasSubstr("Answering side"));
}

TEST_F(Bench, LoadCountsRefusals) {
  ASSERT_NO_FATAL_FAILURE(start_daemon());
  // Nobody is there on the trunk's side.
  std::vector<std::string> arguments = {"load", "--duration", "300ms", "--warmup", "0s", "--rate", "100"};
  arguments.insert(arguments.end(), connect_.begin(), connect_.end());
  const Ran ran = run(arguments);
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.output, HasSubstr("no request was answered"));
  ASSERT_TRUE(ran.json.is_object());
  const Json& caller = ran.json["caller"];
  EXPECT_GT(caller["failed"].get<int>() + caller["timeouts"].get<int>(), 0);
  EXPECT_EQ(ran.json["caller"]["answered"], 0);
}

TEST_F(Bench, LoadBesidePeersThatReadNothing) {
  ASSERT_NO_FATAL_FAILURE(start_daemon("max_queue_bytes = 131072"));
  const Ran ran = load(
      {"--connections", "5", "--rate", "100", "--stalled", "2", "--stalled-rate", "2000", "--message-bytes", "4000"},
      "3s");
  ASSERT_NO_FATAL_FAILURE(expect_all_answered(ran));
  EXPECT_FALSE(ran.json.contains("stalled"));
  const Json& with = ran.json["with_stalled"];
  EXPECT_EQ(with["connections"]["up"], 5);
  EXPECT_GT(with["caller"]["answered"], 0);
  EXPECT_EQ(with["caller"]["lost"], 0) << ran.output;
  EXPECT_EQ(with["stalled"]["peers"], 2);
  EXPECT_GT(with["stalled"]["requests"], 0);
  EXPECT_GT(ran.json["p99_ratio"], 0);
  EXPECT_THAT(ran.output, AllOf(HasSubstr("Without stalled peers"), HasSubstr("p99 with them")));
}

TEST_F(Bench, HandshakesFreshAndResumed) {
  ASSERT_NO_FATAL_FAILURE(start_daemon());
  for (const bool resume : {false, true}) {
    std::vector<std::string> arguments = {
        "handshakes", "--duration", "1s", "--warmup", "200ms", "--daemon-control", daemon_->control_socket()};
    arguments.insert(arguments.end(), connect_.begin(), connect_.end());
    if (resume) arguments.push_back("--resume");
    const Ran ran = run(arguments);
    ASSERT_EQ(ran.code, 0) << ran.output;
    EXPECT_GT(ran.json["handshakes"], 0);
    EXPECT_EQ(ran.json["failed"], 0) << ran.output;
    EXPECT_GT(ran.json["cpu"]["ns_per_handshake"], 0);
    EXPECT_EQ(ran.json["resumed"] > 0, resume);
  }
}

TEST_F(Bench, FloorMeasuresItself) {
  const Ran ran = run({"floor", "--duration", "300ms", "--warmup", "100ms", "--handshake-duration", "500ms"});
  ASSERT_EQ(ran.code, 0) << ran.output;
  const Json& forwarding = ran.json["forwarding"];
  EXPECT_GT(forwarding["cpu"]["ns_per_message"], 0);
  EXPECT_EQ(forwarding["caller"]["failed"], 0);
  EXPECT_EQ(forwarding["plain_tcp"], !ran.json["kernel_tls"]);
  // What is not encrypted is not passed off as if it were.
  EXPECT_EQ(ran.output.contains("NOTHING ENCRYPTED"), forwarding["plain_tcp"]);
  EXPECT_GT(ran.json["handshakes"]["full"]["cpu"]["ns_per_handshake"], 0);
  EXPECT_EQ(ran.json["handshakes"]["full"]["resumed"], 0);
  EXPECT_GT(ran.json["handshakes"]["resumed"]["resumed"], 0);
}

TEST_F(Bench, FloorWithOpensslAndClientCertificates) {
  const Ran ran = run({"floor", "--record-layer", "user", "--mutual", "--key-type", "rsa", "--tls", "1.2", "--duration",
                       "200ms", "--warmup", "0s", "--handshake-duration", "300ms", "--connections", "3"});
  ASSERT_EQ(ran.code, 0) << ran.output;
  EXPECT_EQ(ran.json["forwarding"]["tls"]["version"], "TLS 1.2");
  EXPECT_EQ(ran.json["forwarding"]["tls"]["records"], "user");
  EXPECT_EQ(ran.json["forwarding"]["connections"]["up"], 3);
  EXPECT_TRUE(ran.json["handshakes"]["full"]["options"]["client_certificate"]);
}

TEST_F(Bench, FloorOfOneKindOnly) {
  const Ran messages =
      run({"floor", "--rate", "100", "--duration", "300ms", "--warmup", "0s", "--handshake-duration", "0s"});
  ASSERT_EQ(messages.code, 0) << messages.output;
  EXPECT_GT(messages.json["forwarding"]["caller"]["answered"], 0);
  EXPECT_FALSE(messages.json.contains("handshakes"));
  const Ran handshakes = run({"floor", "--duration", "0s", "--handshake-duration", "300ms"});
  ASSERT_EQ(handshakes.code, 0) << handshakes.output;
  EXPECT_FALSE(handshakes.json.contains("forwarding"));
  EXPECT_GT(handshakes.json["handshakes"]["full"]["handshakes"], 0);
}

TEST_F(Bench, IdleConnectionsAreKeptAndTheirMemoryIsCounted) {
  ASSERT_NO_FATAL_FAILURE(start_daemon());
  std::vector<std::string> arguments = {"idle",
                                        "--connections",
                                        "5",
                                        "--hold",
                                        "200ms",
                                        "--set-up",
                                        "90s",
                                        "--daemon-control",
                                        daemon_->control_socket()};
  arguments.insert(arguments.end(), connect_.begin(), connect_.end());
  const Ran ran = run(arguments);
  ASSERT_EQ(ran.code, 0) << ran.output;
  EXPECT_EQ(ran.json["connections"]["up"], 5);
  EXPECT_EQ(ran.json["connections"]["ended"], 0);
  EXPECT_EQ(ran.json["tls"]["version"], "TLS 1.3");
  EXPECT_GT(ran.json["memory"]["before_kib"], 0);
  EXPECT_GE(ran.json["memory"]["octets_per_connection"], 0);
  EXPECT_THAT(ran.output, AllOf(HasSubstr("5 of 5"), HasSubstr("octets a connection")));
}

TEST_F(Bench, IdleSaysSoWhenTheServerEndsThem) {
  ASSERT_NO_FATAL_FAILURE(start_daemon());
  const std::string json = folder_.file("idle.json");
  std::vector<std::string> arguments = {built_program("ktrunk-bench"), "idle", "--connections", "3", "--json", json};
  arguments.insert(arguments.end(), connect_.begin(), connect_.end());
  auto idle = Process::start({.argv = arguments, .output = folder_.path() / "idle"});
  ASSERT_TRUE(idle) << idle.error().what;
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(json) && std::filesystem::file_size(json) > 0; },
                         milliseconds(90'000)))
      << idle->output();
  EXPECT_TRUE(daemon_->stop());
  daemon_.reset();
  const auto exit = idle->wait(kLong);
  ASSERT_TRUE(exit) << idle->output();
  EXPECT_EQ(exit->code, 1) << idle->output();
  EXPECT_THAT(idle->output(), HasSubstr("3 connections ended while they were held"));
}

TEST_F(Bench, DesignsSideBySide) {
  const Ran ran = run({"designs", "--workers", "2", "--duration", "300ms", "--stall", "200ms", "--rate", "100"});
  ASSERT_EQ(ran.code, 0) << ran.output;
  ASSERT_EQ(ran.json["designs"].size(), 4u);
  for (const Json& design : ran.json["designs"]) {
    SCOPED_TRACE(design.dump());
    const std::string name = design["design"];
    if (design.contains("not_measured")) {
      EXPECT_EQ(name, "kernel");
      EXPECT_FALSE(ran.json["kernel_tls"]);
      continue;
    }
    EXPECT_EQ(design["connections"], name == "own" ? 2 : 1);
    EXPECT_EQ(design["processes"], name == "lock" ? 1 : 3);
    EXPECT_GT(design["messages_per_s"], 0);
    EXPECT_GT(design["cpu_ns_per_message"], 0);
    EXPECT_GT(design["pss_kib"], 0);
    EXPECT_GT(design["latency_us"]["count"], 0);
    // Whatever happens to senders, what arrives is whole and in order.
    EXPECT_TRUE(design["stalled_peer"]["recovered"]);
    for (const Json& kill : design["kills"]) EXPECT_EQ(kill["broken_streams"], 0);
    // A worker's death takes its own connection with it, where it has one; the owner's and the one process's all.
    const Json& worker = design["kills"].front();
    EXPECT_EQ(worker["connections_after"], name == "lock" ? 0 : 1);
    if (name == "owner") {
      EXPECT_EQ(design["kills"].back()["connections_after"], 0);
    }
  }
}

TEST_F(Bench, SaysThatNobodyIsThere) {
  const std::string nowhere = free_address().text();
  const Ran load = run({"load", "--connect", "tcp:" + nowhere});
  EXPECT_EQ(load.code, 1);
  EXPECT_THAT(load.output, AllOf(HasSubstr("no connection came up to tcp:" + nowhere), HasSubstr("ECONNREFUSED")));
  const Ran handshakes = run({"handshakes", "--connect", "tls:" + nowhere, "--duration", "200ms", "--warmup", "0s"});
  EXPECT_EQ(handshakes.code, 1);
  EXPECT_THAT(handshakes.output, HasSubstr("ECONNREFUSED"));
  const Ran idle = run({"idle", "--connect", "tcp:" + nowhere, "--connections", "2"});
  EXPECT_EQ(idle.code, 1);
  EXPECT_THAT(idle.output, HasSubstr("no connection came up to " + nowhere));
  const Ran answer = run({"load", "--answer", "tcp:" + nowhere, "--set-up", "200ms"});
  EXPECT_EQ(answer.code, 1);
  EXPECT_THAT(answer.output, HasSubstr("nobody connected"));
}

TEST_F(Bench, ExplainsWrongUse) {
  const struct {
    std::vector<std::string> arguments;
    std::string says;
  } cases[] = {
      {{"load"}, "give --connect, --answer"},
      {{"load", "--connect", "127.0.0.1:5061"}, "expected tls:HOST:PORT"},
      {{"load", "--connect", "tls:127.0.0.1"}, "no port"},
      {{"load", "--connect", "tls:127.0.0.1:0"}, "not a port"},
      {{"load", "--connect", "tls:127.0.0.1:99999"}, "not a port"},
      {{"load", "--connect", "tls::5061"}, "no host"},
      {{"load", "--role", "callee", "--connect", "tcp:127.0.0.1:1"}, "--role callee: give --answer"},
      {{"load", "--connect", "tcp:127.0.0.1:1", "--calls", "--messages"}, "exclude each other"},
      {{"load", "--connect", "tcp:127.0.0.1:1", "--duration", "5"}, "--duration 5"},
      {{"load", "--connect", "tcp:127.0.0.1:1", "--rate", "-3"}, "--rate"},
      {{"load", "--connect", "tcp:127.0.0.1:1", "--connections", "0"}, "--connections"},
      {{"load", "--connect", "tcp:127.0.0.1:1", "--stalled", "1"}, "give --connect and --rate"},
      {{"load", "--connect", "tcp:127.0.0.1:1", "--message-bytes", "70000"}, "--message-bytes"},
      {{"load", "--connect", "tcp:127.0.0.1:1", "--pids", "1;2"}, "--pids"},
      {{"load", "--connect", "tcp:127.0.0.1:1", "--daemon-control", "/nonexistent"}, "/nonexistent"},
      {{"load", "--answer", "tls:127.0.0.1:1"}, "--answer-cert"},
      {{"load", "--connect", "tls:127.0.0.1:1", "--ca", "/nonexistent"}, "/nonexistent"},
      {{"load", "--connect", "tls:127.0.0.1:1", "--tls", "1.1"}, "--tls"},
      {{"handshakes", "--connect", "tcp:127.0.0.1:1"}, "tls:HOST:PORT"},
      {{"handshakes"}, "--connect"},
      {{"floor", "--cert", "x"}, "--key"},
      {{"floor", "--duration", "0s", "--handshake-duration", "0s"}, "nothing is left to be measured"},
      {{"idle", "--connections", "3"}, "--connect"},
      {{"designs", "--workers", "0"}, "--workers"},
      {{"designs", "--design", "magic"}, "--design"},
      {{"designs", "--stall", "0s"}, "--stall"},
      {{"nonsense"}, "subcommand is required"},
  };
  for (const auto& [arguments, says] : cases) {
    const Ran ran = run(arguments);
    EXPECT_NE(ran.code, 0) << says;
    EXPECT_THAT(ran.output, HasSubstr(says));
    EXPECT_TRUE(ran.json.is_null());
  }
}

}  // namespace
}  // namespace ktrunk::test
