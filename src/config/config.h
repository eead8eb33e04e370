// Config: what the operator wrote, checked, in the types that the processes use. The supervisor reads the file once and
// hands its exact text to every child (a sealed memfd), so that all of them hold the same Config, whatever happens to
// the file meanwhile. References between tables are already ids: a trunk's name is resolved when the text is parsed.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/address.h"
#include "base/id.h"
#include "base/ip_network.h"
#include "base/log.h"
#include "base/result.h"
#include "config/header_names.h"

namespace ktrunk::config {

inline constexpr unsigned kMaxWorkers = 32;
inline constexpr unsigned kMaxHandshakeProcesses = 8;
inline constexpr unsigned kMaxTrunkConnections = 32;
inline constexpr std::size_t kMaxTargets = 16;               // of one trunk
inline constexpr std::size_t kMaxSources = 64;               // of one trunk
inline constexpr std::size_t kMaxCertificates = 256;         // of one listener
inline constexpr std::uint32_t kMaxMessageBytes = 1u << 20;  // the highest limits.max_message_bytes
// The highest limits.max_header_bytes, max_headers, max_vias; workers have room for so many.
inline constexpr std::uint32_t kMaxHeaderBytes = 16384;
inline constexpr std::uint32_t kMaxHeaders = 256;
inline constexpr std::uint32_t kMaxVias = 71;
inline constexpr std::size_t kMaxListeners = 256;
inline constexpr std::size_t kMaxTrunks = 1024;
inline constexpr std::size_t kMaxRoutes = 4096;
inline constexpr std::size_t kMaxRouteTrunks = 8;          // that one route names
inline constexpr std::size_t kMaxRouteHeaders = 16;        // in each of a route's lists
inline constexpr std::size_t kMaxAddedHeaderBytes = 2048;  // that one route adds, line ends included
inline constexpr std::size_t kMaxPrefixBytes = 64;         // of a user prefix that is rewritten
inline constexpr std::size_t kMaxTextBytes = 8u << 20;     // of the configuration file
inline constexpr std::size_t kMaxHepKeyBytes = 128;        // hep.auth_key

enum class Transport : std::uint8_t { kTls, kTcp, kUdp };
[[nodiscard]] std::string_view transport_name(Transport transport);  // "tls", "tcp", "udp", as a URI writes it

// 5061 for TLS, else 5060 (RFC 3261 19.1.2).
[[nodiscard]] std::uint16_t default_port(Transport transport);

enum class ClientVerification : std::uint8_t { kOff, kOptional, kRequire };

// What a client certificate's extended key usage must allow. Public CAs no longer issue certificates for clients: `any`
// takes those for servers too.
enum class ClientPurpose : std::uint8_t { kClient, kAny };

// ALPN (RFC 7301) with the protocol "sip/2". As a server, accept: chosen when offered, and a client that offers only
// others is refused; require: also one that offers none. As a client, accept and require offer it; require insists.
enum class Alpn : std::uint8_t { kOff, kAccept, kRequire };

// A further certificate of a listener, chosen by the name that the client asks for (SNI, RFC 6066 3).
struct Certificate {
  std::string certificate;         // PEM chain
  std::string key;                 // PEM private key
  std::string ocsp;                // DER OCSP response to staple; may be empty
  std::vector<std::string> names;  // host names, or "*.example.com"; empty: those in the certificate
};

// Who encrypts: the kernel, or the handshake process between the socket and a Unix socket pair (relay).
// auto takes the kernel where kernel and cipher suite allow, else relay.
enum class RecordLayer : std::uint8_t { kAuto, kKernel, kRelay };

// TLS parameters of a listener or a trunk. Paths are absolute (relative ones are taken from the file's folder).
struct Tls {
  std::string certificate;   // PEM chain; may be empty for a trunk (no client certificate)
  std::string key;           // PEM private key
  std::string ca;            // PEM bundle; empty on a trunk: the system's
  std::string crl;           // PEM file of CRLs; empty: revocation is not checked
  std::string ocsp;          // DER OCSP response for `certificate`, stapled (RFC 6066 8); listeners only
  std::string groups;        // key exchange groups in OpenSSL's words, "X25519:P-256"; empty: OpenSSL's own
  std::string ciphers;       // TLS 1.2 cipher list in OpenSSL's words; empty: ktrunk's AEAD suites
  std::string ciphersuites;  // TLS 1.3 suites in OpenSSL's words; empty: ktrunk's own
  bool allow_tls12 = true;   // min_version = "1.2" | "1.3"
  bool allow_tls13 = true;   // max_version = "1.2" | "1.3"
  Alpn alpn = Alpn::kOff;    // default: a listener accepts, a trunk offers nothing
};

// What a peer gets that no trunk claims: neither by its certificate nor, over UDP, by its address.
enum class Strangers : std::uint8_t {
  kServe,   // its requests are routed like others
  kReject,  // 403
  kIgnore,  // no answer
};

struct Listener {
  std::string name;  // defaults to its transport and address
  Transport transport = Transport::kTls;
  Address address;             // where to bind
  std::string advertise_host;  // in Via and Record-Route, IPv6 in brackets; default: the bound address
  std::uint16_t advertise_port = 0;
  Tls tls;
  std::vector<Certificate> certificates;  // beside tls.certificate, which serves every other name
  ClientVerification verify_client = ClientVerification::kOff;
  ClientPurpose client_purpose = ClientPurpose::kClient;
  Strangers strangers = Strangers::kServe;
  unsigned tickets = 2;  // TLS 1.3 session tickets sent after a handshake; 0: no resumption at all
};

// How requests go to udp targets that are too large for a datagram (RFC 3261 18.1.1).
enum class LargeRequests : std::uint8_t {
  kUdp,  // in fragments
  kTcp,  // over a TCP connection to the same target, which is kept up; in fragments while it is not
};

// How a peer that comes to us is known to be a trunk's.
enum class KnownBy : std::uint8_t {
  kCertificate,  // over TLS, by a name in its verified certificate; if there are sources, from one of them, too
  kAddress,      // over any transport, by its address alone: one of the sources, or where a udp target is
};

struct Target {
  Transport transport = Transport::kTls;
  std::string host;            // name or literal address, without brackets
  std::uint16_t port = 0;      // 0: not given, the DNS says it (RFC 3263); never 0 with a literal address
  std::uint16_t priority = 0;  // the lowest is tried first; default: the place in the list, 1 for the first
  std::uint16_t weight = 1;    // its share among those of the same priority
};

// A share of all calls, in millionths.
struct Share {
  static constexpr std::uint32_t kAll = 1'000'000;
  std::uint32_t millionths = kAll;
  [[nodiscard]] bool operator==(const Share&) const = default;
};

// HEPv3 export: copies of SIP messages, as they are outside TLS, for a collector such as Homer.
struct Hep {
  Address collector;  // UDP; empty: nothing is exported
  std::uint32_t capture_id = 1;
  std::string auth_key;  // empty: none is sent
  Share sample;          // of calls, for peers that are no trunk's
};

struct Trunk {
  std::string name;
  std::vector<Target> targets;  // by priority; may be empty: the peer connects to us
  Tls tls;
  std::string verify_name;   // the name the peer's certificate must carry; default: the target's host
  unsigned connections = 1;  // connections kept up to a stream target
  LargeRequests large_requests = LargeRequests::kTcp;  // of a trunk with udp targets
  std::vector<IpNetwork> sources;                      // where its peers come from; empty: not looked at
  KnownBy known_by = KnownBy::kCertificate;
  std::vector<ListenerId> accept_on;  // the listeners that they come by; empty: any
  ListenerId listener;                // whose address stands in Via towards the trunk, and whose socket sends UDP
  std::chrono::milliseconds options_interval{0};  // between OPTIONS that we send it; 0: none
  std::chrono::milliseconds options_timeout{5'000};
  unsigned options_failures = 3;               // unanswered in a row: it is down
  std::chrono::milliseconds keepalive{0};      // between CRLF pings on each of its connections; 0: none
  std::chrono::milliseconds failback{30'000};  // between tries at targets before the one in use; 0: none
  std::uint32_t max_requests_per_second = 0;   // sent to it by all workers; 0: no limit
  std::uint32_t max_invites = 0;               // INVITE transactions under way; 0: no limit
  Share hep_sample;                            // of calls, that hep.collector gets; default: hep.sample
};

// What the beginning of a Request-URI's user becomes.
struct PrefixRewrite {
  std::string from;  // empty: `to` is put before any user
  std::string to;    // empty: `from` is stripped
  [[nodiscard]] bool operator==(const PrefixRewrite&) const = default;
};

// A request matches when every condition that is set holds. First match wins. Conditions look at the request as it
// came; so a CANCEL, and the ACK to a response other than 2xx, whose Request-URI is their INVITE's, match where it did
// and are rewritten alike. has_headers is the exception, as they have none of its header fields: it never holds for
// them, and parse() takes it only where that makes no difference to their way.
struct Route {
  TrunkId from_trunk;                   // unset: any
  ListenerId from_listener;             // unset: any
  std::vector<std::string> methods;     // empty: any
  std::string user_prefix;              // of the Request-URI; empty: any
  std::string user_match;               // regular expression for the whole user (user_pattern.h); empty: any
  std::string host;                     // of the Request-URI, lower case; empty: any
  std::vector<HeaderName> has_headers;  // all of them must be there; empty: any
  std::vector<TrunkId> to;              // the first that is up; empty when the route rejects

  // What becomes of the request, besides. sip and sips Request-URIs alone are rewritten.
  PrefixRewrite rewrite_user_prefix;
  std::string rewrite_host;                // "HOST[:PORT]" in the place of the Request-URI's; empty: left
  std::vector<HeaderName> remove_headers;  // every header field of these names
  std::string add_headers;                 // whole lines with CRLF
  int reject = 0;                          // answered with this status, 400 to 699; 0: goes to a trunk
  std::string reason;                      // of that answer
};

struct Limits {
  std::uint32_t max_connections = 16384;
  std::uint32_t max_message_bytes = 65535;            // start-line, headers and body
  std::uint32_t max_header_bytes = kMaxHeaderBytes;   // start-line, headers and the empty line
  std::uint32_t max_headers = kMaxHeaders;            // header fields
  std::uint32_t max_vias = kMaxVias;                  // Via values
  std::uint32_t max_queue_bytes = 1u << 20;           // waiting to be sent, per connection and worker
  std::chrono::milliseconds stalled_peer{30'000};     // a peer that takes nothing for so long is closed
  std::chrono::milliseconds partial_message{10'000};  // the rest of a begun message must come within this
  std::chrono::milliseconds handshake{10'000};        // from accept or connect to the handoff
  std::chrono::milliseconds drain{5'000};             // from SIGTERM to the end
  std::uint32_t handshakes = 4096;                    // in progress at once, of all peers and processes together
  std::uint32_t handshakes_per_address = 64;          // in progress at once, of one address
  std::uint32_t handshake_rate = 100;                 // begun per second by one address; a burst of as many
  std::uint32_t connections_per_address = 4096;       // accepted and open, of one address
  std::uint32_t key_records = 1u << 23;               // records under one key of one direction (RFC 8446 5.5)
};

// A file that the configuration names, and where it does, for messages about the file itself.
struct FileReference {
  enum class Kind : std::uint8_t { kCertificate, kPrivateKey, kAuthorities, kRevocations, kOcspResponse };

  Kind kind = Kind::kCertificate;
  std::string file;  // absolute
  std::string key;   // "listen[0].certificate"
  unsigned line = 0;
};

struct Config {
  std::string path;                  // of the file, for messages
  unsigned workers = 0;              // resolved: 1 .. kMaxWorkers; default one per processor that is online
  unsigned handshake_processes = 1;  // 1 .. kMaxHandshakeProcesses
  std::string user = "nobody";       // whom workers run as when ktrunkd is root
  std::chrono::milliseconds ticket_rotation{3'600'000};  // a new key for session tickets; the last one still opens them
  RecordLayer record_layer = RecordLayer::kAuto;
  std::vector<Address> dns;    // name servers; empty: those of /etc/resolv.conf
  std::string token_key_file;  // of the key of flow tokens, made when it is not there; empty: a new key at each start
  std::string control_socket = "/run/ktrunk/control.sock";
  std::string quarantine = "/var/lib/ktrunk/quarantine";  // folder of messages over which a worker died
  log::Format log_format = log::Format::kText;
  log::Level log_level = log::Level::kInfo;
  Limits limits;
  Hep hep;
  std::vector<Listener> listeners;
  std::vector<Trunk> trunks;
  std::vector<Route> routes;
  std::vector<FileReference> files;  // every file that the tables above name, in the order of the text
};

// Targets are udp ones all together, or none is.
[[nodiscard]] bool is_datagram(const Trunk& trunk);
// It has udp targets, and what is too large for a datagram goes to them by TCP.
[[nodiscard]] bool is_large_by_tcp(const Trunk& trunk);

// Where the trunk's connections go, in order: its targets, or for large requests to udp targets those by TCP. Empty:
// none is made.
[[nodiscard]] std::vector<Target> connection_targets(const Trunk& trunk);

// Parses and checks TOML text. The path is for messages and for relative file names (make it absolute where the working
// directory may differ between processes). Errors read
// "FILE:LINE: key 'listen[0].certificate': what is wrong; what was expected"; of several, the first by line is
// returned. No file but the text is looked at.
[[nodiscard]] Result<Config> parse(std::string_view text, std::string_view path);

// Reads the file's text. A missing or unreadable file is an error that names it.
[[nodiscard]] Result<std::string> read_file(const std::string& path);

// Looks at every file of config.files: there, readable by this process, PEM of the right kind (DER for OCSP). The first
// that is not gives an error in parse()'s form. Whether a key fits its certificate is for the handshake process to find
// out.
[[nodiscard]] Status check_files(const Config& config);

// "500ms", "30s", "5m", "1h": a whole number and a unit, at most a year.
[[nodiscard]] Result<std::chrono::milliseconds> parse_duration(std::string_view text);

}  // namespace ktrunk::config
