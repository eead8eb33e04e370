// The examples for carriers: `ktrunk check` takes each with certificates in place, and plausible requests of either
// side go where the file's own words say.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "cli/route_report.h"
#include "support/certificates.h"
#include "support/daemon.h"
#include "support/process.h"
#include "support/tls_peer.h"

namespace ktrunk::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr const char* kPresets[] = {"teams-direct-routing", "twilio-elastic-sip", "telnyx", "zoom-byoc", "pbx-behind"};

std::string path_of(const std::string& preset) { return std::string(KTRUNK_EXAMPLES) + "/" + preset + ".toml"; }

class PresetsCheck : public testing::TestWithParam<const char*> {};

TEST_P(PresetsCheck, IsGoodWithCertificatesInPlace) {
  const TempFolder folder;
  const CertificateAuthority ca(folder.path(), "public-cas");
  (void)ca.issue({.name = "sbc.example.com", .common_name = "", .dns = {"sbc.example.com"}});
  const std::string file = folder.file("preset.toml");
  std::filesystem::copy_file(path_of(GetParam()), file);
  auto process =
      Process::start({.argv = {built_program("ktrunk"), "check", file}, .env = {}, .output = folder.file("out")});
  ASSERT_TRUE(process) << process.error().what;
  const auto exit = process->wait(kPatience);
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->code, 0) << process->output();
  EXPECT_THAT(process->output(), HasSubstr("preset.toml is good."));
  EXPECT_THAT(process->output(), HasSubstr("Routes (the first that matches wins)"));
}

INSTANTIATE_TEST_SUITE_P(All, PresetsCheck, testing::ValuesIn(kPresets), [](const auto& preset) {
  std::string name = preset.param;
  std::erase(name, '-');
  return name;
});

struct Case {
  const char* preset;
  const char* trunk;     // that the request comes from; empty: a stranger
  const char* listener;  // empty: the trunk's
  const char* method;
  const char* uri;
  const char* summary;     // a line of it
  const char* start_line;  // of what goes on, or the answer
  const char* fields = "";
};

