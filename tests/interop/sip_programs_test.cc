// SIP programs against ktrunkd: sipsak, baresip, SIPp.
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "interop/interop_fixture.h"
#include "interop/sipp.h"
#include "support/scale.h"

namespace ktrunk::test {
namespace {

using testing::IsEmpty;
using testing::SizeIs;
using testing::StartsWith;

class SipPrograms : public InteropTest {
 protected:
  // As start(), with a UAS over TLS behind the trunk "pbx".
  void start_with_uas(const std::string& tables = "") {
    auto listener = TcpListener::bind(free_address());
    ASSERT_TRUE(listener) << listener.error().what;
    uas_.emplace(std::move(*listener), as_pbx());
    // Of two routes the first that fits wins, and the one to "pbx" takes all.
    start(tables + pbx_at(uas_->address()));
  }
  std::optional<Uas> uas_;
};

// --- sipsak

// sipsak ends with 0 when a final 2xx has come.
testing::AssertionResult sipsak(const std::vector<std::string>& options) {
  std::vector<std::string> command = {"sipsak", "-vvv"};
  std::ranges::copy(options, std::back_inserter(command));
  const auto program = Conversation::start(command);
  if (program == nullptr) return testing::AssertionFailure();
  return program->ends_with(0);
}

// The port is an option of its own: of a URI's, sipsak 0.9.8 cuts the fifth digit off, and it looks for
// "ADDRESS:PORT" among the names in a certificate.
std::vector<std::string> to_us(const std::string& transport, const Address& edge) {
  return {"-E", transport, "-r", std::to_string(edge.port()), "-s", "sip:" + edge.ip()};
}

TEST_F(SipPrograms, SipsakAsksUs) {
  KTRUNK_REQUIRE(missing_program("sipsak", "sipsak"));
  ASSERT_NO_FATAL_FAILURE(start());
  EXPECT_TRUE(sipsak(to_us("udp", edge_udp_)));
  EXPECT_TRUE(sipsak(to_us("tcp", edge_tcp_)));
}

TEST_F(SipPrograms, SipsakAsksUsOverTls) {
  KTRUNK_REQUIRE(missing_program("sipsak", "sipsak"));
  const auto version = Conversation::start({"sipsak", "-V"});
  ASSERT_NE(version, nullptr);
  if (!version->heard("TLS_SUPPORT")) GTEST_SKIP() << "this sipsak is built without TLS";
  ASSERT_NO_FATAL_FAILURE(start());
  // sipsak 0.9.8 takes a TLS 1.3 session ticket for the end of the stream, so it gets none.
  std::vector<std::string> command = to_us("tls", edge_bare_);
  command.push_back("--tls-ca-cert=" + certificates().ca.file());
  EXPECT_TRUE(sipsak(command));
  const auto status = daemon_->status();
  ASSERT_TRUE(status) << status.error().what;
  EXPECT_EQ((*status)["handshakes"]["accepted"], 1);
}

TEST_F(SipPrograms, SipsakAsksBehindTrunks) {
  KTRUNK_REQUIRE(missing_program("sipsak", "sipsak"));
  auto datagrams = SipDatagrams::bind(free_address());
  ASSERT_TRUE(datagrams) << datagrams.error().what;
  const Uas by_udp(std::move(*datagrams));
  ASSERT_NO_FATAL_FAILURE(start_with_uas(fmt::format(R"(
[[trunk]]
name = "pbx-udp"
targets = ["udp:{}"]
listen = "edge-udp"

[[route]]
host = "udp.test"
to = "pbx-udp"
)",
                                                     by_udp.address().text())));
  EXPECT_TRUE(sipsak({"-E", "udp", "-p", edge_udp_.text(), "-s", "sip:bob@udp.test"}));
  EXPECT_TRUE(sipsak({"-E", "tcp", "-p", edge_tcp_.text(), "-s", "sip:bob@udp.test"}));
  EXPECT_TRUE(sipsak({"-E", "udp", "-p", edge_udp_.text(), "-s", "sip:bob@tls.test"}));
  EXPECT_TRUE(sipsak({"-E", "tcp", "-p", edge_tcp_.text(), "-s", "sip:bob@tls.test"}));
  const auto check = [](const std::vector<SipMessage>& requests, const std::string& via, const std::string& uri) {
    ASSERT_THAT(requests, SizeIs(testing::Ge(2u)));  // over UDP, sipsak repeats what is not answered soon
    for (const SipMessage& request : requests) {
      EXPECT_EQ(request.start_line, "OPTIONS " + uri + " SIP/2.0");
      EXPECT_THAT(request.header("Via"), StartsWith(via)) << request.text();
      EXPECT_THAT(request.all("Via"), SizeIs(2)) << request.text();
    }
  };
  check(by_udp.requests(), "SIP/2.0/UDP " + edge_udp_.text(), "sip:bob@udp.test");
  check(uas_->requests(), "SIP/2.0/TLS " + edge_tls_.text(), "sip:bob@tls.test");
  for (const Json& connection : tls_connections("pbx")) EXPECT_TRUE(record_layer_fits(connection));
}

// --- baresip

TEST_F(SipPrograms, BaresipRegistersThroughUs) {
  KTRUNK_REQUIRE(missing_program("baresip", "baresip-core"));
  const std::string modules = "/usr/lib/baresip/modules";
  KTRUNK_REQUIRE(std::filesystem::exists(modules + "/account.so") ? "" : "baresip has no account.so in " + modules);
  ASSERT_NO_FATAL_FAILURE(start_with_uas());
  const TempFolder folder;
  // No sound, no video, no keyboard, no name server, and nothing that listens beyond this machine.
  folder.write("config", fmt::format("poll_method epoll\nnet_interface {0}\nsip_listen {0}:0\nsip_cafile {1}\n"
                                     "module_path {2}\nmodule_tmp account.so\n",
                                     certificates().ip, certificates().ca.file(), modules));
  folder.write("accounts", fmt::format("<sip:alice@registrar.test;transport=tls>;auth_pass=none;regint=60;"
                                       "outbound=\"sip:{};transport=tls\"\n",
                                       edge_tls_.text()));
  const auto phone = Conversation::start({"baresip", "-4", "-s", "-v", "-f", folder.path().string()});
  ASSERT_NE(phone, nullptr);
  // Its trace of messages shows what has reached it; "registered" is nothing that it says without a user interface.
  const auto response = phone->message("SIP/2.0 ");
  ASSERT_TRUE(response) << response.error().what;
  EXPECT_EQ(response->status(), 200);
  EXPECT_EQ(response->method(), "REGISTER");
  EXPECT_THAT(response->all("Via"), SizeIs(1));

  const auto requests = uas_->requests();
  ASSERT_FALSE(requests.empty());
  const SipMessage& request = requests[0];
  EXPECT_EQ(request.method(), "REGISTER");
  EXPECT_THAT(request.request_uri(), StartsWith("sip:registrar.test"));
  EXPECT_THAT(request.header("Via"), StartsWith("SIP/2.0/TLS " + edge_tls_.text()));
  EXPECT_THAT(request.all("Route"), IsEmpty());  // it named us (RFC 3261 16.4)
  EXPECT_THAT(request.header("Contact"), testing::HasSubstr("sip:alice"));
  EXPECT_EQ(response->header("Contact"), request.header("Contact"));
  for (const std::string trunk : {"", "pbx"}) {
    const auto found = tls_connections(trunk);
    ASSERT_THAT(found, SizeIs(1)) << trunk;
    EXPECT_TRUE(record_layer_fits(found[0]));
  }
}

// --- SIPp

class SippCalls : public SipPrograms {
 protected:
  static constexpr int kCalls = 20;

