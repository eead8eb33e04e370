// The ktrunk command, whole: its exit status and what it prints; ktrunkd is played by the test.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "cli/config_report.h"
#include "cli/control_client.h"
#include "cli/status_report.h"
#include "support/certificates.h"
#include "support/daemon.h"
#include "support/process.h"
#include "support/tls_peer.h"

namespace ktrunk::test {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

struct Ran {
  int code;
  std::string output;
};

Ran run(const TempFolder& folder, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), built_program("ktrunk"));
  auto process = Process::start({.argv = arguments, .output = folder.path() / "out"});
  if (!process) return {-1, process.error().what};
  const auto exit = process->wait(kPatience);
  Ran ran{exit ? exit->code : -1, process->output()};
  std::filesystem::remove(folder.path() / "out");
  return ran;
}

// A control socket that takes one client, reads a line and answers with fixed bytes.
class ControlServer {
 public:
  ControlServer(std::string path, std::string answer) : path_(std::move(path)), answer_(std::move(answer)) {
    sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
    std::ranges::copy(path_, address.sun_path);
    listener_ = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(listener_.get(), 1), 0);
    thread_ = std::jthread([this] { serve(); });
  }
  ~ControlServer() { finish(); }
  // What the client sent.
  const std::string& finish() {
    if (thread_.joinable()) {
      ::shutdown(listener_.get(), SHUT_RDWR);  // ends a wait for a client that never came
      thread_.join();
    }
    return request_;
  }

 private:
  void serve() {
    const Fd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!client.valid()) return;
    TcpStream stream((Fd(::dup(client.get()))));
    while (request_.find('\n') == std::string::npos) {
      const auto bytes = stream.read_some();
      if (!bytes || bytes->empty()) return;
      request_ += *bytes;
    }
    (void)stream.write_all(answer_);
  }

  std::string path_;
  std::string answer_;
  std::string request_;
  Fd listener_;
  std::jthread thread_;
};

const nlohmann::ordered_json kStatus = nlohmann::ordered_json::parse(R"({
  "version": "0.1.0", "pid": 77, "uptime_s": 93784.5, "state": "running",
  "processes": [{"name": "handshake/0", "pid": 78, "restarts": 0}, {"name": "worker/0", "pid": 79, "restarts": 2}],
  "workers": [{"index": 0, "messages_received": 10, "messages_sent": 11, "records_sent": 12, "bytes_sent": 13,
               "requests": 5, "responses": 6, "replies": 7, "dropped": 8, "queue_full": 9,
               "queued_bytes": 14, "handed_over": 15}],
  "handshakes": {"accepted": 3, "connected": 4, "failed": 5, "refused": 6, "in_progress": 1, "transmit_rekeyed": 2,
                 "receive_rekeyed": 3, "replaced": 1},
  "handshake_processes": [{"index": 0, "accepted": 3, "connected": 4, "failed": 5, "refused": 6, "in_progress": 1,
                           "resumed": 2, "tickets": 8, "kernel": 7, "relayed": 0}],
  "trunks": [{"name": "carrier", "state": "degraded", "since_s": 65, "options_answer": {"status": 200, "age_s": 3},
              "connections": 1, "wanted": 2}],
  "connections": [
    {"id": "0.1", "state": "open", "transport": "tls", "record_layer": "kernel", "record_layer_reason": "software",
     "tls_version": "1.3", "cipher": "TLS_AES_128_GCM_SHA256", "trunk": "carrier", "listener": "", "peer": "192.0.2.1:5061",
     "local": "192.0.2.2:4711", "home_worker": 0, "queued_bytes": 16, "messages_sent": [11, 0],
     "transmit_key_renewals": 2, "receive_key_renewals": 1},
    {"id": "1.1", "state": "open", "transport": "tls", "record_layer": "relay",
     "record_layer_reason": "the kernel has no TLS", "peer": "\u001b[2J"}],
  "tls_stat": {"TlsCurrTxSw": 1}})");

