// `ktrunk trace`: live, as pcap, several at once, and clients that are slow, hostile or die.
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "cli/control_client.h"
#include "cli/trace.h"
#include "ipc/limits.h"
#include "system/daemon_fixture.h"

namespace ktrunk::test {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream all;
  all << file.rdbuf();
  return all.str();
}

class TraceCommand : public DaemonTest {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(start());
    auto stream = call_in();
    ASSERT_NE(stream, nullptr);
    caller_ = std::make_unique<SipStream>(std::move(stream));
  }
  [[nodiscard]] std::unique_ptr<Process> run(const std::vector<std::string>& arguments) {
    std::vector<std::string> argv = {built_program("ktrunk"), "trace", "--socket", daemon_->control_socket()};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    auto process = Process::start({.argv = argv, .env = {}, .output = folder_.file("output")});
    if (process) return std::make_unique<Process>(std::move(*process));
    ADD_FAILURE() << process.error().what;
    return nullptr;
  }
  // So often it stands in the daemon's log.
  [[nodiscard]] bool logged(std::string_view text, unsigned times = 1) const {
    return eventually(
        [&] {
          const std::string log = daemon_->log();
          unsigned found = 0;
          for (std::size_t at = log.find(text); at != std::string::npos; at = log.find(text, at + 1)) ++found;
          return found >= times;
        },
        kLong);
  }
  [[nodiscard]] std::uint64_t counted(const char* name) const {
    std::uint64_t sum = 0;
    const Json now = status();
    for (const Json& worker : now["workers"]) sum += worker[name].get<std::uint64_t>();
    return sum;
  }
  [[nodiscard]] Result<cli::TraceSource> begin(const std::string& trunk) {
    return cli::begin_trace(daemon_->control_socket(), trunk);
  }
  // The next packet of a trace; empty if none comes.
  static std::string next(const cli::TraceSource& source, milliseconds limit = kLong) {
    std::string packet(2u << 20, '\0');
    if (!wait_ready(source.messages.get(), POLLIN, std::chrono::steady_clock::now() + limit)) return {};
    const ssize_t got = ::recv(source.messages.get(), packet.data(), packet.size(), MSG_DONTWAIT);
    packet.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return packet;
  }

  TempFolder folder_;
  std::unique_ptr<SipStream> caller_;
};

TEST_F(TraceCommand, PrintsLiveWhatPassesOneTrunk) {
  const auto trace = run({"pbx-tls", "--count", "2"});
  ASSERT_NE(trace, nullptr);
  ASSERT_TRUE(logged("tracing trunk 'pbx-tls'"));
  // Another trunk's, and ktrunkd's own answers to the carrier, are not of it.
  ASSERT_TRUE(answers(*caller_, options_to_us(), 200));
  SipMessage request = request_to("tls.test", std::string("secret\x1b[31m\r\nof two lines"));
  ASSERT_TRUE(caller_->send(request));
  const auto forwarded = pbx_tls_->receive(kLong);
  ASSERT_TRUE(forwarded) << forwarded.error().what;
  // Live: it is there before anything else comes.
  EXPECT_TRUE(eventually([&] { return trace->output().find("of two lines") != std::string::npos; }, kLong));
  EXPECT_TRUE(trace->running());
  ASSERT_TRUE(pbx_tls_->send(make_response(*forwarded, 200, "Fine")));
  ASSERT_TRUE(caller_->receive(kLong));
  const auto end = trace->wait(kLong);
  ASSERT_TRUE(end);
  EXPECT_EQ(end->code, 0);
  const std::string text = trace->output();
  const std::string pbx = pbx_tls_listener_->address().text();
  const std::string us = pbx_tls_->stream().remote().text();
  EXPECT_THAT(text, HasSubstr(fmt::format(
                        " UTC  sent {} -> {}  tls  to trunk pbx-tls\nMESSAGE sip:bob@tls.test SIP/2.0\n", us, pbx)));
  EXPECT_THAT(text,
              HasSubstr(fmt::format(" UTC  received {} -> {}  tls  from trunk pbx-tls\nSIP/2.0 200 Fine\n", pbx, us)));
  EXPECT_THAT(text, HasSubstr("\nsecret?[31m\nof two lines\n")) << "no message steers the terminal";
  EXPECT_THAT(text, HasSubstr("2 messages; 0 left out"));
  EXPECT_THAT(text, Not(HasSubstr("OPTIONS")));
  EXPECT_TRUE(logged("trunk 'pbx-tls' is not traced any more"));
  // It is off: nothing more is copied.
  const std::uint64_t traced = counted("traced") + counted("trace_dropped");
  Echo pbx_echo(*pbx_tls_);
  ASSERT_TRUE(answers(*caller_, request_to("tls.test"), 200));
  EXPECT_EQ(counted("traced") + counted("trace_dropped"), traced);
}

