#include "config/tables.h"

#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "config/notation.h"

namespace ktrunk::config {
namespace {

using std::chrono::milliseconds;

// Of the processors online, not of this process's affinity mask: every process must come to the same number.
unsigned default_workers() {
  return static_cast<unsigned>(std::clamp<long>(::sysconf(_SC_NPROCESSORS_ONLN), 1, kMaxWorkers));
}

// What useradd takes: it begins with a letter or "_", is at most 32 characters long and has no ":" or "/".
bool is_user_name(std::string_view name) {
  constexpr std::size_t kLongest = 32;
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  return name.size() <= kLongest && is_letter(name.front()) && std::ranges::all_of(name, [&](char c) {
           return is_letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '$';
         });
}

std::string read_name(TableReader& reader, std::string_view key) {
  std::string name = reader.text(key);
  if (name.empty()) return name;
  if (const Status status = check_name(name); !status) reader.problem(key, status.error().what);
  return name;
}

bool is_wildcard(const Address& address) {
  return !address.empty() && address.ip_bytes().find_first_not_of('\0') == std::string_view::npos;
}

void read_address(TableReader& reader, Listener& listener) {
  if (!reader.has("address")) return reader.missing("address", "\"IP:PORT\" to bind to");
  const std::string text = reader.text("address");
  if (text.empty()) return;
  Result<Address> address = Address::parse(text);
  if (!address) return reader.problem("address", address.error().what);
  if (address->port() == 0)
    return reader.problem("address", fmt::format("'{}' has port 0; expected a port of 1 to 65535", text));
  listener.address = *address;
}

void read_advertise(TableReader& reader, Listener& listener) {
  listener.advertise_host = listener.address.host();
  listener.advertise_port = listener.address.port();
  if (!reader.has("advertise")) {
    if (is_wildcard(listener.address))
      reader.missing("advertise", fmt::format("\"HOST[:PORT]\", the address that peers reach, since the listener is "
                                              "bound to every address ({})",
                                              listener.address.host()));
    return;
  }
  const std::string text = reader.text("advertise");
  if (text.empty()) return;
  Result<HostPort> advertised = parse_host_port(text);
  if (!advertised) return reader.problem("advertise", advertised.error().what);
  if (const auto literal = Address::from_ip(advertised->host, 0); literal && is_wildcard(*literal))
    return reader.problem("advertise",
                          fmt::format("'{}' is no address that a peer can reach; expected \"HOST[:PORT]\"", text));
  listener.advertise_host = uri_host(advertised->host);
  if (advertised->port != 0) listener.advertise_port = advertised->port;
}

std::string read_host(TableReader& reader, std::string_view key) {
  std::string host = reader.text(key);
  if (host.empty()) return host;
  if (const Status status = check_host(host); !status) reader.problem(key, status.error().what);
  return host;
}

void read_name_servers(TableReader& reader, Config& config) {
  constexpr std::uint16_t kDomain = 53;
  constexpr std::size_t kMost = 8;
  for (const TextItem& item : reader.texts("dns")) {
    auto server = Address::from_ip(item.text, kDomain);
    if (!server) server = Address::parse(item.text);
    if (server && server->port() != 0) {
      config.dns.push_back(*server);
    } else {
      reader.problem(item,
                     fmt::format("'{}'; expected the address of a name server, \"IP\" or \"IP:PORT\"", item.text));
    }
  }
  if (config.dns.size() > kMost)
    reader.problem("dns", fmt::format("{} name servers; expected {} at most", config.dns.size(), kMost));
}

Share read_share(TableReader& reader, std::string_view key, Share fallback) {
  if (!reader.has(key)) return fallback;
  const std::string text = reader.text(key);
  if (text.empty()) return fallback;
  const Result<Share> share = parse_share(text);
  if (!share) reader.problem(key, share.error().what);
  return share.value_or(fallback);
}

// How the peer is watched, and how much is sent to it. A duration of 0 turns a part of it off.
void read_watch(TableReader& reader, Trunk& trunk, bool datagrams) {
  const auto optional_duration = [&](std::string_view key, milliseconds least, milliseconds fallback) {
    const milliseconds value = reader.duration(key, {milliseconds(0), std::chrono::hours(24)}, fallback);
    if (value.count() != 0 && value < least)
      reader.problem(key,
                     fmt::format("{} ms; expected \"0s\" for none, or at least {} ms", value.count(), least.count()));
    return value;
  };
  trunk.options_interval = optional_duration("options_interval", milliseconds(1000), trunk.options_interval);
  trunk.options_timeout =
      reader.duration("options_timeout", {milliseconds(500), std::chrono::minutes(1)}, trunk.options_timeout);
  trunk.options_failures = reader.number("options_failures", {1, 100}, trunk.options_failures);
  trunk.keepalive = optional_duration("keepalive", milliseconds(1000), trunk.keepalive);
  if (datagrams && trunk.keepalive.count() != 0 && trunk.large_requests == LargeRequests::kUdp)
    reader.problem("keepalive", "the targets are udp ones, which have no connections; expected options_interval");
  trunk.failback = optional_duration("failback", milliseconds(1000), trunk.failback);
  trunk.max_requests_per_second =
      reader.number("max_requests_per_second", {0, 1'000'000}, trunk.max_requests_per_second);
  trunk.max_invites = reader.number("max_invites", {0, 100'000}, trunk.max_invites);
}

}  // namespace

void read_ktrunk(TableReader& reader, Config& config) {
  config.workers = reader.number("workers", {1, kMaxWorkers}, default_workers());
  config.record_layer = reader.choice(
      "record_layer", {{"auto", RecordLayer::kAuto}, {"kernel", RecordLayer::kKernel}, {"relay", RecordLayer::kRelay}},
      config.record_layer);
  config.control_socket = reader.text("control", config.control_socket);
  constexpr std::size_t kLongestPath = sizeof(sockaddr_un::sun_path) - 1;
  if (!config.control_socket.starts_with('/'))
    reader.problem("control", fmt::format("'{}'; expected an absolute path", config.control_socket));
  else if (config.control_socket.size() > kLongestPath)
    reader.problem("control", fmt::format("the path is {} bytes long; expected at most {}, the limit for a Unix socket",
                                          config.control_socket.size(), kLongestPath));
  config.token_key_file = reader.text("token_key_file");
  if (reader.has("token_key_file") && !config.token_key_file.starts_with('/'))
    reader.problem("token_key_file", fmt::format("'{}'; expected an absolute path", config.token_key_file));
  config.quarantine = reader.text("quarantine", config.quarantine);
  if (!config.quarantine.starts_with('/'))
    reader.problem("quarantine", fmt::format("'{}'; expected an absolute path", config.quarantine));
  config.log_format =
      reader.choice("log_format", {{"text", log::Format::kText}, {"json", log::Format::kJson}}, config.log_format);
  if (reader.has("log_level")) {
    const std::string name = reader.text("log_level");
    if (const auto level = log::parse_level(name)) {
      config.log_level = *level;
    } else if (!name.empty()) {
      reader.problem("log_level", level.error().what);
    }
  }
  read_name_servers(reader, config);
  config.handshake_processes =
      reader.number("handshake_processes", {1, kMaxHandshakeProcesses}, config.handshake_processes);
  config.user = reader.text("user", config.user);
  if (!config.user.empty() && !is_user_name(config.user))
    reader.problem("user", fmt::format("'{}'; expected the name of a user of this system", config.user));
  // Keys open tickets for two rotations, and RFC 8446 4.6.1 lets a ticket live for seven days at most.
  config.ticket_rotation =
      reader.duration("ticket_rotation", {std::chrono::seconds(1), std::chrono::hours(84)}, config.ticket_rotation);
  reader.finish();
}

void read_limits(TableReader& reader, Limits& limits) {
  constexpr std::uint32_t kSmallestMessage = 1024;
  constexpr std::uint32_t kLargestQueue = 1u << 30;
  constexpr Range<milliseconds> kTimeout{milliseconds(100), std::chrono::hours(1)};
  limits.max_connections = reader.number("max_connections", {1, 1u << 20}, limits.max_connections);
  limits.max_message_bytes =
      reader.number("max_message_bytes", {kSmallestMessage, kMaxMessageBytes}, limits.max_message_bytes);
  limits.max_header_bytes = reader.number("max_header_bytes", {512, kMaxHeaderBytes}, limits.max_header_bytes);
  limits.max_headers = reader.number("max_headers", {16, kMaxHeaders}, limits.max_headers);
  limits.max_vias = reader.number("max_vias", {2, kMaxVias}, limits.max_vias);
  limits.max_queue_bytes = reader.number("max_queue_bytes", {kSmallestMessage, kLargestQueue}, limits.max_queue_bytes);
  limits.stalled_peer = reader.duration("stalled_peer", kTimeout, limits.stalled_peer);
  limits.partial_message = reader.duration("partial_message", kTimeout, limits.partial_message);
  limits.handshake = reader.duration("handshake", kTimeout, limits.handshake);
  limits.drain = reader.duration("drain", {milliseconds(0), std::chrono::hours(1)}, limits.drain);
  constexpr Range<std::uint32_t> kCount{1, 1u << 20};
  limits.handshakes = reader.number("handshakes", kCount, limits.handshakes);
  limits.handshakes_per_address = reader.number("handshakes_per_address", kCount, limits.handshakes_per_address);
  limits.handshake_rate = reader.number("handshake_rate", kCount, limits.handshake_rate);
  limits.connections_per_address = reader.number("connections_per_address", kCount, limits.connections_per_address);
  // RFC 8446 5.5 allows 2^24.5 records of full length under one AES-GCM key; few is for those who want to see it work.
  limits.key_records = reader.number("key_records", {16, 1u << 24}, limits.key_records);
  if (limits.max_queue_bytes < limits.max_message_bytes)
    reader.problem("max_queue_bytes", fmt::format("{} is less than max_message_bytes; expected at least {}",
                                                  limits.max_queue_bytes, limits.max_message_bytes));
  reader.finish();
}

void read_hep(TableReader& reader, Hep& hep) {
  constexpr std::string_view kExpected = "\"udp:IP:PORT\", where the collector takes HEPv3";
  if (!reader.has("collector")) {
    reader.missing("collector", kExpected);
  } else if (const std::string text = reader.text("collector"); !text.empty()) {
    constexpr std::string_view kUdp = "udp:";
    const auto address = text.starts_with(kUdp) ? Address::parse(std::string_view(text).substr(kUdp.size()))
                                                : Result<Address>(fail("no udp"));
    if (address && address->port() != 0 && !is_wildcard(*address)) {
      hep.collector = *address;
    } else {
      reader.problem("collector", fmt::format("'{}'; expected {}", text, kExpected));
    }
  }
  hep.capture_id = reader.number("capture_id", {0, 0xffff'ffff}, hep.capture_id);
  hep.auth_key = reader.text("auth_key");
  if (hep.auth_key.size() > kMaxHepKeyBytes)
    reader.problem("auth_key", fmt::format("{} octets; expected {} at most", hep.auth_key.size(), kMaxHepKeyBytes));
  hep.sample = read_share(reader, "sample", hep.sample);
  reader.finish();
}

Listener read_listener(TableReader& reader, Config& config) {
  Listener listener;
  listener.name = read_name(reader, "name");
  if (!reader.has("transport")) reader.missing("transport", "\"tls\", \"tcp\" or \"udp\"");
  const auto transport = reader.choice<std::optional<Transport>>(
      "transport", {{"tls", Transport::kTls}, {"tcp", Transport::kTcp}, {"udp", Transport::kUdp}}, std::nullopt);
  listener.transport = transport.value_or(Transport::kTls);
  read_address(reader, listener);
  read_advertise(reader, listener);
  listener.strangers = reader.choice(
      "strangers", {{"serve", Strangers::kServe}, {"reject", Strangers::kReject}, {"ignore", Strangers::kIgnore}},
      listener.strangers);
  if (listener.name.empty())
    listener.name = fmt::format("{}:{}", transport_name(listener.transport), listener.address.text());

  if (transport == Transport::kTls) {
    read_listener_tls(reader, listener, config);
  } else {
    refuse_listener_tls(reader, transport ? fmt::format("transport is \"{}\"", transport_name(*transport)) : "");
  }
  reader.finish();
  return listener;
}

Trunk read_trunk(TableReader& reader, Config& config) {
  Trunk trunk;
  trunk.name = read_name(reader, "name");
  if (!reader.has("name")) reader.missing("name", "a name for routes to refer to");
  bool tls = false;
  bool datagrams = false;
  bool streams = false;
  for (const TextItem& item : reader.texts("targets")) {
    const Result<Target> target = parse_target(item.text);
    if (!target) {
      reader.problem(item, target.error().what);
      continue;
    }
    tls = tls || target->transport == Transport::kTls;
    datagrams = datagrams || target->transport == Transport::kUdp;
    streams = streams || target->transport != Transport::kUdp;
    if (datagrams && streams)
      reader.problem(item, "udp and connections do not mix in one trunk; expected udp targets alone, or none");
    Target placed = *target;
    if (placed.priority == 0) placed.priority = static_cast<std::uint16_t>(trunk.targets.size() + 1);
    // Behind those of its priority.
    const auto place = std::ranges::upper_bound(trunk.targets, placed.priority, {}, &Target::priority);
    trunk.targets.insert(place, std::move(placed));
  }
  trunk.tls = read_tls(reader, config, Alpn::kOff);
  trunk.verify_name = read_host(reader, "verify_name");
  if (trunk.targets.size() > kMaxTargets)
    reader.problem("targets", fmt::format("{} targets; expected {} at most", trunk.targets.size(), kMaxTargets));
  if (!trunk.targets.empty() && !tls) {
    refuse_tls(reader, "no target is a \"tls:\" one");
    if (reader.has("verify_name")) reader.problem("verify_name", "no target is a \"tls:\" one; expected no TLS keys");
  }
  if (reader.has("targets") && reader.texts("targets").empty())
    reader.problem("targets", "no target; expected one or more, or no such key where the peer connects to us");
  read_peers(reader, trunk);
  trunk.connections = reader.number("connections", {1, kMaxTrunkConnections}, trunk.connections);
  trunk.large_requests = reader.choice("large_requests", {{"udp", LargeRequests::kUdp}, {"tcp", LargeRequests::kTcp}},
                                       trunk.large_requests);
  if (!datagrams && reader.has("large_requests"))
    reader.problem("large_requests", "no target is a \"udp:\" one; connections carry requests of any size");
  read_watch(reader, trunk, datagrams);
  trunk.hep_sample = read_share(reader, "hep_sample", config.hep.sample);
  if (reader.has("hep_sample") && config.hep.collector.empty())
    reader.problem("hep_sample", "nothing is exported; expected a [hep] table with a collector");
  (void)reader.text("listen");  // resolved by check_references()
  reader.finish();
  return trunk;
}

}  // namespace ktrunk::config