TEST(CheckCommandTest, SaysWhatAGoodConfigurationDoes) {
  const TempFolder folder;
  const CertificateAuthority authority(folder.path(), "ca");
  (void)authority.issue({.name = "edge", .dns = {"edge.example"}});
  const std::string file = folder.write("k.toml", R"(
[ktrunk]
workers = 2
[[listen]]
name = "wan"
transport = "tls"
address = "0.0.0.0:5061"
advertise = "edge.example"
certificate = "edge.pem"
key = "edge.key"
ca = "ca.pem"
verify_client = "require"
[[listen]]
name = "lan"
transport = "udp"
address = "127.0.0.1:5060"
[[trunk]]
name = "carrier"
targets = ["tls:sip.carrier.example", "tls:[2001:db8::1]:5071"]
connections = 2
min_version = "1.3"
[[trunk]]
name = "pbx"
targets = ["udp:127.0.0.1:5070"]
[[route]]
from_trunk = "pbx"
methods = ["INVITE", "OPTIONS"]
user_prefix = "+49"
host = "example.com"
to = "carrier"
[[route]]
from_listener = "wan"
to = "pbx"
)");
  const Ran ran = run(folder, {"check", file});
  EXPECT_EQ(ran.code, 0);
  EXPECT_EQ(ran.output, file + R"( is good.
2 workers; records are encrypted by the kernel where it can, else by the handshake process
Control socket /run/ktrunk/control.sock

Listeners
  wan  tls at 0.0.0.0:5061, known to peers as edge.example:5061; TLS 1.2 and 1.3; client certificates required
       shows edge.pem
       client certificates must be ones for clients
       ALPN: sip/2, or none
       sessions resume by tickets, 2 after a TLS 1.3 handshake
  lan  udp at 127.0.0.1:5060

Trunks
  carrier  to tls:sip.carrier.example (SRV), else tls:[2001:db8::1]:5071; 2 connections; TLS 1.3; its certificate must carry the target's host; as wan
  pbx      to udp:127.0.0.1:5070; requests too large for a datagram by tcp; 1 connection; as lan

Routes (the first that matches wins)
  1.  INVITE, OPTIONS from trunk pbx for users that begin with '+49' for host example.com -> trunk carrier
  2.  every request that came in at wan -> trunk pbx
)");
}

// The report alone: the files need not be there.
TEST(CheckCommandTest, ExplainsWhatTlsIsToDo) {
  const auto config = config::parse(R"(
[[listen]]
name = "wan"
transport = "tls"
address = "127.0.0.1:5061"
certificate = "/keys/edge.pem"
key = "/keys/edge.key"
ocsp = "/keys/edge.ocsp"
ca = "ca.pem"
verify_client = "optional"
client_purpose = "any"
crl = "lists/ca.crl.pem"
ciphers = "ECDHE-ECDSA-AES256-GCM-SHA384"
ciphersuites = "TLS_AES_256_GCM_SHA384"
groups = "X25519:P-256"
alpn = "require"
tickets = 0
[[listen.certificates]]
certificate = "org.pem"
key = "org.key"
ocsp = "org.ocsp"
names = ["example.org", "*.example.org"]
[[listen.certificates]]
certificate = "net.pem"
key = "net.key"
[[listen]]
name = "bare"
transport = "tls"
address = "127.0.0.1:5062"
certificate = "edge.pem"
key = "edge.key"
alpn = "off"
[[trunk]]
name = "pbx"
targets = ["tls:pbx.example"]
verify_name = "sip.example"
listen = "wan"
ca = "ca.pem"
certificate = "edge.pem"
key = "edge.key"
crl = "ca.crl.pem"
groups = "P-384"
alpn = "require"
)",
                                    "/etc/k.toml");
  ASSERT_TRUE(config) << config.error().what;
  const std::string report = cli::config_report(*config);
  EXPECT_EQ(report.substr(report.find("\nListeners")), R"(
Listeners
  wan   tls at 127.0.0.1:5061; TLS 1.2 and 1.3; client certificates asked for, not required
        shows edge.pem, with the OCSP response edge.ocsp
        to clients that ask for example.org, *.example.org (SNI): org.pem, with the OCSP response org.ocsp
        to clients that ask for the names in it (SNI): net.pem
        client certificates may be ones for servers, too
        revoked certificates are refused, by ca.crl.pem, and those whose CA has no list there
        TLS 1.2 ciphers ECDHE-ECDSA-AES256-GCM-SHA384
        TLS 1.3 suites TLS_AES_256_GCM_SHA384
        key exchange by X25519:P-256
        ALPN: sip/2, required
        no session tickets: every handshake is a full one
  bare  tls at 127.0.0.1:5062; TLS 1.2 and 1.3; no client certificates
        shows edge.pem
        ALPN is passed over
        sessions resume by tickets, 2 after a TLS 1.3 handshake

Trunks
  pbx  to tls:pbx.example (SRV); 1 connection; TLS 1.2 and 1.3; its certificate must carry sip.example; as wan
       shows edge.pem
       revoked certificates are refused, by ca.crl.pem, and those whose CA has no list there
       key exchange by P-384
       ALPN: sip/2 is offered, and required

Routes (the first that matches wins): none
)");
}

