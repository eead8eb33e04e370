// What a good file becomes; and that no text whatever makes the parser misbehave.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <string>

#include "config/config.h"

namespace ktrunk::config {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr std::string_view kWhole = R"(# a comment
[ktrunk]
workers = 3
record_layer = "relay"
control = "/run/k/c.sock"
log_format = "json"
log_level = "debug"
handshake_processes = 8
user = "ktrunk"
ticket_rotation = "2h"
dns = ["192.0.2.53", "[2001:db8::53]:5353"]

[limits]
max_connections = 100
max_message_bytes = 20000
max_header_bytes = 8192
max_headers = 100
max_vias = 20
max_queue_bytes = 40000
stalled_peer = "45s"
partial_message = "500ms"
handshake = "1m"
drain = "0s"
handshakes = 11
handshakes_per_address = 12
handshake_rate = 13
connections_per_address = 14
key_records = 16

[hep]
collector = "udp:[2001:db8::9]:9060"
capture_id = 2001
auth_key = "secret"
sample = "50%"

[[listen]]
name = "wan"
transport = "tls"
address = "0.0.0.0:5061"
advertise = "sip.example.net"
certificate = "wan.pem"
key = "/secret/wan.key"
ca = "../ca.pem"
verify_client = "require"
min_version = "1.3"
ciphersuites = "TLS_AES_128_GCM_SHA256"
tickets = 0
crl = "crl.pem"
ocsp = "wan.ocsp"
groups = "X25519:P-256"
alpn = "require"
client_purpose = "any"
[[listen.certificates]]
certificate = "b.pem"
key = "b.key"
ocsp = "b.ocsp"
names = ["B.example.net.", "*.b.example.net"]
[[listen.certificates]]
certificate = "d.pem"
key = "d.key"

[[listen]]
transport = "udp"
address = "[::1]:5060"
advertise = "[2001:db8::7]:5070"
strangers = "ignore"

[[trunk]]
name = "carrier"
targets = ["tls:sip.carrier.example", "tls:[2001:db8::1]:5071"]
verify_name = "carrier.example"
certificate = "c.pem"
key = "c.key"
max_version = "1.2"
ciphers = "ECDHE+AESGCM"
connections = 32
crl = "carrier.crl"
groups = "P-384"
alpn = "accept"
options_interval = "30s"
options_timeout = "2s"
options_failures = 5
keepalive = "2m"
failback = "0s"
max_requests_per_second = 100
max_invites = 20
hep_sample = "2.5%"

[[trunk]]
name = "pbx"
targets = ["udp:127.0.0.1:5080"]
large_requests = "tcp"

[[trunk]]
name = "dials-in"
verify_name = "peer.example"
listen = "wan"

[[route]]
from_trunk = "carrier"
methods = ["INVITE", "OPTIONS"]
user_prefix = "+49"
user_match = '\+49[0-9]{3,}'
host = "Example.COM"
to = ["pbx", "carrier"]
rewrite_user_prefix = { from = "+49", to = "0" }
rewrite_host = "PBX.example:5070"
remove_headers = ["X-Internal", "s"]
add_headers = ["X-Trunk:  carrier ", "Subject:"]

[[route]]
has_headers = ["Diversion", "x"]
reject = 486

[[route]]
from_listener = "udp:[::1]:5060"
to = "carrier"
)";