  // As start(), with SIPp's own UAS over TLS behind the trunk "pbx".
  void start_with_sipp(const std::string& path, const std::string& ktrunk_lines = "", unsigned workers = 2) {
    const Address pbx = free_address();
    callee_ = Conversation::start(sipp_command(path, SippTransport::kTls, certificates().pbx, pbx, {"-sn", "uas"}));
    ASSERT_NE(callee_, nullptr);
    start(pbx_at(pbx), ktrunk_lines, workers);
  }
  // As the trunk "carrier", 20 of what the options describe; SIPp ends with 0 when all have succeeded.
  testing::AssertionResult all_succeed(const std::string& path, const std::vector<std::string>& what) {
    const TempFolder folder;
    std::vector<std::string> options = {
        edge_tls_.text(), "-m",   std::to_string(kCalls), "-r",          "10",
        "-timeout",       "100s", "-trace_err",           "-error_file", folder.file("errors")};
    std::ranges::copy(what, std::back_inserter(options));
    const auto caller =
        Conversation::start(sipp_command(path, SippTransport::kTls, certificates().carrier, free_address(), options));
    if (caller == nullptr) return testing::AssertionFailure();
    auto result = caller->ends_with(0);
    if (std::ifstream errors(folder.file("errors")); !result && errors) result << errors.rdbuf();
    return result;
  }

