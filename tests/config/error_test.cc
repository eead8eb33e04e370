// Every complaint, word for word: file, line, key, what is wrong, what was expected.
#include <gtest/gtest.h>

#include <string>

#include "config/config.h"

namespace ktrunk::config {
namespace {

struct Case {
  const char* name;
  std::string text;
  std::string message;
};

void PrintTo(const Case& value, std::ostream* out) { *out << value.name; }

// A listener for the cases that are about something else; three lines.
const std::string kUdp = "[[listen]]\ntransport = 'udp'\naddress = '127.0.0.1:5060'\n";
const std::string kTls =
    "[[listen]]\ntransport = 'tls'\naddress = '127.0.0.1:5061'\ncertificate = 'c.pem'\nkey = 'c.key'\n";
const std::string kTrunk = "[[trunk]]\nname = 'a'\ntargets = ['udp:127.0.0.1:5070']\n";

class ErrorTest : public testing::TestWithParam<Case> {};

TEST_P(ErrorTest, SaysWhereAndWhat) {
  const auto config = parse(GetParam().text, "k.toml");
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().what, GetParam().message);
}

const Case kTopCases[] = {
    {"dns", "[ktrunk]\ndns = ['127.0.0.1', 'a.example']\n" + kUdp,
     "k.toml:2: key 'ktrunk.dns[1]': 'a.example'; expected the address of a name server, \"IP\" or \"IP:PORT\""},
    {"strangers", kUdp + "strangers = 'refuse'\n",
     "k.toml:4: key 'listen[0].strangers': 'refuse'; expected \"serve\", \"reject\" or \"ignore\""},
    {"keepalive_udp", kUdp + kTrunk + "large_requests = 'udp'\nkeepalive = '30s'\n",
     "k.toml:8: key 'trunk[0].keepalive': the targets are udp ones, which have no connections; expected "
     "options_interval"},
    {"large_requests_tcp", kUdp + "[[trunk]]\nname = 'a'\ntargets = ['tcp:127.0.0.1:5070']\nlarge_requests = 'tcp'\n",
     "k.toml:7: key 'trunk[0].large_requests': no target is a \"udp:\" one; connections carry requests of any size"},
    {"large_requests_tls", kUdp + kTrunk + "large_requests = 'tls'\n",
     "k.toml:7: key 'trunk[0].large_requests': 'tls'; expected \"udp\" or \"tcp\""},
    {"options_often", kUdp + kTrunk + "options_interval = '10ms'\n",
     "k.toml:7: key 'trunk[0].options_interval': 10 ms; expected \"0s\" for none, or at least 1000 ms"},
    {"hep_empty", "[hep]\n" + kUdp,
     "k.toml:1: key 'hep.collector': missing; expected \"udp:IP:PORT\", where the collector takes HEPv3"},
    {"hep_tcp", "[hep]\ncollector = 'tcp:127.0.0.1:9060'\n" + kUdp,
     "k.toml:2: key 'hep.collector': 'tcp:127.0.0.1:9060'; expected \"udp:IP:PORT\", where the collector takes HEPv3"},
    {"hep_name", "[hep]\ncollector = 'udp:homer.example:9060'\n" + kUdp,
     "k.toml:2: key 'hep.collector': 'udp:homer.example:9060'; expected \"udp:IP:PORT\", where the collector takes "
     "HEPv3"},
    {"hep_nowhere", "[hep]\ncollector = 'udp:0.0.0.0:9060'\n" + kUdp,
     "k.toml:2: key 'hep.collector': 'udp:0.0.0.0:9060'; expected \"udp:IP:PORT\", where the collector takes HEPv3"},
    {"hep_port", "[hep]\ncollector = 'udp:127.0.0.1:0'\n" + kUdp,
     "k.toml:2: key 'hep.collector': 'udp:127.0.0.1:0'; expected \"udp:IP:PORT\", where the collector takes HEPv3"},
    {"hep_id", "[hep]\ncollector = 'udp:127.0.0.1:9060'\ncapture_id = -1\n" + kUdp,
     "k.toml:3: key 'hep.capture_id': -1; expected an integer of 0 to 4294967295"},
    {"hep_key", "[hep]\ncollector = 'udp:127.0.0.1:9060'\nauth_key = '" + std::string(129, 'k') + "'\n" + kUdp,
     "k.toml:3: key 'hep.auth_key': 129 octets; expected 128 at most"},
    {"hep_sample", "[hep]\ncollector = 'udp:127.0.0.1:9060'\nsample = '101%'\n" + kUdp,
     "k.toml:3: key 'hep.sample': '101%' is no share; expected a percentage such as \"100%\" or \"0.5%\""},
    {"hep_unknown", "[hep]\ncollector = 'udp:127.0.0.1:9060'\nsampel = '1%'\n" + kUdp,
     "k.toml:3: key 'hep.sampel': unknown key; did you mean 'sample'?"},
    {"hep_of_trunk", kUdp + kTrunk + "hep_sample = '10%'\n",
     "k.toml:7: key 'trunk[0].hep_sample': nothing is exported; expected a [hep] table with a collector"},
    {"hep_of_trunk_share", "[hep]\ncollector = 'udp:127.0.0.1:9060'\n" + kUdp + kTrunk + "hep_sample = 'all'\n",
     "k.toml:9: key 'trunk[0].hep_sample': 'all' is no share; expected a percentage such as \"100%\" or \"0.5%\""},
    {"empty", "", "k.toml:1: key 'listen': missing; expected at least one [[listen]] table"},
    {"unknown_table", kUdp + "[limit]\n", "k.toml:4: key 'limit': unknown key; did you mean 'limits'?"},
    {"unknown_far", kUdp + "[database]\n",
     "k.toml:4: key 'database': unknown key; expected one of ktrunk, limits, hep, listen, trunk, route"},
    {"not_a_table", "ktrunk = 1\n" + kUdp, "k.toml:1: key 'ktrunk': an integer; expected a table, [ktrunk]"},
    {"single_brackets", "[listen]\n", "k.toml:1: key 'listen': a table; expected tables, each begun by [[listen]]"},
    {"array_of_numbers", "trunk = [1]\n" + kUdp,
     "k.toml:1: key 'trunk[0]': an integer; expected tables, each begun by [[trunk]]"},
    {"workers_type", "[ktrunk]\nworkers = '4'\n" + kUdp,
     "k.toml:2: key 'ktrunk.workers': a string; expected an integer of 1 to 32"},
    {"workers_zero", "[ktrunk]\nworkers = 0\n" + kUdp,
     "k.toml:2: key 'ktrunk.workers': 0; expected an integer of 1 to 32"},
    {"workers_many", "[ktrunk]\nworkers = 33\n" + kUdp,
     "k.toml:2: key 'ktrunk.workers': 33; expected an integer of 1 to 32"},
    {"workers_negative", "[ktrunk]\nworkers = -9223372036854775808\n" + kUdp,
     "k.toml:2: key 'ktrunk.workers': -9223372036854775808; expected an integer of 1 to 32"},
    {"workers_typo", "[ktrunk]\nworker = 2\n" + kUdp,
     "k.toml:2: key 'ktrunk.worker': unknown key; did you mean 'workers'?"},
    {"record_layer", "[ktrunk]\nrecord_layer = 'ktls'\n" + kUdp,
     "k.toml:2: key 'ktrunk.record_layer': 'ktls'; expected \"auto\", \"kernel\" or \"relay\""},
    {"record_layer_type", "[ktrunk]\nrecord_layer = true\n" + kUdp,
     "k.toml:2: key 'ktrunk.record_layer': a boolean; expected \"auto\", \"kernel\" or \"relay\""},
    {"control_relative", "[ktrunk]\ncontrol = 'c.sock'\n" + kUdp,
     "k.toml:2: key 'ktrunk.control': 'c.sock'; expected an absolute path"},
    {"control_long", "[ktrunk]\ncontrol = '/" + std::string(107, 'a') + "'\n" + kUdp,
     "k.toml:2: key 'ktrunk.control': the path is 108 bytes long; expected at most 107, the limit for a Unix socket"},
    {"control_zero", "[ktrunk]\ncontrol = \"/a\\u0000b\"\n" + kUdp,
     "k.toml:2: key 'ktrunk.control': has a control character; expected printable text"},
    {"log_format", "[ktrunk]\nlog_format = 'xml'\n" + kUdp,
     "k.toml:2: key 'ktrunk.log_format': 'xml'; expected \"text\" or \"json\""},
    {"log_level", "[ktrunk]\nlog_level = 'loud'\n" + kUdp,
     "k.toml:2: key 'ktrunk.log_level': 'loud' is no log level; expected trace, debug, info, warn, error, critical or "
     "off"},
    {"duration_number", "[limits]\ndrain = 5\n" + kUdp,
     "k.toml:2: key 'limits.drain': an integer; expected a duration as a string, like \"30s\" or \"500ms\""},
    {"duration_unit", "[limits]\ndrain = '5'\n" + kUdp,
     "k.toml:2: key 'limits.drain': '5' is no duration; expected a whole number and a unit of ms, s, m or h, like "
     "\"30s\""},
    {"duration_short", "[limits]\nhandshake = '99ms'\n" + kUdp,
     "k.toml:2: key 'limits.handshake': '99ms'; expected a duration of 100ms to 1h"},
    {"duration_long", "[limits]\ndrain = '61m'\n" + kUdp,
     "k.toml:2: key 'limits.drain': '61m'; expected a duration of 0s to 1h"},
    {"message_small", "[limits]\nmax_message_bytes = 10\n" + kUdp,
     "k.toml:2: key 'limits.max_message_bytes': 10; expected an integer of 1024 to 1048576"},
    {"queue_small", "[limits]\nmax_queue_bytes = 5000\n" + kUdp,
     "k.toml:2: key 'limits.max_queue_bytes': 5000 is less than max_message_bytes; expected at least 65535"},
    {"float", "[limits]\nmax_connections = 1e3\n" + kUdp,
     "k.toml:2: key 'limits.max_connections': a floating-point number; expected an integer of 1 to 1048576"},
    {"date", "[limits]\nmax_connections = 2026-01-01\n" + kUdp,
     "k.toml:2: key 'limits.max_connections': a date or time; expected an integer of 1 to 1048576"},
    {"handshake_processes", "[ktrunk]\nhandshake_processes = 9\n" + kUdp,
     "k.toml:2: key 'ktrunk.handshake_processes': 9; expected an integer of 1 to 8"},
    {"user", "[ktrunk]\nuser = '../x'\n" + kUdp,
     "k.toml:2: key 'ktrunk.user': '../x'; expected the name of a user of this system"},
    {"user_empty", "[ktrunk]\nuser = ''\n" + kUdp,
     "k.toml:2: key 'ktrunk.user': empty; expected a value, or no such key at all"},
    {"user_long", "[ktrunk]\nuser = '" + std::string(33, 'u') + "'\n" + kUdp,
     "k.toml:2: key 'ktrunk.user': '" + std::string(33, 'u') + "'; expected the name of a user of this system"},
    {"ticket_rotation", "[ktrunk]\nticket_rotation = '85h'\n" + kUdp,
     "k.toml:2: key 'ktrunk.ticket_rotation': '85h'; expected a duration of 1s to 84h"},
    {"handshakes", "[limits]\nhandshakes = 0\n" + kUdp,
     "k.toml:2: key 'limits.handshakes': 0; expected an integer of 1 to 1048576"},
    {"handshakes_per_address", "[limits]\nhandshakes_per_address = -1\n" + kUdp,
     "k.toml:2: key 'limits.handshakes_per_address': -1; expected an integer of 1 to 1048576"},
    {"handshake_rate", "[limits]\nhandshake_rate = '9'\n" + kUdp,
     "k.toml:2: key 'limits.handshake_rate': a string; expected an integer of 1 to 1048576"},
    {"connections_per_address", "[limits]\nconnections_per_address = 1048577\n" + kUdp,
     "k.toml:2: key 'limits.connections_per_address': 1048577; expected an integer of 1 to 1048576"},
    {"key_records_few", "[limits]\nkey_records = 15\n" + kUdp,
     "k.toml:2: key 'limits.key_records': 15; expected an integer of 16 to 16777216"},
    {"key_records_many", "[limits]\nkey_records = 16777217\n" + kUdp,
     "k.toml:2: key 'limits.key_records': 16777217; expected an integer of 16 to 16777216"},
    {"header_bytes_few", "[limits]\nmax_header_bytes = 511\n" + kUdp,
     "k.toml:2: key 'limits.max_header_bytes': 511; expected an integer of 512 to 16384"},
    {"headers_many", "[limits]\nmax_headers = 257\n" + kUdp,
     "k.toml:2: key 'limits.max_headers': 257; expected an integer of 16 to 256"},
    {"vias_many", "[limits]\nmax_vias = 72\n" + kUdp,
     "k.toml:2: key 'limits.max_vias': 72; expected an integer of 2 to 71"},
    {"first_by_line", "[[listen]]\ntransport = 'udp'\naddress = 'x'\n[ktrunk]\nworkers = 0\n",
     "k.toml:3: key 'listen[0].address': 'x' has no port; expected ADDRESS:PORT"},
};
INSTANTIATE_TEST_SUITE_P(Top, ErrorTest, testing::ValuesIn(kTopCases), [](const auto& i) { return i.param.name; });

const Case kListenCases[] = {
    {"no_transport", "[[listen]]\naddress = '127.0.0.1:5060'\n",
     "k.toml:1: key 'listen[0].transport': missing; expected \"tls\", \"tcp\" or \"udp\""},
    {"bad_transport", "[[listen]]\ntransport = 'sctp'\naddress = '127.0.0.1:5060'\n",
     "k.toml:2: key 'listen[0].transport': 'sctp'; expected \"tls\", \"tcp\" or \"udp\""},
    {"no_address", "[[listen]]\ntransport = 'udp'\n",
     "k.toml:1: key 'listen[0].address': missing; expected \"IP:PORT\" to bind to"},
    {"address_name", "[[listen]]\ntransport = 'udp'\naddress = 'localhost:5060'\n",
     "k.toml:3: key 'listen[0].address': 'localhost' is not an IPv4 or IPv6 address"},
    {"address_v6", "[[listen]]\ntransport = 'udp'\naddress = '::1:5060'\n",
     "k.toml:3: key 'listen[0].address': '::1:5060': an IPv6 address needs brackets, as in [2001:db8::1]:5061"},
    {"address_port", "[[listen]]\ntransport = 'udp'\naddress = '127.0.0.1:65536'\n",
     "k.toml:3: key 'listen[0].address': '127.0.0.1:65536' has no valid port; expected ADDRESS:PORT with a port of 0 "
     "to "
     "65535"},
    {"address_port_zero", "[[listen]]\ntransport = 'udp'\naddress = '127.0.0.1:0'\n",
     "k.toml:3: key 'listen[0].address': '127.0.0.1:0' has port 0; expected a port of 1 to 65535"},
    {"wildcard", "[[listen]]\ntransport = 'udp'\naddress = '0.0.0.0:5060'\n",
     "k.toml:1: key 'listen[0].advertise': missing; expected \"HOST[:PORT]\", the address that peers reach, since the "
     "listener is bound to every address (0.0.0.0)"},
    {"wildcard_v6", kUdp + "[[listen]]\ntransport = 'udp'\naddress = '[::]:5060'\n",
     "k.toml:4: key 'listen[1].advertise': missing; expected \"HOST[:PORT]\", the address that peers reach, since the "
     "listener is bound to every address ([::])"},
    {"advertise_wildcard", "[[listen]]\ntransport = 'udp'\naddress = '0.0.0.0:5060'\nadvertise = '0.0.0.0'\n",
     "k.toml:4: key 'listen[0].advertise': '0.0.0.0' is no address that a peer can reach; expected \"HOST[:PORT]\""},
    {"advertise_bad", "[[listen]]\ntransport = 'udp'\naddress = '0.0.0.0:5060'\nadvertise = 'a b'\n",
     "k.toml:4: key 'listen[0].advertise': 'a b' is no host name; expected a DNS name or an IP address"},
    {"advertise_port", "[[listen]]\ntransport = 'udp'\naddress = '0.0.0.0:5060'\nadvertise = 'a:0'\n",
     "k.toml:4: key 'listen[0].advertise': 'a:0' has no valid port; expected 1 to 65535"},
    {"no_certificate", "[[listen]]\ntransport = 'tls'\naddress = '127.0.0.1:5061'\n",
     "k.toml:1: key 'listen[0].certificate': missing; expected the certificate chain's PEM file, since transport is "
     "\"tls\""},
    {"no_key", "[[listen]]\ntransport = 'tls'\naddress = '127.0.0.1:5061'\ncertificate = 'c.pem'\n",
     "k.toml:1: key 'listen[0].key': missing; expected the private key's PEM file, since there is a certificate"},
    {"empty_certificate", "[[listen]]\ntransport = 'tls'\naddress = '127.0.0.1:5061'\ncertificate = ''\nkey = 'k'\n",
     "k.toml:4: key 'listen[0].certificate': empty; expected a value, or no such key at all"},
    {"typo", kTls + "certificat = 'x'\n",
     "k.toml:6: key 'listen[0].certificat': unknown key; did you mean 'certificate'?"},
    {"verify_without_ca", kTls + "verify_client = 'require'\n",
     "k.toml:1: key 'listen[0].ca': missing; expected the PEM file of the authorities that sign client certificates, "
     "since verify_client is set"},
    {"ca_without_verify", kTls + "ca = 'ca.pem'\n",
     "k.toml:6: key 'listen[0].ca': verify_client is \"off\"; expected \"optional\" or \"require\" there, or no ca"},
    {"verify_word", kTls + "verify_client = 'yes'\n",
     "k.toml:6: key 'listen[0].verify_client': 'yes'; expected \"off\", \"optional\" or \"require\""},
    {"versions", kTls + "min_version = '1.3'\nmax_version = '1.2'\n",
     "k.toml:7: key 'listen[0].max_version': \"1.2\" is below min_version; expected \"1.3\""},
    {"old_version", kTls + "min_version = '1.1'\n",
     "k.toml:6: key 'listen[0].min_version': '1.1'; expected \"1.2\" or \"1.3\""},
    {"ciphers", kTls + "ciphers = 'A B'\n",
     "k.toml:6: key 'listen[0].ciphers': 'A B'; expected OpenSSL's names with colons between them"},
    {"tickets", kTls + "tickets = 9\n", "k.toml:6: key 'listen[0].tickets': 9; expected an integer of 0 to 8"},
    {"crl_without_verify", kTls + "crl = 'c'\n",
     "k.toml:6: key 'listen[0].crl': verify_client is \"off\"; expected \"optional\" or \"require\" there, or no crl"},
    {"purpose_without_verify", kTls + "client_purpose = 'any'\n",
     "k.toml:6: key 'listen[0].client_purpose': verify_client is \"off\"; expected \"optional\" or \"require\" there, "
     "or "
     "no client_purpose"},
    {"purpose_word", kTls + "client_purpose = 'server'\n",
     "k.toml:6: key 'listen[0].client_purpose': 'server'; expected \"client\" or \"any\""},
    {"alpn", kTls + "alpn = 'sip/2'\n",
     "k.toml:6: key 'listen[0].alpn': 'sip/2'; expected \"off\", \"accept\" or \"require\""},
    {"groups", kTls + "groups = 'X25519, P-256'\n",
     "k.toml:6: key 'listen[0].groups': 'X25519, P-256'; expected OpenSSL's names with colons between them"},
    {"certificates_type", kTls + "certificates = ['x']\n",
     "k.toml:6: key 'listen[0].certificates[0]': a string; expected tables, each begun by [[listen[0].certificates]]"},
    {"certificates_empty", kTls + "[[listen.certificates]]\n",
     "k.toml:6: key 'listen[0].certificates[0].certificate': missing; expected the certificate chain's PEM file"},
    {"certificates_no_key", kTls + "[[listen.certificates]]\ncertificate = 'x'\n",
     "k.toml:6: key 'listen[0].certificates[0].key': missing; expected the private key's PEM file, since there is a "
     "certificate"},
    {"certificates_typo", kTls + "[[listen.certificates]]\ncertificate = 'x'\nkey = 'y'\nname = ['a']\n",
     "k.toml:9: key 'listen[0].certificates[0].name': unknown key; did you mean 'names'?"},
    {"served_address", kTls + "[[listen.certificates]]\ncertificate = 'x'\nkey = 'y'\nnames = ['10.0.0.1']\n",
     "k.toml:9: key 'listen[0].certificates[0].names[0]': '10.0.0.1' is no name that a client can ask for; expected a "
     "DNS name, or one like \"*.example.com\""},
    {"served_wildcard", kTls + "[[listen.certificates]]\ncertificate = 'x'\nkey = 'y'\nnames = ['a', '*.com']\n",
     "k.toml:9: key 'listen[0].certificates[0].names[1]': '*.com' is no name that a client can ask for; expected a DNS "
     "name, or one like \"*.example.com\""},
    {"served_twice", kTls + "[[listen.certificates]]\ncertificate = 'x'\nkey = 'y'\nnames = ['a.b', 'A.b.']\n",
     "k.toml:9: key 'listen[0].certificates[0].names[1]': 'a.b' is there twice; expected each name once"},
    {"served_none", kTls + "[[listen.certificates]]\ncertificate = 'x'\nkey = 'y'\nnames = []\n",
     "k.toml:9: key 'listen[0].certificates[0].names': no name; expected one or more, or no such key for those in the "
     "certificate"},
    {"certificates_on_udp", kUdp + "[[listen.certificates]]\n",
     "k.toml:4: key 'listen[0].certificates': transport is \"udp\"; expected no TLS keys"},
    {"alpn_on_udp", kUdp + "alpn = 'off'\n",
     "k.toml:4: key 'listen[0].alpn': transport is \"udp\"; expected no TLS keys"},
    {"tls_key_on_udp", kUdp + "ca = 'x'\n", "k.toml:4: key 'listen[0].ca': transport is \"udp\"; expected no TLS keys"},
    {"tickets_on_udp", kUdp + "tickets = 1\n",
     "k.toml:4: key 'listen[0].tickets': transport is \"udp\"; expected no TLS keys"},
    {"name", kUdp + "name = 'my listener'\n",
     "k.toml:4: key 'listen[0].name': 'my listener'; expected 1 to 64 letters, digits and . _ : - [ ]"},
    {"same_name", kUdp + "name = 'a'\n[[listen]]\ntransport = 'udp'\naddress = '127.0.0.1:5061'\nname = 'a'\n",
     "k.toml:8: key 'listen[1].name': 'a' is taken by line 4; expected another name"},
    {"same_address", kTls + "[[listen]]\ntransport = 'tcp'\naddress = '127.0.0.1:5061'\n",
     "k.toml:8: key 'listen[1].address': '127.0.0.1:5061' is taken by line 3; expected another address or port"},
};
INSTANTIATE_TEST_SUITE_P(Listen, ErrorTest, testing::ValuesIn(kListenCases),
                         [](const auto& i) { return i.param.name; });

const Case kTrunkCases[] = {
    {"no_name", kUdp + "[[trunk]]\ntargets = ['udp:10.0.0.1']\n",
     "k.toml:4: key 'trunk[0].name': missing; expected a name for routes to refer to"},
    {"same_name", kUdp + kTrunk + kTrunk,
     "k.toml:8: key 'trunk[1].name': 'a' is taken by line 5; expected another name"},
    {"too_many_targets",
     kUdp + "[[trunk]]\nname = 'a'\ntargets = [" +
         [] {
           std::string targets;
           for (int i = 0; i < 17; ++i) targets += "'udp:10.0.0.1', ";
           return targets;
         }() +
         "]\n",
     "k.toml:6: key 'trunk[0].targets': 17 targets; expected 16 at most"},
    {"targets_type", kUdp + "[[trunk]]\nname = 'a'\ntargets = 'udp:10.0.0.1'\n",
     "k.toml:6: key 'trunk[0].targets': a string; expected an array of strings"},
    {"target_type", kUdp + "[[trunk]]\nname = 'a'\ntargets = [1]\n",
     "k.toml:6: key 'trunk[0].targets[0]': an integer; expected a string"},
    {"target_scheme", kUdp + "[[trunk]]\nname = 'a'\ntargets = [\n 'udp:10.0.0.1',\n 'sip:10.0.0.1']\n",
     "k.toml:8: key 'trunk[0].targets[1]': 'sip:10.0.0.1' begins with no transport; expected \"tls:HOST:PORT\", "
     "\"tcp:HOST:PORT\" or \"udp:HOST:PORT\""},
    {"target_host", kUdp + "[[trunk]]\nname = 'a'\ntargets = ['udp::5060']\n",
     "k.toml:6: key 'trunk[0].targets[0]': no host; expected a DNS name or an IP address"},
    {"target_v4", kUdp + "[[trunk]]\nname = 'a'\ntargets = ['udp:1.2.3.456']\n",
     "k.toml:6: key 'trunk[0].targets[0]': '1.2.3.456' is not an IPv4 address"},
    {"target_zero", kUdp + "[[trunk]]\nname = 'a'\ntargets = [\"udp:1.2.3.4\\u0000x\"]\n",
     "k.toml:6: key 'trunk[0].targets[0]': has a control character; expected printable text"},
    {"mixed", kUdp + "[[trunk]]\nname = 'a'\ntargets = ['tcp:10.0.0.1', 'udp:10.0.0.1']\n",
     "k.toml:6: key 'trunk[0].targets[1]': udp and connections do not mix in one trunk; expected udp targets alone, or "
     "none"},
    {"udp_without_listener", kTls + kTrunk,
     "k.toml:8: key 'trunk[0].targets': a udp target, but no udp listener whose socket could send to it; expected a "
     "[[listen]] with transport = \"udp\""},
    {"udp_wrong_listener", kTls + "name = 'wan'\n" + kUdp + kTrunk + "listen = 'wan'\n",
     "k.toml:13: key 'trunk[0].listen': listener 'wan' is not a udp one; expected one, for its socket sends to udp "
     "targets"},
    {"unknown_listener", kUdp + kTrunk + "listen = 'wan'\n",
     "k.toml:7: key 'trunk[0].listen': no listener is named 'wan'; expected the name of a listener: "
     "'udp:127.0.0.1:5060'"},
    {"no_target", kUdp + "[[trunk]]\nname = 'a'\ntargets = []\n",
     "k.toml:6: key 'trunk[0].targets': no target; expected one or more, or no such key where the peer connects to us"},
    {"connections", kUdp + kTrunk + "connections = 33\n",
     "k.toml:7: key 'trunk[0].connections': 33; expected an integer of 1 to 32"},
    {"key_alone", kUdp + "[[trunk]]\nname = 'a'\ntargets = ['tls:a.example']\nkey = 'k'\n",
     "k.toml:4: key 'trunk[0].certificate': missing; expected the certificate chain's PEM file, since there is a key"},
    {"ocsp", kUdp + "[[trunk]]\nname = 'a'\ntargets = ['tls:a.example']\nocsp = 'k'\n",
     "k.toml:7: key 'trunk[0].ocsp': unknown key; expected one of name, targets, certificate, key, ca, crl, "
     "min_version, "
     "max_version, ciphers, ciphersuites, groups, alpn, verify_name, sources, accept_on, known_by, connections, "
     "large_requests, "
     "options_interval, options_timeout, options_failures, keepalive, failback, max_requests_per_second, max_invites, "
     "hep_sample, "
     "listen"},
    {"crl_on_udp", kUdp + kTrunk + "crl = 'k'\n",
     "k.toml:7: key 'trunk[0].crl': no target is a \"tls:\" one; expected no TLS keys"},
    {"tls_keys", kUdp + kTrunk + "ca = 'k'\n",
     "k.toml:7: key 'trunk[0].ca': no target is a \"tls:\" one; expected no TLS keys"},
    {"verify_name_on_udp", kUdp + kTrunk + "verify_name = 'k'\n",
     "k.toml:7: key 'trunk[0].verify_name': no target is a \"tls:\" one; expected no TLS keys"},
    {"unknowable", kTls + "[[trunk]]\nname = 'a'\n",
     "k.toml:6: key 'trunk[0].verify_name': missing; expected the name in the peer's certificate, or sources, since "
     "there "
     "are no targets and the peer is known by these alone"},
    {"never_known", kTls + "[[trunk]]\nname = 'a'\nverify_name = 'a.example'\n",
     "k.toml:8: key 'trunk[0].verify_name': no listener asks for client certificates, so this trunk's peer can never "
     "be "
     "known; expected targets, sources with known_by = \"address\", or a tls listener with verify_client"},
};
INSTANTIATE_TEST_SUITE_P(Trunk, ErrorTest, testing::ValuesIn(kTrunkCases), [](const auto& i) { return i.param.name; });

const Case kRouteCases[] = {
    {"no_to", kUdp + kTrunk + "[[route]]\n",
     "k.toml:7: key 'route[0].to': missing; expected the trunk to send to, or several in order; or reject = CODE"},
    {"unknown_to", kUdp + kTrunk + "[[route]]\nto = 'b'\n",
     "k.toml:8: key 'route[0].to': no trunk is named 'b'; expected the name of a trunk: 'a'"},
    {"no_trunks", kUdp + "[[route]]\nto = 'b'\n",
     "k.toml:5: key 'route[0].to': no trunk is named 'b'; expected the name of a trunk, but there is none"},
    {"unknown_from", kUdp + kTrunk + "[[route]]\nto = 'a'\nfrom_trunk = 'c'\n",
     "k.toml:9: key 'route[0].from_trunk': no trunk is named 'c'; expected the name of a trunk: 'a'"},
    {"unknown_listener", kUdp + kTrunk + "[[route]]\nto = 'a'\nfrom_listener = 'a'\n",
     "k.toml:9: key 'route[0].from_listener': no listener is named 'a'; expected the name of a listener: "
     "'udp:127.0.0.1:5060'"},
    {"from", kUdp + kTrunk + "[[route]]\nto = 'a'\nfrom = 'a'\n",
     "k.toml:9: key 'route[0].from': unknown key; expected one of from_trunk, from_listener, methods, user_prefix, "
     "user_match, host, has_headers, to, rewrite_user_prefix, rewrite_host, remove_headers, add_headers, reject, "
     "reason"},
    {"no_method", kUdp + kTrunk + "[[route]]\nto = 'a'\nmethods = []\n",
     "k.toml:9: key 'route[0].methods': no method, so nothing would match; expected one or more, or no such key for "
     "any"},
    {"method", kUdp + kTrunk + "[[route]]\nto = 'a'\nmethods = ['IN VITE']\n",
     "k.toml:9: key 'route[0].methods[0]': 'IN VITE' is no method; expected one like \"INVITE\""},
    {"method_case", kUdp + kTrunk + "[[route]]\nto = 'a'\nmethods = ['Invite']\n",
     "k.toml:9: key 'route[0].methods[0]': 'Invite': methods are case-sensitive; expected upper case"},
    {"host_port", kUdp + kTrunk + "[[route]]\nto = 'a'\nhost = 'a.example:5060'\n",
     "k.toml:9: key 'route[0].host': 'a.example:5060' has a port; expected a host alone"},
    {"cancel_alone", kUdp + kTrunk + "[[route]]\nto = 'a'\nmethods = ['OPTIONS', 'CANCEL']\n",
     "k.toml:9: key 'route[0].methods[1]': 'CANCEL' goes where its INVITE goes; expected \"INVITE\", which means all "
     "three"},
    {"user_match", kUdp + kTrunk + "[[route]]\nto = 'a'\nuser_match = '+49'\n",
     "k.toml:9: key 'route[0].user_match': '+49': no argument for repetition operator: +; expected a regular "
     "expression in RE2's syntax for the whole user"},
    {"user_match_reference", kUdp + kTrunk + "[[route]]\nto = 'a'\nuser_match = '(a)\\1'\n",
     "k.toml:9: key 'route[0].user_match': '(a)\\1': invalid escape sequence: \\1; expected a regular expression in "
     "RE2's syntax for the whole user"},
    {"user_match_long", kUdp + kTrunk + "[[route]]\nto = 'a'\nuser_match = '" + std::string(1025, 'a') + "'\n",
     "k.toml:9: key 'route[0].user_match': 1025 characters long; expected at most 1024; expected a regular expression "
     "in RE2's syntax for the whole user"},
    {"header_name", kUdp + kTrunk + "[[route]]\nto = 'a'\nmethods = ['OPTIONS']\nhas_headers = ['a b']\n",
     "k.toml:10: key 'route[0].has_headers[0]': 'a b' is no header field's name; expected one like \"Diversion\""},
    {"no_header_name", kUdp + kTrunk + "[[route]]\nto = 'a'\nhas_headers = []\n",
     "k.toml:9: key 'route[0].has_headers': no name; expected one or more, or no such key"},
    {"to_twice", kUdp + kTrunk + "[[route]]\nto = ['a', 'a']\n",
     "k.toml:8: key 'route[0].to[1]': 'a' is in the list already; expected each trunk once"},
    {"to_unknown_of_two", kUdp + kTrunk + "[[route]]\nto = ['a', 'b']\n",
     "k.toml:8: key 'route[0].to[1]': no trunk is named 'b'; expected the name of a trunk: 'a'"},
    {"to_number", kUdp + kTrunk + "[[route]]\nto = 1\n",
     "k.toml:8: key 'route[0].to': an integer; expected a string, or an array of strings"},
    {"to_nothing", kUdp + kTrunk + "[[route]]\nto = []\n",
     "k.toml:8: key 'route[0].to': an empty array; expected a string, or an array of strings"},
    {"prefix_no_table", kUdp + kTrunk + "[[route]]\nto = 'a'\nrewrite_user_prefix = 'a'\n",
     "k.toml:9: key 'route[0].rewrite_user_prefix': a string; expected a table, like { from = \"...\", to = \"...\" }"},
    {"prefix_empty", kUdp + kTrunk + "[[route]]\nto = 'a'\nrewrite_user_prefix = {}\n",
     "k.toml:9: key 'route[0].rewrite_user_prefix': empty; expected from (what to strip), to (what to put there), or "
     "both"},
    {"prefix_key", kUdp + kTrunk + "[[route]]\nto = 'a'\nrewrite_user_prefix = { from = 'a', too = 'b' }\n",
     "k.toml:9: key 'route[0].rewrite_user_prefix.too': unknown key; did you mean 'to'?"},
    {"prefix_to", kUdp + kTrunk + "[[route]]\nto = 'a'\nrewrite_user_prefix = { to = 'a@b' }\n",
     "k.toml:9: key 'route[0].rewrite_user_prefix.to': 'a@b' cannot stand in a SIP URI's user; expected letters, "
     "digits, -_.!~*'()&=+$,;?/ and escapes like %23"},
    {"prefix_to_escape", kUdp + kTrunk + "[[route]]\nto = 'a'\nrewrite_user_prefix = { to = '%2' }\n",
     "k.toml:9: key 'route[0].rewrite_user_prefix.to': '%2' cannot stand in a SIP URI's user; expected letters, "
     "digits, -_.!~*'()&=+$,;?/ and escapes like %23"},
    {"rewrite_host", kUdp + kTrunk + "[[route]]\nto = 'a'\nrewrite_host = 'a b'\n",
     "k.toml:9: key 'route[0].rewrite_host': 'a b' is no host name; expected a DNS name or an IP address"},
    {"remove_via", kUdp + kTrunk + "[[route]]\nto = 'a'\nremove_headers = ['X-A', 'v']\n",
     "k.toml:9: key 'route[0].remove_headers[1]': Via must go on as it is, for messages find their way by it; expected "
     "another header field"},
    {"remove_to", kUdp + kTrunk + "[[route]]\nto = 'a'\nremove_headers = ['to']\n",
     "k.toml:9: key 'route[0].remove_headers[0]': to must go on as it is, for transactions and dialogs are told apart "
     "by it; expected another header field"},
    {"add_length", kUdp + kTrunk + "[[route]]\nto = 'a'\nadd_headers = ['Content-Length: 0']\n",
     "k.toml:9: key 'route[0].add_headers[0]': Content-Length must go on as it is, for it says what the body is and "
     "where it ends; expected another header field"},
    {"add_no_colon", kUdp + kTrunk + "[[route]]\nto = 'a'\nadd_headers = ['X-A']\n",
     "k.toml:9: key 'route[0].add_headers[0]': 'X-A' is no header field; expected \"NAME: VALUE\""},
    {"add_space", kUdp + kTrunk + "[[route]]\nto = 'a'\nadd_headers = ['X A: b']\n",
     "k.toml:9: key 'route[0].add_headers[0]': 'X A: b' is no header field; expected \"NAME: VALUE\""},
    {"add_crlf", kUdp + kTrunk + "[[route]]\nto = 'a'\nadd_headers = [\"X-A: b\\r\\nVia: c\"]\n",
     "k.toml:9: key 'route[0].add_headers[0]': has a control character; expected printable text"},
    {"add_much", kUdp + kTrunk + "[[route]]\nto = 'a'\nadd_headers = ['X: " + std::string(2044, 'a') + "']\n",
     "k.toml:9: key 'route[0].add_headers': 1 header fields of 2049 bytes; expected at most 16 of 2048 bytes together"},
    {"reject_300", kUdp + kTrunk + "[[route]]\nreject = 302\n",
     "k.toml:8: key 'route[0].reject': 302; expected an integer of 400 to 699"},
    {"reject_challenge", kUdp + kTrunk + "[[route]]\nreject = 407\n",
     "k.toml:8: key 'route[0].reject': 407 says nothing without header fields that ktrunk does not make; expected "
     "another code, like 403"},
    {"reject_and_to", kUdp + kTrunk + "[[route]]\nto = 'a'\nreject = 403\n",
     "k.toml:8: key 'route[0].to': the route rejects, so that nothing goes on; expected no such key"},
    {"reason_alone", kUdp + kTrunk + "[[route]]\nto = 'a'\nreason = 'No'\n",
     "k.toml:9: key 'route[0].reason': there is no reject; expected reject = CODE as well"},
    {"has_headers_last", kUdp + kTrunk + "[[route]]\nto = 'a'\nhas_headers = ['X-A']\n",
     "k.toml:9: key 'route[0].has_headers': an INVITE's CANCEL and ACK have none of its header fields, but must go the "
     "same way; expected methods without INVITE, reject, or a later route without has_headers that takes the same "
     "requests with the same to and rewrites"},
};
// Which tables part an INVITE from its CANCEL; the key's table is of trunks a and b.
TEST(HasHeadersTest, AnInviteAndItsCancelGoTheSameWay) {
  const std::string other = "[[trunk]]\nname = 'b'\ntargets = ['udp:127.0.0.1:5071']\n";
  const auto accepted = [&](const std::string& routes) {
    return parse(kUdp + kTrunk + other + routes, "k.toml").has_value();
  };
  const std::string with = "[[route]]\nhas_headers = ['X-A']\n";
  const std::string to_a = "[[route]]\nto = 'a'\n";
  EXPECT_TRUE(accepted(with + "to = 'a'\nadd_headers = ['X-B: c']\n" + to_a));
  EXPECT_TRUE(accepted(with + "to = 'b'\nmethods = ['OPTIONS', 'MESSAGE']\n" + to_a));
  EXPECT_TRUE(accepted(with + "reject = 403\n" + to_a));
  EXPECT_TRUE(accepted(with + "to = 'a'\n" + with + "to = 'a'\nadd_headers = ['X-B: c']\n" + to_a));
  // In between, one for other requests.
  EXPECT_TRUE(
      accepted(with + "from_trunk = 'a'\nto = 'b'\n[[route]]\nfrom_trunk = 'b'\nto = 'a'\n" + "[[route]]\nto = 'b'\n"));
  EXPECT_TRUE(accepted(with + "user_prefix = '+49'\nto = 'b'\n[[route]]\nuser_prefix = '+48'\nto = 'a'\n" +
                       "[[route]]\nuser_prefix = '+4'\nto = 'b'\n"));

  EXPECT_FALSE(accepted(with + "to = 'b'\n" + to_a));
  EXPECT_FALSE(accepted(with + "to = ['a', 'b']\n" + to_a));
  EXPECT_FALSE(accepted(with + "to = 'a'\nrewrite_host = 'h'\n" + to_a));
  EXPECT_FALSE(accepted(with + "to = 'a'\nrewrite_user_prefix = { to = '1' }\n" + to_a));
  EXPECT_FALSE(accepted(with + "to = 'a'\n[[route]]\nuser_prefix = '+4'\nto = 'a'\n" + to_a));
  EXPECT_FALSE(accepted(with + "to = 'a'\n[[route]]\nreject = 404\n"));
  EXPECT_FALSE(accepted(with + "to = 'b'\nmethods = ['INVITE']\n[[route]]\nuser_match = '1.*'\nto = 'b'\n" +
                        "[[route]]\nto = 'b'\n"));
  EXPECT_FALSE(accepted(with + "to = 'b'\nhost = '[2001:db8::1]'\n[[route]]\nhost = '[2001:db8:0::1]'\nto = 'a'\n" +
                        "[[route]]\nto = 'b'\n"));
}

INSTANTIATE_TEST_SUITE_P(Route, ErrorTest, testing::ValuesIn(kRouteCases), [](const auto& i) { return i.param.name; });

TEST(SyntaxErrorTest, HasTheLine) {
  for (const auto& [text, start] : {std::pair{"[ktrunk]\nworkers = \n", "k.toml:2: not TOML (column "},
                                    std::pair{"\n\n[[listen]\n", "k.toml:3: not TOML (column "},
                                    std::pair{"a = 1\na = 2\n", "k.toml:2: not TOML (column "},
                                    std::pair{"a = 'x\n'", "k.toml:1: not TOML (column "},
                                    std::pair{"\xff\xfe\n", "k.toml:1: not TOML (column "}}) {
    const auto config = parse(text, "k.toml");
    ASSERT_FALSE(config) << text;
    EXPECT_EQ(config.error().what.substr(0, std::string_view(start).size()), start) << config.error().what;
  }
}

}  // namespace
}  // namespace ktrunk::config
