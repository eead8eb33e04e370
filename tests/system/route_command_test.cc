// `ktrunk route`: which route a request takes, and the octets that would go on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "cli/route_report.h"
#include "support/daemon.h"
#include "support/process.h"
#include "support/tls_peer.h"

namespace ktrunk::test {
namespace {

using cli::RouteReport;
using testing::HasSubstr;
using testing::StartsWith;

constexpr std::string_view kConfig = R"(
[[listen]]
name = "edge"
transport = "tls"
address = "192.0.2.1:5061"
certificate = "edge.pem"
key = "edge.key"
ca = "ca.pem"
verify_client = "optional"

[[listen]]
name = "inside"
transport = "udp"
address = "192.0.2.1:5060"

[[trunk]]
name = "carrier"
verify_name = "carrier.example.com"
listen = "edge"

[[trunk]]
name = "pbx"
targets = ["udp:192.0.2.7"]
listen = "inside"

[[route]]
from_listener = "inside"
user_prefix = "+49"
to = "carrier"

[[route]]
from_trunk = "carrier"
to = "pbx"
)";

constexpr std::string_view kInvite = R"(INVITE sip:+4930@example.com SIP/2.0
Via: SIP/2.0/TLS carrier.example.com;branch=z9hG4bK1
From: <sip:a@b>;tag=1
To: <sip:c@d>
Call-ID: c
CSeq: 1 INVITE
Max-Forwards: 70
X-Odd:   left  alone
Content-Length: 4

v=0
)";

class RouteCommand : public testing::Test {
 protected:
  static RouteReport report(std::string_view message, const std::string& trunk, const std::string& listener = "") {
    const auto config = config::parse(kConfig, "/etc/k.toml");
    EXPECT_TRUE(config) << config.error().what;
    auto made = cli::route_report(
        *config, message, {.trunk = trunk, .listener = listener, .peer = *Address::parse("198.51.100.4:40000")});
    EXPECT_TRUE(made) << made.error().what;
    return made ? *made : RouteReport{};
  }
  static std::string with(std::string_view from, std::string_view to) {
    std::string text(kInvite);
    return text.replace(text.find(from), from.size(), to);
  }
};

TEST_F(RouteCommand, SaysTheRouteAndShowsTheMessage) {
  const RouteReport out = report(kInvite, "carrier");
  EXPECT_EQ(out.what, RouteReport::What::kForwarded);
  EXPECT_EQ(
      out.summary,
      "INVITE sip:+4930@example.com\nfrom trunk 'carrier', by listener 'edge'\nroute 2 of 2: to trunk 'pbx', udp\n");
  EXPECT_THAT(out.octets, StartsWith("INVITE sip:+4930@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;rport;"));
  EXPECT_THAT(out.octets, HasSubstr("\r\nMax-Forwards: 69\r\nX-Odd:   left  alone\r\n"));
  EXPECT_THAT(out.octets, HasSubstr("\r\n\r\nv=0\n"));

  const RouteReport in = report(kInvite, "", "inside");
  EXPECT_THAT(in.summary, HasSubstr("from a stranger, by listener 'inside'\nroute 1 of 2: to trunk 'carrier', tls\n"));
}

TEST_F(RouteCommand, SaysWhatIsAnsweredAndDropped) {
  const RouteReport none = report(kInvite, "");
  EXPECT_EQ(none.what, RouteReport::What::kAnswered);
  EXPECT_THAT(none.summary, HasSubstr("answered 404 No Route\n"));
  EXPECT_THAT(none.octets, StartsWith("SIP/2.0 404 No Route\r\n"));
  const RouteReport hops = report(with("Max-Forwards: 70", "Max-Forwards: 0"), "carrier");
  EXPECT_THAT(hops.summary, HasSubstr("answered 483 "));
  const RouteReport sips = report(with("sip:+4930", "sips:+4930"), "carrier");
  EXPECT_THAT(sips.summary, HasSubstr("route 2 of 2: to trunk 'pbx', udp\nsips asks for TLS\nanswered 480 "));
  for (const std::string rubbish : {"", "\n", "SIP/2.0 200 OK\nContent-Length: 0\n\n", "x y z\n\n"}) {
    const RouteReport dropped = report(rubbish, "carrier");
    EXPECT_NE(dropped.what, RouteReport::What::kForwarded) << rubbish;
    EXPECT_THAT(dropped.summary, testing::AnyOf(HasSubstr("dropped: "), HasSubstr("answered 400")));
  }
}

TEST_F(RouteCommand, UnknownNamesAreErrors) {
  const auto config = config::parse(kConfig, "/etc/k.toml");
  ASSERT_TRUE(config);
  const auto trunk = cli::route_report(*config, kInvite, {.trunk = "nobody", .listener = "", .peer = {}});
  ASSERT_FALSE(trunk);
  EXPECT_EQ(trunk.error().what, "the configuration has no trunk named 'nobody'");
  const auto listener = cli::route_report(*config, kInvite, {.trunk = "", .listener = "x", .peer = {}});
  ASSERT_FALSE(listener);
  EXPECT_EQ(listener.error().what, "the configuration has no listener named 'x'");
}

TEST_F(RouteCommand, TheCommandReadsStandardInput) {
  const TempFolder folder;
  std::ofstream(folder.path() / "k.toml") << kConfig;
  std::ofstream(folder.path() / "invite.sip") << kInvite;
  const auto run = [&](const std::string& arguments) {
    const std::string command = "'" + built_program("ktrunk") + "' route " + arguments;
    auto process = Process::start({.argv = {"/bin/sh", "-c", command}, .output = folder.path() / "out"});
    EXPECT_TRUE(process);
    const auto exit = process->wait(kPatience);
    const std::string output = process->output();
    std::filesystem::remove(folder.path() / "out");
    return std::pair(exit ? exit->code : -1, output);
  };
  const std::string config = "'" + (folder.path() / "k.toml").string() + "'";
  const std::string input = " < '" + (folder.path() / "invite.sip").string() + "'";
  const auto [code, output] = run(config + " --from carrier" + input);
  EXPECT_EQ(code, 0) << output;
  EXPECT_THAT(output, HasSubstr("route 2 of 2: to trunk 'pbx', udp\n\nINVITE sip:+4930@example.com SIP/2.0\r\n"));
  EXPECT_EQ(run(config + input).first, 1) << "404";
  EXPECT_EQ(run(config + " --from nobody" + input).first, 1);
  EXPECT_EQ(run(config + " --peer nowhere" + input).first, 1);
  EXPECT_EQ(run(config + " --unknown" + input).first, 2);
  EXPECT_EQ(run("/nonexistent" + input).first, 1);
}

}  // namespace
}  // namespace ktrunk::test