TEST_F(TraceCommand, WritesAPcapFileThatWiresharkReads) {
  const std::string file = folder_.file("trace.pcap");
  std::vector<std::string> call_ids;
  {
    Echo pbx(*pbx_tls_);
    const auto trace = run({"pbx-tls", "--pcap", file});
    ASSERT_NE(trace, nullptr);
    ASSERT_TRUE(logged("tracing trunk 'pbx-tls'"));
    for (unsigned i = 0; i < 3; ++i) {
      const SipMessage request = request_to("tls.test", "some text");
      ASSERT_TRUE(answers(*caller_, request, 200));
      call_ids.push_back(request.header("Call-ID"));
    }
    ASSERT_TRUE(eventually([&] { return contents(file).find(call_ids.back()) != std::string::npos; }, kLong));
    ASSERT_TRUE(daemon_->wait_status([&](const Json&) { return counted("traced") == 6; }));
    ASSERT_TRUE(trace->signal(SIGINT));
    const auto end = trace->wait(kLong);
    ASSERT_TRUE(end);
    EXPECT_EQ(end->code, 0) << trace->output();
    EXPECT_THAT(trace->output(), HasSubstr("6 messages"));
  }
  const std::string octets = contents(file);
  ASSERT_GT(octets.size(), 24u);
  EXPECT_EQ(octets.substr(0, 4), std::string("\xd4\xc3\xb2\xa1", 4));
  if (std::system("tshark --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "tshark is not installed";
  const std::string printed = folder_.file("tshark");
  const std::string command = fmt::format(
      "tshark -r {} -T fields -E separator='|' -e _ws.col.Protocol -e sip.Call-ID -e sip.Method "
      "-e sip.Status-Code -e exported_pdu.ipv4_dst -e exported_pdu.dst_port > {} 2>/dev/null",
      file, printed);
  ASSERT_EQ(std::system(command.c_str()), 0);
  const std::string text = contents(printed);
  const Address pbx = pbx_tls_listener_->address();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 6);
  for (const std::string& call_id : call_ids) {
    EXPECT_THAT(text, HasSubstr(fmt::format("|{}|MESSAGE||{}|{}\n", call_id, pbx.ip(), pbx.port())));
    EXPECT_THAT(text, HasSubstr(fmt::format("|{}||200|", call_id)));
  }
}

TEST_F(TraceCommand, PcapGoesToAPipeToo) {
  Echo pbx(*pbx_tls_);
  const auto trace = run({"pbx-tls", "--pcap", "-", "--count", "2"});
  ASSERT_NE(trace, nullptr);
  ASSERT_TRUE(logged("tracing trunk 'pbx-tls'"));
  ASSERT_TRUE(answers(*caller_, request_to("tls.test"), 200));
  const auto end = trace->wait(kLong);
  ASSERT_TRUE(end);
  EXPECT_EQ(end->code, 0);
  EXPECT_THAT(trace->output(), testing::StartsWith(std::string("\xd4\xc3\xb2\xa1", 4)));
}

TEST_F(TraceCommand, DatagramTrunksAndQuestionsOfOurOwn) {
  const auto source = begin("pbx-udp");
  ASSERT_TRUE(source) << source.error().what;
  ASSERT_TRUE(caller_->send(request_to("udp.test")));
  const auto forwarded = pbx_udp_->receive(kLong);
  ASSERT_TRUE(forwarded) << forwarded.error().what;
  EXPECT_THAT(next(*source), HasSubstr("MESSAGE sip:bob@udp.test"));
  ASSERT_TRUE(pbx_udp_->send(make_response(forwarded->first, 200, "OK"), forwarded->second));
  EXPECT_THAT(next(*source), HasSubstr("SIP/2.0 200 OK")) << "known by its address";
}

TEST_F(TraceCommand, WhatCannotBeTracedIsSaid) {
  const auto unknown = begin("nobody");
  ASSERT_FALSE(unknown);
  EXPECT_THAT(unknown.error().what, HasSubstr("there is no trunk 'nobody'"));
  std::vector<cli::TraceSource> sources;
  for (unsigned i = 0; i < ipc::kMaxTraces; ++i) {
    auto source = begin("pbx-tls");
    ASSERT_TRUE(source) << source.error().what;
    sources.push_back(std::move(*source));
  }
  const auto one_more = begin("pbx-tls");
  ASSERT_FALSE(one_more);
  EXPECT_THAT(one_more.error().what, HasSubstr("4 traces are running already"));
  EXPECT_EQ(::send(sources[0].messages.get(), "x", 1, MSG_NOSIGNAL), -1) << "it is there to be read";
  // Each has its own copy.
  Echo pbx(*pbx_tls_);
  ASSERT_TRUE(answers(*caller_, request_to("tls.test"), 200));
  for (const auto& source : sources) {
    EXPECT_THAT(next(source), HasSubstr("MESSAGE"));
    EXPECT_THAT(next(source), HasSubstr("SIP/2.0 200"));
  }
  sources.clear();
  EXPECT_TRUE(logged("not traced any more", ipc::kMaxTraces));
  EXPECT_TRUE(begin("pbx-tls"));
  const auto command = run({"nobody"});
  ASSERT_NE(command, nullptr);
  const auto end = command->wait(kLong);
  ASSERT_TRUE(end);
  EXPECT_EQ(end->code, 1);
}

TEST_F(TraceCommand, OneThatReadsNothingHoldsNothingUp) {
  const auto source = begin("pbx-tls");
  ASSERT_TRUE(source) << source.error().what;
  Echo pbx(*pbx_tls_);
  const std::string body(60'000, 'x');
  constexpr unsigned kMost = 400;
  unsigned calls = 0;
  while (calls < kMost && (calls % 20 != 0 || counted("trace_dropped") == 0)) {
    ASSERT_TRUE(answers(*caller_, request_to("tls.test", body), 200));
    ++calls;
  }
  ASSERT_LT(calls, kMost) << "what waits for a trace is bounded";
  const Status counts =
      daemon_->wait_status([&](const Json&) { return counted("traced") + counted("trace_dropped") == 2 * calls; });
  ASSERT_TRUE(counts) << counts.error().what;
  // When it reads again it learns of the gap.
  std::uint64_t read = 0;
  while (!next(*source, milliseconds(200)).empty()) ++read;
  EXPECT_EQ(read, counted("traced"));
  ASSERT_TRUE(answers(*caller_, request_to("tls.test", "small"), 200));
  std::uint64_t told = 0;
  for (unsigned i = 0; i < 2; ++i) {
    const std::string packet = next(*source);
    ipc::TraceHead head;
    ASSERT_GE(packet.size(), sizeof head);
    std::memcpy(&head, packet.data(), sizeof head);
    told += head.dropped;
  }
  EXPECT_GT(told, 0u);
}

TEST_F(TraceCommand, ClientsThatDieOrSayMoreEndTheirTraceAlone) {
  auto staying = begin("pbx-tls");
  ASSERT_TRUE(staying);
  auto killed = run({"pbx-tls"});
  ASSERT_TRUE(logged("tracing trunk 'pbx-tls'", 2));
  ASSERT_TRUE(killed->signal(SIGKILL));
  ASSERT_TRUE(logged("not traced any more", 1));
  auto talking = begin("pbx-tls");
  ASSERT_TRUE(talking);
  ASSERT_EQ(::send(talking->control.get(), "more", 4, MSG_NOSIGNAL), 4);
  ASSERT_TRUE(logged("not traced any more", 2));
  // One that keeps the messages' end alone: the workers have nowhere to write to.
  auto keeping = begin("pbx-tls");
  ASSERT_TRUE(keeping);
  keeping->control.reset();
  ASSERT_TRUE(logged("not traced any more", 3));
  // One that throws it away, and stays.
  auto standing = begin("pbx-tls");
  ASSERT_TRUE(standing);
  standing->messages.reset();
  Echo pbx(*pbx_tls_);
  ASSERT_TRUE(answers(*caller_, request_to("tls.test"), 200));
  EXPECT_THAT(next(*staying), HasSubstr("MESSAGE"));
  EXPECT_THAT(next(*staying), HasSubstr("SIP/2.0 200"));
  EXPECT_TRUE(next(*keeping).empty());
  // ktrunkd has its copy of that end for a moment longer, and what is written meanwhile is not lost yet.
  EXPECT_TRUE(eventually(
      [&] { return counted("trace_dropped") >= 2 || !answers(*caller_, request_to("tls.test"), 200); }, kLong));
  EXPECT_GE(counted("trace_dropped"), 2u);
}

TEST_F(TraceCommand, GoesOnWhenAWorkerDies) {
  auto source = begin("pbx-tls");
  ASSERT_TRUE(source);
  Echo pbx(*pbx_tls_);
  for (const char* worker : {"worker/0", "worker/1"}) ASSERT_NO_FATAL_FAILURE(kill_child(worker));
  const SipMessage request = request_to("tls.test", "after the deaths");
  ASSERT_TRUE(answers(*caller_, request, 200));
  EXPECT_THAT(next(*source), HasSubstr(request.header("Call-ID")));
  EXPECT_THAT(next(*source), HasSubstr(request.header("Call-ID")));
}

TEST_F(TraceCommand, AnUpgradeEndsItAndItSaysSo) {
  const auto trace = run({"pbx-tls"});
  ASSERT_NE(trace, nullptr);
  ASSERT_TRUE(logged("tracing trunk 'pbx-tls'"));
  const auto upgraded = cli::ask(daemon_->control_socket(), "upgrade", cli::kUpgradeTimeout);
  ASSERT_TRUE(upgraded) << upgraded.error().what;
  ASSERT_EQ((*upgraded)["upgrade"], "done") << daemon_->log();
  const auto end = trace->wait(kLong);
  ASSERT_TRUE(end);
  EXPECT_EQ(end->code, 1);
  EXPECT_THAT(trace->output(), HasSubstr("ktrunkd has ended the trace"));
  Echo pbx(*pbx_tls_);
  ASSERT_TRUE(answers(*caller_, request_to("tls.test"), 200));
  const auto again = begin("pbx-tls");
  EXPECT_TRUE(again);
}

TEST_F(TraceCommand, LeavesNoDescriptorBehind) {
  const auto before = settled_descriptors();
  for (unsigned i = 0; i < 20; ++i) {
    auto source = begin("pbx-tls");
    ASSERT_TRUE(source);
  }
  ASSERT_TRUE(logged("not traced any more", 20));
  EXPECT_EQ(settled_descriptors(), before);
}

}  // namespace
}  // namespace ktrunk::test