constexpr Case kCases[] = {
    {"teams-direct-routing", "teams", "", "INVITE", "sip:+4930123@sbc.example.com:5061;user=phone;transport=tls",
     "route 1 of 4: to trunk 'pbx', tcp\n",
     "INVITE sip:+4930123@sbc.example.com:5061;user=phone;transport=tls SIP/2.0\r\n"},
    {"teams-direct-routing", "teams", "", "OPTIONS", "sip:sbc.example.com:5061;transport=tls", "answered 200 OK\n",
     "SIP/2.0 200 OK\r\n"},
    {"teams-direct-routing", "", "pbx-side", "INVITE", "sip:+15551234567@10.0.0.1;user=phone",
     "route 3 of 4: to trunk 'teams', tls\nthe host becomes sip.pstnhub.microsoft.com\n",
     "INVITE sip:+15551234567@sip.pstnhub.microsoft.com;user=phone SIP/2.0\r\n"},
    {"teams-direct-routing", "", "pbx-side", "OPTIONS", "sip:sip.pstnhub.microsoft.com",
     "route 2 of 4: to trunk 'teams', tls\n", "OPTIONS sip:sip.pstnhub.microsoft.com SIP/2.0\r\n"},
    {"teams-direct-routing", "", "pbx-side", "INVITE", "sip:0301234@10.0.0.1",
     "route 4 of 4 rejects\nanswered 484 E.164 Number Expected\n", "SIP/2.0 484 E.164 Number Expected\r\n"},
    {"teams-direct-routing", "", "teams-side", "INVITE", "sip:+4930@sbc.example.com", "answered 404 No Route\n",
     "SIP/2.0 404 No Route\r\n"},
    {"twilio-elastic-sip", "pbx", "", "INVITE", "sip:+4930123456@10.0.0.1", "to trunk 'twilio', tls\n",
     "INVITE sip:+4930123456@example.pstn.twilio.com SIP/2.0\r\n"},
    {"twilio-elastic-sip", "pbx", "", "INVITE", "sip:004930123456@10.0.0.1", "to trunk 'twilio', tls\n",
     "INVITE sip:+4930123456@example.pstn.twilio.com SIP/2.0\r\n", "X-Internal-Id: 7\r\n"},
    {"twilio-elastic-sip", "twilio", "", "INVITE", "sip:+4930123456@sbc.example.com:5061;transport=tls",
     "to trunk 'pbx', udp\n", "INVITE sip:+4930123456@sbc.example.com:5061;transport=tls SIP/2.0\r\n"},
    {"telnyx", "", "pbx-side", "INVITE", "sip:+4930123456@10.0.0.1",
     "to trunk 'telnyx-eu', tls\nwhile that is down: to trunk 'telnyx-us'\n",
     "INVITE sip:+4930123456@sip.telnyx.eu SIP/2.0\r\n"},
    {"telnyx", "", "pbx-side", "INVITE", "sip:+13125550001@10.0.0.1",
     "to trunk 'telnyx-us', tls\nwhile that is down: to trunk 'telnyx-eu'\n",
     "INVITE sip:+13125550001@sip.telnyx.com SIP/2.0\r\n"},
    {"telnyx", "telnyx-us", "", "INVITE", "sip:+13125550001@sbc.example.com", "to trunk 'pbx', tcp\n",
     "INVITE sip:+13125550001@sbc.example.com SIP/2.0\r\n"},
    {"zoom-byoc", "", "zoom-side", "INVITE", "sip:+14085551212@192.0.2.1:5061", "to trunk 'pbx', tcp\n",
     "INVITE sip:+14085551212@192.0.2.1:5061 SIP/2.0\r\n"},
    {"zoom-byoc", "", "pbx-side", "INVITE", "sip:+14085551212@10.0.0.1",
     "to trunk 'zoom-first', tls\nwhile that is down: to trunk 'zoom-second'\n",
     "INVITE sip:+14085551212@10.0.0.1 SIP/2.0\r\n"},
    {"zoom-byoc", "", "pbx-side", "INVITE", "sip:+14085551212@10.0.0.1", "rejects\nanswered 403 Internal Call\n",
     "SIP/2.0 403 Internal Call\r\n", "X-Internal: 1\r\n"},
    {"pbx-behind", "carrier", "", "INVITE", "sip:+49302001@sbc.example.com", "to trunk 'freeswitch', udp\n",
     "INVITE sip:0302001@sbc.example.com SIP/2.0\r\n"},
    {"pbx-behind", "carrier", "", "INVITE", "sip:+49303001@sbc.example.com",
     "to trunk 'asterisk', tcp\nwhile that is down: to trunk 'kamailio'\nadds X-Trunk: carrier\n",
     "INVITE sip:+49303001@sbc.example.com SIP/2.0\r\n"},
    {"pbx-behind", "kamailio", "", "INVITE", "sip:+49900123@carrier.example", "answered 403 No Premium Numbers\n",
     "SIP/2.0 403 No Premium Numbers\r\n"},
    {"pbx-behind", "", "inside-tcp", "INVITE", "sip:+4989123@carrier.example", "to trunk 'carrier', tls\n",
     "INVITE sip:+4989123@carrier.example SIP/2.0\r\n", "X-Trunk: carrier\r\n"},
};