TEST(CheckCommandTest, ExplainsWhosePeersComeFromWhere) {
  const auto config = config::parse(R"(
[ktrunk]
token_key_file = "/var/lib/ktrunk/token.key"
[[listen]]
name = "wan"
transport = "tls"
address = "127.0.0.1:5061"
certificate = "/keys/edge.pem"
key = "/keys/edge.key"
ca = "/keys/ca.pem"
verify_client = "optional"
[[listen]]
name = "lan"
transport = "udp"
address = "127.0.0.1:5060"
[[trunk]]
name = "carrier"
targets = ["tls:a.example;priority=1;weight=3", "tls:b.example;priority=1", "tls:c.example"]
sources = ["192.0.2.0/24"]
[[trunk]]
name = "open"
sources = ["198.51.100.7", "2001:db8::/32"]
accept_on = ["wan"]
[[trunk]]
name = "pbx"
targets = ["udp:127.0.0.1:5070"]
[[route]]
to = "pbx"
)",
                                    "k.toml");
  ASSERT_TRUE(config) << config.error().what;
  const std::string report = cli::config_report(*config);
  EXPECT_THAT(report, HasSubstr("Dialogs outlive a restart, by the key in /var/lib/ktrunk/token.key\n"));
  EXPECT_THAT(report, HasSubstr(R"(
Trunks
  carrier  to tls:a.example (SRV) (3 of 4) and tls:b.example (SRV) (1 of 4), else tls:c.example (SRV); 1 connection; TLS 1.2 and 1.3; its certificate must carry the target's host; as wan
           peers that come to us with that certificate are taken from 192.0.2.0/24 alone
  open     the peer connects to us; as wan
           peers that come to us are known by their address from 198.51.100.7, 2001:db8::/32 by wan
  pbx      to udp:127.0.0.1:5070; requests too large for a datagram by tcp; 1 connection; as lan
)"));
}

TEST(CheckCommandTest, AMistakeIsTheExitStatusAndOneLine) {
  const TempFolder folder;
  const std::string file = folder.write("k.toml", "[[listen]]\ntransport = 'udp'\nadress = '127.0.0.1:1'\n");
  const Ran ran = run(folder, {"check", file});
  EXPECT_EQ(ran.code, 1);
  EXPECT_EQ(ran.output, "ktrunk: " + file + ":1: key 'listen[0].address': missing; expected \"IP:PORT\" to bind to\n");
  EXPECT_EQ(run(folder, {"check", folder.file("none")}).code, 1);
}

