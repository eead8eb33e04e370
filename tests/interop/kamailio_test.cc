// Kamailio as next hop: over TLS it gets what we route to it, and sends it back to us with its own Via and
// Record-Route, as another peer of ours; from there it goes to a callee over UDP. So every request passes us twice (a
// spiral, RFC 3261 16.3), and the route sets have our tokens twice, with Kamailio's entries between them.
#include <filesystem>

#include "interop/interop_fixture.h"
#include "interop/sipp.h"

namespace ktrunk::test {
namespace {

constexpr const char* kModules = "/usr/lib/x86_64-linux-gnu/kamailio/modules/";

class KamailioProgram : public InteropTest {
 protected:
  static std::string missing() {
    if (const std::string program = missing_program("kamailio", "kamailio"); !program.empty()) return program;
    const std::string tls = fmt::format("{}tls.so", kModules);
    return std::filesystem::exists(tls) ? "" : tls + " is not there; install kamailio-tls-modules";
  }
  // Answers OPTIONS itself; relays all else to us, statefully.
  void start_kamailio() {
    const Certificates& files = certificates();
    const std::string pair = fmt::format(
        "method = TLSv1.2+\nverify_certificate = yes\nrequire_certificate = yes\nprivate_key = {}\ncertificate = {}\n"
        "ca_list = {}\n",
        files.pbx.key, files.pbx.certificate, files.ca.file());
    const std::string tls = folder_.write("tls.cfg", "[server:default]\n" + pair + "[client:default]\n" + pair);
    const std::string config =
        folder_.write("kamailio.cfg", fmt::format(R"(#!KAMAILIO
debug=1
log_stderror=yes
children=1
tcp_children=2
auto_aliases=no
enable_tls=yes
listen=tls:{0}
mpath="{3}"
loadmodule "tls.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "rr.so"
loadmodule "maxfwd.so"
loadmodule "siputils.so"
loadmodule "textops.so"
modparam("tls", "config", "{1}")
request_route {{
  if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
  if (is_method("CANCEL")) {{ if (t_check_trans()) t_relay(); exit; }}
  if (has_totag()) {{
    if (loose_route() || t_check_trans()) {{ t_relay(); exit; }}
    if (!is_method("ACK")) sl_send_reply("404", "Not Here");
    exit;
  }}
  t_check_trans();
  if (is_method("OPTIONS")) {{ sl_send_reply("200", "Kamailio"); exit; }}
  if (is_method("INVITE|SUBSCRIBE|REFER")) record_route();
  $du = "sip:{2};transport=tls";
  t_relay();
}}
)",
                                                  address_.text(), tls, edge_tls_.text(), kModules));
    kamailio_ = Conversation::start({"kamailio", "-f", config, "-DD", "-E", "-m", "32", "-w", folder_.path().string(),
                                     "-Y", folder_.path().string()});
    ASSERT_NE(kamailio_, nullptr);
    ASSERT_TRUE(eventually([&] { return TcpStream::connect(address_).has_value(); }, kLong)) << kamailio_->output();
  }
  // From Kamailio to the callee; from all others to Kamailio.
  [[nodiscard]] std::string tables() const {
    return fmt::format(R"(
[[trunk]]
name = "callee"
targets = ["udp:{}"]
listen = "edge-udp"

[[route]]
from_trunk = "pbx"
to = "callee"
)",
                       callee_.text()) +
           pbx_at(address_);
  }

  TempFolder folder_;
  Address address_ = free_address();
  Address callee_ = free_address();
  std::unique_ptr<Conversation> kamailio_;
};

TEST_F(KamailioProgram, AnswersOptionsThatGoThroughUs) {
  KTRUNK_REQUIRE(missing());
  ASSERT_NO_FATAL_FAILURE(start_kamailio());
  ASSERT_NO_FATAL_FAILURE(start(tables()));
  auto tcp = TcpStream::connect(edge_tcp_);
  ASSERT_TRUE(tcp) << tcp.error().what;
  SipStream caller(std::move(*tcp));
  for (int i = 0; i < 10; ++i) {
    SipMessage request = make_request({.method = "OPTIONS",
                                       .uri = "sip:anyone@pbx.test",
                                       .transport = "TCP",
                                       .sent_by = caller.stream().local().text(),
                                       .branch = "",
                                       .call_id = "",
                                       .body = ""});
    ASSERT_TRUE(caller.send(request));
    const auto response = caller.receive(kLong);
    ASSERT_TRUE(response) << response.error().what << kamailio_->output();
    EXPECT_EQ(response->start_line, "SIP/2.0 200 Kamailio");
    EXPECT_EQ(response->all("Via").size(), 1u) << response->text();
  }
  const auto found = tls_connections("pbx");
  ASSERT_EQ(found.size(), 1u);
  EXPECT_TRUE(record_layer_fits(found[0]));
}

TEST_F(KamailioProgram, AnswersSipsakThroughUs) {
  KTRUNK_REQUIRE(missing());
  KTRUNK_REQUIRE(missing_program("sipsak", "sipsak"));
  ASSERT_NO_FATAL_FAILURE(start_kamailio());
  ASSERT_NO_FATAL_FAILURE(start(tables()));
  for (const auto& [transport, edge] : {std::pair("tcp", edge_tcp_), std::pair("udp", edge_udp_)}) {
    const auto sipsak =
        Conversation::start({"sipsak", "-vvv", "-E", transport, "-p", edge.text(), "-s", "sip:anyone@pbx.test"});
    ASSERT_NE(sipsak, nullptr);
    EXPECT_TRUE(sipsak->ends_with(0)) << kamailio_->output();
    EXPECT_TRUE(sipsak->heard("200 Kamailio")) << sipsak->output();
  }
}

class KamailioCalls : public KamailioProgram, public testing::WithParamInterface<const char*> {};

TEST_P(KamailioCalls, GoThroughUsToItAndBackThroughUs) {
  KTRUNK_REQUIRE(missing());
  const auto path = find_sipp();
  KTRUNK_REQUIRE(path ? "" : path.error().what);
  ASSERT_NO_FATAL_FAILURE(start_kamailio());
  const CallFlow flow{.name = GetParam(), .status = "486", .hops = 67};  // we, Kamailio, and we again
  const auto callee =
      SippEnd::callee({.path = *path, .flow = flow, .transport = SippTransport::kUdp, .files = {}, .at = callee_});
  ASSERT_NE(callee, nullptr);
  ASSERT_NO_FATAL_FAILURE(start(tables(), "", kInOrder));
  const auto caller =
      SippEnd::caller({.path = *path, .flow = flow, .files = certificates().carrier, .at = free_address()}, edge_tls_);
  ASSERT_NE(caller, nullptr);
  EXPECT_TRUE(caller->succeeds()) << kamailio_->output();
  EXPECT_TRUE(callee->succeeds()) << kamailio_->output();
  // Ours to it, and its own to us, which its certificate makes one of the same trunk.
  const auto found = tls_connections("pbx");
  EXPECT_EQ(found.size(), 2u);
  for (const Json& connection : found) EXPECT_TRUE(record_layer_fits(connection));
}

INSTANTIATE_TEST_SUITE_P(All, KamailioCalls, testing::Values("call", "cancel", "prack", "refer", "failure"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace ktrunk::test