TEST(ParseTest, ReadsEveryKey) {
  const auto config = parse(kWhole, "/etc/ktrunk/ktrunk.toml");
  ASSERT_TRUE(config) << config.error().what;
  EXPECT_EQ(config->path, "/etc/ktrunk/ktrunk.toml");
  EXPECT_EQ(config->workers, 3u);
  EXPECT_EQ(config->record_layer, RecordLayer::kRelay);
  EXPECT_EQ(config->control_socket, "/run/k/c.sock");
  EXPECT_EQ(config->log_format, log::Format::kJson);
  EXPECT_EQ(config->log_level, log::Level::kDebug);
  EXPECT_EQ(config->limits.max_connections, 100u);
  EXPECT_EQ(config->limits.max_message_bytes, 20000u);
  EXPECT_EQ(config->limits.max_header_bytes, 8192u);
  EXPECT_EQ(config->limits.max_headers, 100u);
  EXPECT_EQ(config->limits.max_vias, 20u);
  EXPECT_EQ(config->limits.max_queue_bytes, 40000u);
  EXPECT_EQ(config->limits.stalled_peer, milliseconds(45'000));
  EXPECT_EQ(config->limits.partial_message, milliseconds(500));
  EXPECT_EQ(config->limits.handshake, milliseconds(60'000));
  EXPECT_EQ(config->limits.drain, milliseconds(0));
  EXPECT_EQ(config->handshake_processes, 8u);
  EXPECT_EQ(config->user, "ktrunk");
  EXPECT_EQ(config->ticket_rotation, std::chrono::hours(2));
  EXPECT_EQ(config->limits.handshakes, 11u);
  EXPECT_EQ(config->limits.handshakes_per_address, 12u);
  EXPECT_EQ(config->limits.handshake_rate, 13u);
  EXPECT_EQ(config->limits.connections_per_address, 14u);
  EXPECT_EQ(config->limits.key_records, 16u);

  ASSERT_EQ(config->dns.size(), 2u);
  EXPECT_EQ(config->dns[0].text(), "192.0.2.53:53");
  EXPECT_EQ(config->dns[1].text(), "[2001:db8::53]:5353");

  ASSERT_EQ(config->listeners.size(), 2u);
  const Listener& wan = config->listeners[0];
  EXPECT_EQ(wan.name, "wan");
  EXPECT_EQ(wan.transport, Transport::kTls);
  EXPECT_EQ(wan.address.text(), "0.0.0.0:5061");
  EXPECT_EQ(wan.advertise_host, "sip.example.net");
  EXPECT_EQ(wan.advertise_port, 5061);
  EXPECT_EQ(wan.tls.certificate, "/etc/ktrunk/wan.pem");
  EXPECT_EQ(wan.tls.key, "/secret/wan.key");
  EXPECT_EQ(wan.tls.ca, "/etc/ca.pem");
  EXPECT_EQ(wan.verify_client, ClientVerification::kRequire);
  EXPECT_FALSE(wan.tls.allow_tls12);
  EXPECT_TRUE(wan.tls.allow_tls13);
  EXPECT_EQ(wan.tls.ciphersuites, "TLS_AES_128_GCM_SHA256");
  EXPECT_EQ(wan.tickets, 0u);
  EXPECT_EQ(wan.tls.crl, "/etc/ktrunk/crl.pem");
  EXPECT_EQ(wan.tls.ocsp, "/etc/ktrunk/wan.ocsp");
  EXPECT_EQ(wan.tls.groups, "X25519:P-256");
  EXPECT_EQ(wan.tls.alpn, Alpn::kRequire);
  EXPECT_EQ(wan.client_purpose, ClientPurpose::kAny);
  ASSERT_EQ(wan.certificates.size(), 2u);
  EXPECT_EQ(wan.certificates[0].certificate, "/etc/ktrunk/b.pem");
  EXPECT_EQ(wan.certificates[0].key, "/etc/ktrunk/b.key");
  EXPECT_EQ(wan.certificates[0].ocsp, "/etc/ktrunk/b.ocsp");
  EXPECT_THAT(wan.certificates[0].names, ElementsAre("b.example.net", "*.b.example.net"));
  EXPECT_EQ(wan.certificates[1].ocsp, "");
  EXPECT_TRUE(wan.certificates[1].names.empty());
  const Listener& lan = config->listeners[1];
  EXPECT_EQ(lan.name, "udp:[::1]:5060");
  EXPECT_EQ(lan.advertise_host, "[2001:db8::7]");
  EXPECT_EQ(lan.advertise_port, 5070);

  ASSERT_EQ(config->trunks.size(), 3u);
  const Trunk& carrier = config->trunks[0];
  ASSERT_EQ(carrier.targets.size(), 2u);
  EXPECT_EQ(carrier.targets[0].host, "sip.carrier.example");
  EXPECT_EQ(carrier.targets[0].port, 0);  // by SRV
  EXPECT_EQ(carrier.targets[1].host, "2001:db8::1");
  EXPECT_EQ(carrier.targets[1].port, 5071);
  EXPECT_EQ(carrier.verify_name, "carrier.example");
  EXPECT_EQ(carrier.connections, 32u);
  EXPECT_TRUE(carrier.tls.allow_tls12);
  EXPECT_FALSE(carrier.tls.allow_tls13);
  EXPECT_EQ(carrier.tls.ciphers, "ECDHE+AESGCM");
  EXPECT_EQ(carrier.tls.crl, "/etc/ktrunk/carrier.crl");
  EXPECT_EQ(carrier.tls.groups, "P-384");
  EXPECT_EQ(carrier.tls.alpn, Alpn::kAccept);
  EXPECT_EQ(carrier.listener, ListenerId{0});
  EXPECT_EQ(carrier.options_interval, milliseconds(30'000));
  EXPECT_EQ(carrier.options_timeout, milliseconds(2'000));
  EXPECT_EQ(carrier.options_failures, 5u);
  EXPECT_EQ(carrier.keepalive, milliseconds(120'000));
  EXPECT_EQ(carrier.failback, milliseconds(0));
  EXPECT_EQ(carrier.max_requests_per_second, 100u);
  EXPECT_EQ(carrier.max_invites, 20u);
  EXPECT_EQ(carrier.hep_sample.millionths, 25'000u);
  EXPECT_EQ(config->hep.collector.text(), "[2001:db8::9]:9060");
  EXPECT_EQ(config->hep.capture_id, 2001u);
  EXPECT_EQ(config->hep.auth_key, "secret");
  EXPECT_EQ(config->hep.sample.millionths, 500'000u);
  EXPECT_EQ(config->trunks[1].options_interval, milliseconds(0));
  EXPECT_EQ(config->trunks[1].failback, milliseconds(30'000));
  EXPECT_EQ(wan.strangers, Strangers::kServe);
  EXPECT_EQ(lan.strangers, Strangers::kIgnore);
  EXPECT_EQ(config->trunks[1].targets[0].transport, Transport::kUdp);
  EXPECT_EQ(config->trunks[1].listener, ListenerId{1});
  EXPECT_EQ(config->trunks[1].large_requests, LargeRequests::kTcp);
  ASSERT_EQ(connection_targets(config->trunks[1]).size(), 1u);
  EXPECT_EQ(connection_targets(config->trunks[1])[0].transport, Transport::kTcp);
  EXPECT_EQ(connection_targets(config->trunks[1])[0].port, 5080);
  EXPECT_EQ(connection_targets(config->trunks[0])[0].transport, config->trunks[0].targets[0].transport);
  EXPECT_TRUE(config->trunks[2].targets.empty());
  EXPECT_EQ(config->trunks[2].listener, ListenerId{0});

  ASSERT_EQ(config->routes.size(), 3u);
  EXPECT_EQ(config->routes[0].from_trunk, TrunkId{0});
  EXPECT_FALSE(config->routes[0].from_listener.valid());
  EXPECT_THAT(config->routes[0].methods, ElementsAre("INVITE", "OPTIONS"));
  EXPECT_EQ(config->routes[0].user_prefix, "+49");
  EXPECT_EQ(config->routes[0].host, "example.com");
  EXPECT_THAT(config->routes[0].to, ElementsAre(TrunkId{1}, TrunkId{0}));
  EXPECT_EQ(config->routes[0].user_match, "\\+49[0-9]{3,}");
  EXPECT_EQ(config->routes[0].rewrite_user_prefix, (PrefixRewrite{.from = "+49", .to = "0"}));
  EXPECT_EQ(config->routes[0].rewrite_host, "PBX.example:5070");
  ASSERT_EQ(config->routes[0].remove_headers.size(), 2u);
  EXPECT_EQ(config->routes[0].remove_headers[1].name, "Subject");
  EXPECT_EQ(config->routes[0].add_headers, "X-Trunk: carrier\r\nSubject: \r\n");
  EXPECT_EQ(config->routes[0].reject, 0);
  EXPECT_TRUE(config->routes[1].to.empty());
  ASSERT_EQ(config->routes[1].has_headers.size(), 2u);
  EXPECT_EQ(config->routes[1].has_headers[1].compact, 'x');
  EXPECT_EQ(config->routes[1].reject, 486);
  EXPECT_EQ(config->routes[1].reason, "Busy Here");
  EXPECT_FALSE(config->routes[1].from_trunk.valid());
  EXPECT_EQ(config->routes[2].from_listener, ListenerId{1});
  EXPECT_THAT(config->routes[2].to, ElementsAre(TrunkId{0}));

  std::vector<std::string> files;
  for (const FileReference& file : config->files) files.push_back(fmt::format("{} {}", file.key, file.line));
  EXPECT_THAT(files, ElementsAre("listen[0].certificate 41", "listen[0].key 42", "listen[0].ca 43", "listen[0].crl 48",
                                 "listen[0].ocsp 49", "listen[0].certificates[0].certificate 54",
                                 "listen[0].certificates[0].key 55", "listen[0].certificates[0].ocsp 56",
                                 "listen[0].certificates[1].certificate 59", "listen[0].certificates[1].key 60",
                                 "trunk[0].certificate 72", "trunk[0].key 73", "trunk[0].crl 77"));
}

TEST(ParseTest, DefaultsAreThoseOfTheStructs) {
  const auto config = parse("[[listen]]\ntransport = 'udp'\naddress = '127.0.0.1:5060'\n", "k.toml");
  ASSERT_TRUE(config) << config.error().what;
  EXPECT_GE(config->workers, 1u);
  EXPECT_LE(config->workers, kMaxWorkers);
  EXPECT_EQ(config->record_layer, RecordLayer::kAuto);
  EXPECT_EQ(config->control_socket, "/run/ktrunk/control.sock");
  EXPECT_EQ(config->limits.max_message_bytes, Limits{}.max_message_bytes);
  EXPECT_EQ(config->listeners[0].name, "udp:127.0.0.1:5060");
  EXPECT_EQ(config->listeners[0].advertise_host, "127.0.0.1");
  EXPECT_EQ(config->listeners[0].advertise_port, 5060);
  EXPECT_TRUE(config->files.empty());
  EXPECT_EQ(config->handshake_processes, 1u);
  EXPECT_EQ(config->user, "nobody");
  EXPECT_EQ(config->ticket_rotation, std::chrono::hours(1));
  EXPECT_EQ(config->limits.key_records, Limits{}.key_records);
}

TEST(ParseTest, AListenerAcceptsAlpnAndATrunkOffersNone) {
  const auto config = parse(
      "[[listen]]\ntransport = 'tls'\naddress = '127.0.0.1:5061'\ncertificate = 'c.pem'\nkey = 'c.key'\n"
      "[[trunk]]\nname = 'a'\ntargets = ['tls:a.example']\n",
      "k.toml");
  ASSERT_TRUE(config) << config.error().what;
  EXPECT_EQ(config->listeners[0].tls.alpn, Alpn::kAccept);
  EXPECT_EQ(config->listeners[0].client_purpose, ClientPurpose::kClient);
  EXPECT_EQ(config->trunks[0].tls.alpn, Alpn::kOff);
}

TEST(ParseTest, FileNamesOfARelativePathAreMadeAbsolute) {
  const auto config =
      parse("[[listen]]\ntransport = 'tls'\naddress = '127.0.0.1:5061'\ncertificate = 'c.pem'\nkey = 'c.key'\n",
            "conf/k.toml");
  ASSERT_TRUE(config) << config.error().what;
  EXPECT_TRUE(config->listeners[0].tls.certificate.starts_with('/'));
  EXPECT_TRUE(config->listeners[0].tls.certificate.ends_with("/conf/c.pem"));
}

TEST(ParseTest, AStreamTrunkFallsBackToTheFirstListener) {
  const auto config = parse(
      "[[listen]]\ntransport = 'udp'\naddress = '127.0.0.1:5060'\n[[trunk]]\nname = 'a'\ntargets = ['tcp:10.0.0.1']\n",
      "k.toml");
  ASSERT_TRUE(config) << config.error().what;
  EXPECT_EQ(config->trunks[0].listener, ListenerId{0});
  EXPECT_EQ(config->trunks[0].targets[0].port, 5060);
}

TEST(ParseTest, TheSamePortOfTcpAndUdpIsNoClash) {
  EXPECT_TRUE(
      parse("[[listen]]\ntransport = 'udp'\naddress = '127.0.0.1:5060'\n"
            "[[listen]]\ntransport = 'tcp'\naddress = '127.0.0.1:5060'\n",
            "k.toml"));
}

// Whatever comes out is a configuration or an error with the file's name in front.
void expect_sane(std::string_view text) {
  const auto config = parse(text, "k.toml");
  if (config) {
    EXPECT_FALSE(config->listeners.empty());
  } else {
    EXPECT_THAT(config.error().what, testing::StartsWith("k.toml:"));
  }
}

TEST(ParseTest, EveryPrefixIsParsedOrRefused) {
  for (std::size_t length = 0; length <= kWhole.size(); ++length) expect_sane(kWhole.substr(0, length));
}

TEST(ParseTest, EveryLineMayBeMissing) {
  for (std::size_t begin = 0; begin < kWhole.size();) {
    const std::size_t end = kWhole.find('\n', begin) + 1;
    expect_sane(std::string(kWhole.substr(0, begin)) + std::string(kWhole.substr(end)));
    begin = end;
  }
}

TEST(ParseTest, RandomDamageIsParsedOrRefused) {
  std::mt19937 random(20260);
  for (int round = 0; round < 2000; ++round) {
    std::string text(kWhole);
    for (int change = 0; change < 1 + round % 4; ++change) {
      const std::size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = static_cast<char>(random() % 256);
          break;
        case 1:
          text.erase(at, 1 + random() % 12);
          break;
        default:
          text.insert(at, 1, "\"[]{}=.#\n\\'\0\x80"[random() % 13]);
          break;
      }
    }
    expect_sane(text);
  }
}

TEST(ParseTest, DeepNestingIsRefused) {
  std::string text = "x = ";
  text.append(100'000, '[');
  EXPECT_FALSE(parse(text, "k.toml"));
  EXPECT_FALSE(parse("[a.b.c.d.e.f.g.h.i.j.k.l.m.n]\no = 1\n", "k.toml"));
}

TEST(ParseTest, ATextTooLongIsRefused) {
  const auto config = parse(std::string(kMaxTextBytes + 1, '\n'), "k.toml");
  ASSERT_FALSE(config);
  EXPECT_THAT(config.error().what, HasSubstr("expected at most"));
}

}  // namespace
}  // namespace ktrunk::config