TEST(CheckCommandTest, FilesThatTheConfigurationNamesMustBeThere) {
  const TempFolder folder;
  const std::string file = folder.write(
      "k.toml", "[[listen]]\ntransport = 'tls'\naddress = '127.0.0.1:1'\ncertificate = 'c.pem'\nkey = 'c.key'\n");
  const Ran ran = run(folder, {"check", file});
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.output, HasSubstr(":4: key 'listen[0].certificate': cannot read " + folder.file("c.pem")));
}

TEST(CommandLineTest, WrongUseIsStatus2) {
  const TempFolder folder;
  EXPECT_EQ(run(folder, {}).code, 2);
  EXPECT_EQ(run(folder, {"check"}).code, 2);
  EXPECT_EQ(run(folder, {"fly"}).code, 2);
  EXPECT_EQ(run(folder, {"status", "--socket", "a", "--config", "b"}).code, 2);
  EXPECT_EQ(run(folder, {"--help"}).code, 0);
  EXPECT_EQ(run(folder, {"--version"}).code, 0);
}

TEST(StatusCommandTest, Tables) {
  const TempFolder folder;
  ControlServer server(folder.file("c"), kStatus.dump() + "\n");
  const Ran ran = run(folder, {"status", "--socket", folder.file("c")});
  EXPECT_EQ(server.finish(), "{\"command\":\"status\"}\n");
  EXPECT_EQ(ran.code, 0);
  EXPECT_EQ(ran.output, R"(ktrunkd 0.1.0, process 77, running, up 1 d 2 h
Handshakes: 3 accepted, 4 connected, 5 failed, 6 refused, 1 in progress
Keys renewed: 2 for sending, 3 for receiving; 1 connections replaced

Processes
  process      pid  restarts
  handshake/0   78         0
  worker/0      79         2

Handshake processes
  process  accepted  connected  failed  refused  in progress  resumed  tickets  kernel  relayed
  0               3          4       5        6            1        2        8       7        0

Workers
  worker  received  sent  records  bytes sent  requests  responses  replies  dropped  queue full  queued  handed over
  0             10    11       12          13         5          6        7        8           9      14           15

Trunks
  trunk    state           for  connections  wanted  OPTIONS answered
  carrier  degraded  1 min 5 s            1       2  200, 3 s ago

Connections (2)
  connection  state  trunk    listener  peer            transport  TLS  cipher                  home  queued  sent per worker  rekeys  records by
  0.1         open   carrier  -         192.0.2.1:5061  tls        1.3  TLS_AES_128_GCM_SHA256     0      16  11 0                2/1  kernel (software)
  1.1         open   -        -         ?[2J            tls        -    -                          -       -  -                     -  relay: the kernel has no TLS

Kernel TLS (/proc/net/tls_stat, the whole network namespace)
  counter      value
  TlsCurrTxSw      1
)");
}

TEST(ReloadCommandTest, Done) {
  const TempFolder folder;
  ControlServer server(folder.file("c"), R"({"reload": "done", "what": ["edge.pem ends soon", "\u001b[2J"]})");
  const Ran ran = run(folder, {"reload", "--socket", folder.file("c")});
  EXPECT_EQ(server.finish(), "{\"command\":\"reload\"}\n");
  EXPECT_EQ(ran.code, 0);
  EXPECT_EQ(ran.output, "reloaded: new handshakes use the files as they are now\n  edge.pem ends soon\n  ?[2J\n");
}

TEST(ReloadCommandTest, FailedIsTheExitStatus) {
  const TempFolder folder;
  {
    const ControlServer server(folder.file("c"), R"({"reload": "failed", "what": ["k.toml:3: no PEM"]})");
    const Ran ran = run(folder, {"reload", "--socket", folder.file("c")});
    EXPECT_EQ(ran.code, 1);
    EXPECT_EQ(ran.output, "ktrunk: reload failed; what was read before stays in force\n  k.toml:3: no PEM\n");
  }
  for (const char* odd : {"{}", "[]", R"({"reload": 1})", R"({"reload": "maybe"})", R"({"error": "unknown"})"}) {
    std::filesystem::remove(folder.path() / "c");
    const ControlServer server(folder.file("c"), odd);
    EXPECT_EQ(run(folder, {"reload", "--socket", folder.file("c")}).code, 1) << odd;
  }
}

TEST(StatusCommandTest, Json) {
  const TempFolder folder;
  ControlServer server(folder.file("c"), kStatus.dump());
  const Ran ran = run(folder, {"status", "--json", "--socket", folder.file("c")});
  EXPECT_EQ(ran.code, 0);
  EXPECT_EQ(ran.output, kStatus.dump(2) + "\n");
}

TEST(StatusCommandTest, TheConfigurationSaysWhereTheSocketIs) {
  const TempFolder folder;
  const std::string file = folder.write("k.toml", "[ktrunk]\ncontrol = '" + folder.file("c") +
                                                      "'\n[[listen]]\ntransport = 'udp'\naddress = '127.0.0.1:1'\n");
  ControlServer server(folder.file("c"), "{}");
  EXPECT_EQ(run(folder, {"status", "--config", file}).code, 0);
}

TEST(StatusCommandTest, NoDaemon) {
  const TempFolder folder;
  const Ran absent = run(folder, {"status", "--socket", folder.file("c")});
  EXPECT_EQ(absent.code, 1);
  EXPECT_EQ(absent.output, "ktrunk: there is no control socket at " + folder.file("c") +
                               ": ktrunkd is not running, or its configuration has another path (control in [ktrunk]; "
                               "see --config)\n");
  {
    const ControlServer gone(folder.file("c"), "");
  }
  const Ran refused = run(folder, {"status", "--socket", folder.file("c")});
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.output, HasSubstr("ktrunkd is not running (its last run left the socket behind)"));
  EXPECT_THAT(run(folder, {"status", "--socket", std::string(200, 'a')}).output, HasSubstr("is no path for a control"));
}

TEST(ControlClientTest, BadAnswers) {
  const TempFolder folder;
  for (const auto& [answer, message] :
       {std::pair{"", "without an answer"}, std::pair{"{\"a\":", "not JSON, or was cut off after 5 bytes"},
        std::pair{"hello", "not JSON"}, std::pair{"{} {}", "not JSON"},
        std::pair{"{\"error\":\"unknown command\"}", "ktrunkd refuses 'status': unknown command"}}) {
    std::filesystem::remove(folder.path() / "c");
    const ControlServer server(folder.file("c"), answer);
    const auto result = cli::ask(folder.file("c"), "status");
    ASSERT_FALSE(result) << answer;
    EXPECT_THAT(result.error().what, HasSubstr(message));
  }
}

TEST(ControlClientTest, SilenceEndsWithTheTimeout) {
  const TempFolder folder;
  const std::string path = folder.file("c");
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
  std::ranges::copy(path, address.sun_path);
  const Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  EXPECT_THAT(cli::ask(path, "status", milliseconds(50)).error().what, HasSubstr("takes too long"));
}

// Whatever an answer's members are, the report is made; types are not to be relied on.
TEST(StatusReportTest, AnyMemberMayBeMissingOrOdd) {
  for (const auto& [name, value] : kStatus.items()) {
    for (const char* odd : {"null", "7", "-1.5", "\"text\"", "[]", "[1]", "[[]]", "{}", "{\"a\":{}}", "[{\"id\":[]}]",
                            "true", "1e300", "\"a\\nb\""}) {
      nlohmann::ordered_json status = kStatus;
      status[name] = nlohmann::ordered_json::parse(odd);
      EXPECT_THAT(cli::status_report(status), StartsWith("ktrunkd "));
    }
    nlohmann::ordered_json status = kStatus;
    status.erase(name);
    EXPECT_THAT(cli::status_report(status), Not(HasSubstr("\x1b")));
  }
  EXPECT_EQ(cli::status_report(nlohmann::ordered_json::array()), "ktrunkd -, process -, -, up -\n\nNo connections\n");
}

}  // namespace
}  // namespace ktrunk::test