TEST(PresetsRoute, RequestsOfEitherSideGoWhereTheFileSays) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(std::string(c.preset) + " " + c.trunk + " " + c.listener + " " + c.method + " " + c.uri);
    const auto text = config::read_file(path_of(c.preset));
    ASSERT_TRUE(text) << text.error().what;
    const auto config = config::parse(*text, path_of(c.preset));
    ASSERT_TRUE(config) << config.error().what;
    const std::string message = fmt::format(
        "{0} {1} SIP/2.0\r\nVia: SIP/2.0/TLS 192.0.2.9:5061;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <{1}>\r\n"
        "Call-ID: c\r\nCSeq: 1 {0}\r\nMax-Forwards: 70\r\nContact: <sip:a@192.0.2.9>\r\n{2}Content-Length: 0\r\n\r\n",
        c.method, c.uri, c.fields);
    const auto report = cli::route_report(
        *config, message, {.trunk = c.trunk, .listener = c.listener, .peer = *Address::parse("192.0.2.9:5061")});
    ASSERT_TRUE(report) << report.error().what;
    EXPECT_THAT(report->summary, HasSubstr(c.summary));
    EXPECT_THAT(report->octets, StartsWith(c.start_line));
    if (*c.fields != '\0') {
      EXPECT_THAT(report->octets, Not(HasSubstr(c.fields)));
    }
  }
}

TEST(PresetsRoute, CarriersWithoutCertificatesAreKnownByTheirAddresses) {
  struct Known {
    const char* preset;
    const char* listener;
    const char* peer;
    const char* from;
  };
  for (const Known& c : {Known{"twilio-elastic-sip", "twilio-side", "54.172.60.2:41000", "trunk 'twilio'"},
                         Known{"twilio-elastic-sip", "twilio-side", "54.172.60.4:41000", "a stranger"},
                         Known{"twilio-elastic-sip", "pbx-side", "54.172.60.2:5060", "a stranger"},
                         Known{"telnyx", "telnyx-side", "192.76.120.10:41000", "trunk 'telnyx-us'"},
                         Known{"telnyx", "telnyx-side", "185.246.41.141:41000", "trunk 'telnyx-eu'"},
                         Known{"pbx-behind", "inside-tcp", "10.0.0.21:50112", "trunk 'asterisk'"},
                         Known{"teams-direct-routing", "teams-side", "52.112.0.1:41000", "a stranger"}}) {
    SCOPED_TRACE(std::string(c.preset) + " " + c.peer);
    const auto config = config::parse(*config::read_file(path_of(c.preset)), path_of(c.preset));
    ASSERT_TRUE(config) << config.error().what;
    const auto report = cli::route_report(*config,
                                          "INVITE sip:+4930123456@sbc.example.com SIP/2.0\nVia: SIP/2.0/TLS "
                                          "x;branch=z9hG4bK1\nFrom: <sip:a@b>;tag=1\nTo: "
                                          "<sip:c@d>\nCall-ID: c\nCSeq: 1 INVITE\nContent-Length: 0\n\n",
                                          {.trunk = "", .listener = c.listener, .peer = *Address::parse(c.peer)});
    ASSERT_TRUE(report) << report.error().what;
    EXPECT_THAT(report->summary, HasSubstr(std::string("from ") + c.from));
  }
}

TEST(PresetsRoute, TeamsSeesTheFqdnInRecordRouteAndVia) {
  const auto config = config::parse(*config::read_file(path_of(kPresets[0])), path_of(kPresets[0]));
  ASSERT_TRUE(config) << config.error().what;
  const auto report = cli::route_report(*config,
                                        "INVITE sip:+15551234567@10.0.0.1 SIP/2.0\nVia: SIP/2.0/TCP "
                                        "10.0.0.20;branch=z9hG4bK1\nFrom: <sip:a@b>;tag=1\nTo: <sip:c@d>\nCall-ID: "
                                        "c\nCSeq: 1 INVITE\nContent-Length: 0\n\n",
                                        {.trunk = "", .listener = "pbx-side", .peer = *Address::parse("10.0.0.20:1")});
  ASSERT_TRUE(report) << report.error().what;
  EXPECT_THAT(report->octets, AllOf(HasSubstr("\r\nVia: SIP/2.0/TLS sbc.example.com:5061;branch="),
                                    HasSubstr("@sbc.example.com:5061;transport=tls;lr>\r\n")));
}

}  // namespace
}  // namespace ktrunk::test