 private:
  std::unique_ptr<Conversation> callee_;
};

TEST_F(SippCalls, Options) {
  const auto path = find_sipp();
  KTRUNK_REQUIRE(path ? "" : path.error().what);
  ASSERT_NO_FATAL_FAILURE(start());
  const TempFolder folder;
  const std::string scenario = folder.write("options.xml", R"(<?xml version="1.0" encoding="us-ascii"?>
<scenario name="options">
  <send><![CDATA[
OPTIONS sip:[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
Max-Forwards: 70
From: <sip:sipp@carrier.test>;tag=[call_number]
To: <sip:[remote_ip]>
Call-ID: [call_id]
CSeq: 1 OPTIONS
Content-Length: 0

]]></send>
  <recv response="200"/>
</scenario>
)");
  EXPECT_TRUE(all_succeed(*path, {"-sf", scenario}));
}

TEST_F(SippCalls, Invite) {
  const auto path = find_sipp();
  KTRUNK_REQUIRE(path ? "" : path.error().what);
  ASSERT_NO_FATAL_FAILURE(start_with_sipp(*path));
  EXPECT_TRUE(all_succeed(*path, {"-sn", "uac"}));
  const auto found = tls_connections("pbx");
  ASSERT_THAT(found, SizeIs(1));
  EXPECT_TRUE(record_layer_fits(found[0]));
  int sent = 0;
  for (const Json& by_worker : found[0]["messages_sent"]) sent += by_worker.get<int>();
  EXPECT_EQ(sent, 3 * kCalls);  // INVITE, ACK, BYE
}

// The last value of a column that counts from the start, in what SIPp's -trace_stat writes.
std::optional<std::size_t> counted(const std::string& file, const std::string& column) {
  const auto cells = [](const std::string& line) {
    std::vector<std::string> all;
    std::stringstream text(line);
    for (std::string cell; std::getline(text, cell, ';');) all.push_back(cell);
    return all;
  };
  std::ifstream lines(file);
  std::string line;
  if (!std::getline(lines, line)) return std::nullopt;
  const auto titles = cells(line);
  const auto at = static_cast<std::size_t>(std::ranges::find(titles, column) - titles.begin());
  std::optional<std::size_t> last;
  while (std::getline(lines, line)) {
    const auto values = cells(line);
    if (at < values.size()) last = std::stoul(values[at]);
  }
  return last;
}

// A call fails when one of its messages was in a worker's hand as that was killed, and those are in quarantine.
TEST_F(SippCalls, WhileWorkersAreKilled) {
  constexpr unsigned kWorkers = 3;
  const auto path = find_sipp();
  KTRUNK_REQUIRE(path ? "" : path.error().what);
  const TempFolder folder;
  const TempFolder quarantine;
  ASSERT_NO_FATAL_FAILURE(
      start_with_sipp(*path, fmt::format("quarantine = \"{}\"\n", quarantine.path().string()), kWorkers));
  ASSERT_TRUE(eventually([this] { return tls_connections("pbx").size() == 1; }, kLong)) << daemon_->log();
  const Json trunk = tls_connections("pbx")[0];

  // As long as that many kills take: one in 150 ms, on the average.
  const unsigned kills = std::max(10U, 300 / scale());
  const std::size_t calls = kills * std::size_t{9};
  auto caller = Process::start(
      {.argv = sipp_command(*path, SippTransport::kTls, certificates().carrier, free_address(),
                            {edge_tls_.text(), "-sn", "uac", "-m", std::to_string(calls), "-r", "60", "-recv_timeout",
                             "20000", "-trace_stat", "-stf", folder.file("statistics"), "-fd", "1s"}),
       .env = {},
       .output = folder.file("output")});
  ASSERT_TRUE(caller) << caller.error().what;
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  unsigned killed = 0;
  while (caller->running()) {
    std::this_thread::sleep_for(milliseconds(random() % 300));
    const pid_t pid = daemon_->pid_of(fmt::format("worker/{}", random() % kWorkers));
    if (pid > 1 && ::kill(pid, SIGKILL) == 0) ++killed;
  }

  const auto succeeded = counted(folder.file("statistics"), "SuccessfulCall(C)");
  const auto failed = counted(folder.file("statistics"), "FailedCall(C)");
  ASSERT_TRUE(succeeded && failed) << caller->output();
  const auto kept =
      static_cast<std::size_t>(std::ranges::distance(std::filesystem::directory_iterator(quarantine.path())));
  fmt::print("{} kills, {} calls, {} failed, {} messages in quarantine\n", killed, *succeeded + *failed, *failed, kept);
  EXPECT_EQ(*succeeded + *failed, calls) << caller->output();
  EXPECT_LE(*failed, kept) << "seed " << seed << "\n" << daemon_->log() << caller->output();
  EXPECT_GT(killed, kills / 10);
  const auto after = tls_connections("pbx");
  ASSERT_THAT(after, SizeIs(1));
  EXPECT_EQ(after[0]["local"], trunk["local"]) << "it is the same connection\n" << daemon_->log();
  EXPECT_TRUE(record_layer_fits(after[0]));
}

}  // namespace
}  // namespace ktrunk::test
