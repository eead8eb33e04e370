#include "cli/config_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

namespace ktrunk::cli {
namespace {

using config::Config;
using config::Listener;
using config::RecordLayer;
using config::Route;
using config::Target;
using config::Tls;
using config::Transport;
using config::Trunk;

std::string_view versions(const Tls& tls) {
  if (!tls.allow_tls12) return "TLS 1.3";
  if (!tls.allow_tls13) return "TLS 1.2";
  return "TLS 1.2 and 1.3";
}

std::string_view record_layer(RecordLayer layer) {
  switch (layer) {
    case RecordLayer::kAuto:
      return "by the kernel where it can, else by the handshake process";
    case RecordLayer::kKernel:
      return "by the kernel, or the connection is refused";
    case RecordLayer::kRelay:
      return "by the handshake process";
  }
  std::unreachable();
}

std::string_view client_certificates(config::ClientVerification verification) {
  switch (verification) {
    case config::ClientVerification::kOff:
      return "no client certificates";
    case config::ClientVerification::kOptional:
      return "client certificates asked for, not required";
    case config::ClientVerification::kRequire:
      return "client certificates required";
  }
  std::unreachable();
}

// The file without its folder: the whole path stands in the configuration.
std::string file_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// What both kinds of table may say about TLS beside versions; a line each, behind a line break.
std::string tls_lines(const Tls& tls) {
  std::string text;
  if (!tls.crl.empty())
    text += fmt::format("\nrevoked certificates are refused, by {}, and those whose CA has no list there",
                        file_name(tls.crl));
  if (!tls.ciphers.empty() && tls.allow_tls12) text += fmt::format("\nTLS 1.2 ciphers {}", tls.ciphers);
  if (!tls.ciphersuites.empty() && tls.allow_tls13) text += fmt::format("\nTLS 1.3 suites {}", tls.ciphersuites);
  if (!tls.groups.empty()) text += fmt::format("\nkey exchange by {}", tls.groups);
  return text;
}

std::string certificate_line(const std::string& whose, const std::string& certificate, const std::string& ocsp) {
  return fmt::format("\n{} {}{}", whose, file_name(certificate),
                     ocsp.empty() ? "" : fmt::format(", with the OCSP response {}", file_name(ocsp)));
}

std::string listener_tls_lines(const Listener& listener) {
  const Tls& tls = listener.tls;
  std::string text = certificate_line("shows", tls.certificate, tls.ocsp);
  for (const config::Certificate& other : listener.certificates) {
    const std::string names = other.names.empty() ? "the names in it" : fmt::format("{}", fmt::join(other.names, ", "));
    text += certificate_line(fmt::format("to clients that ask for {} (SNI):", names), other.certificate, other.ocsp);
  }
  if (listener.verify_client != config::ClientVerification::kOff)
    text += listener.client_purpose == config::ClientPurpose::kAny
                ? "\nclient certificates may be ones for servers, too"
                : "\nclient certificates must be ones for clients";
  text += tls_lines(tls);
  switch (tls.alpn) {
    case config::Alpn::kOff:
      text += "\nALPN is passed over";
      break;
    case config::Alpn::kAccept:
      text += "\nALPN: sip/2, or none";
      break;
    case config::Alpn::kRequire:
      text += "\nALPN: sip/2, required";
      break;
  }
  text += listener.tickets == 0
              ? std::string("\nno session tickets: every handshake is a full one")
              : fmt::format("\nsessions resume by tickets, {} after a TLS 1.3 handshake", listener.tickets);
  return text;
}

std::string trunk_tls_lines(const Trunk& trunk) {
  std::string text;
  if (!trunk.tls.certificate.empty()) text += certificate_line("shows", trunk.tls.certificate, {});
  text += tls_lines(trunk.tls);
  if (trunk.tls.alpn == config::Alpn::kAccept) text += "\nALPN: sip/2 is offered";
  if (trunk.tls.alpn == config::Alpn::kRequire) text += "\nALPN: sip/2 is offered, and required";
  return text;
}

std::string listener_text(const Listener& listener) {
  std::string text = fmt::format("{} at {}", config::transport_name(listener.transport), listener.address.text());
  const std::string advertised = fmt::format("{}:{}", listener.advertise_host, listener.advertise_port);
  if (advertised != listener.address.text()) text += fmt::format(", known to peers as {}", advertised);
  if (listener.strangers == config::Strangers::kReject) text += "; strangers get 403";
  if (listener.strangers == config::Strangers::kIgnore) text += "; strangers get no answer";
  if (listener.transport == Transport::kTls)
    text += fmt::format("; {}; {}", versions(listener.tls), client_certificates(listener.verify_client)) +
            listener_tls_lines(listener);
  return text;
}

std::string target_text(const Target& target) {
  const bool v6 = target.host.find(':') != std::string::npos;
  return fmt::format("{}:{}{}{}{}", config::transport_name(target.transport), v6 ? "[" : "", target.host, v6 ? "]" : "",
                     target.port != 0 ? fmt::format(":{}", target.port) : " (SRV)");
}

std::string seconds_text(std::chrono::milliseconds time) {
  return fmt::format("{} s", static_cast<double>(time.count()) / 1000);
}

// How the peer is watched and spared; empty where neither.
std::string watch_lines(const Trunk& trunk) {
  std::string text;
  if (trunk.options_interval.count() != 0)
    text +=
        fmt::format("\nOPTIONS every {}; without answer within {} degraded, {} times in a row down",
                    seconds_text(trunk.options_interval), seconds_text(trunk.options_timeout), trunk.options_failures);
  if (trunk.keepalive.count() != 0) text += fmt::format("\nCRLF keepalive every {}", seconds_text(trunk.keepalive));
  if (trunk.max_requests_per_second != 0)
    text += fmt::format("\nat most {} requests a second", trunk.max_requests_per_second);
  if (trunk.max_invites != 0) text += fmt::format("\nat most {} INVITEs under way", trunk.max_invites);
  return text;
}

// "A, else B", where B is of a later priority; "A (3 of 4) and B (1 of 4)" where they share the connections or, by UDP,
// the requests.
std::string targets_text(const Trunk& trunk) {
  std::string text;
  for (std::size_t i = 0; i < trunk.targets.size(); ++i) {
    const Target& target = trunk.targets[i];
    const bool shares = i > 0 && trunk.targets[i - 1].priority == target.priority;
    if (i > 0) text += shares ? " and " : ", else ";
    text += target_text(target);
    unsigned sum = 0;
    for (const Target& other : trunk.targets) sum += other.priority == target.priority ? other.weight : 0;
    if (sum != target.weight) text += fmt::format(" ({} of {})", target.weight, sum);
  }
  return text;
}

// How its peers are known; empty where only we connect.
std::string peers_lines(const Trunk& trunk, const Config& config) {
  std::vector<std::string> listeners;
  for (const ListenerId listener : trunk.accept_on) listeners.push_back(config.listeners[listener.value].name);
  std::vector<std::string> sources;
  for (const IpNetwork& source : trunk.sources) sources.push_back(source.text());
  const std::string from = sources.empty() ? "" : fmt::format(" from {}", fmt::join(sources, ", "));
  const std::string by = listeners.empty() ? "" : fmt::format(" by {}", fmt::join(listeners, ", "));
  if (trunk.known_by == config::KnownBy::kAddress)
    return from.empty() ? "" : fmt::format("\npeers that come to us are known by their address{}{}", from, by);
  if (from.empty() && by.empty()) return "";
  return fmt::format("\npeers that come to us with that certificate are taken{}{} alone", from, by);
}

std::string trunk_text(const Trunk& trunk, const Config& config) {
  std::string text;
  if (trunk.targets.empty()) {
    text = "the peer connects to us";
  } else {
    text = fmt::format("to {}", targets_text(trunk));
    if (config::is_large_by_tcp(trunk)) text += "; requests too large for a datagram by tcp";
    if (!config::connection_targets(trunk).empty())
      text += fmt::format("; {} connection{}", trunk.connections, trunk.connections == 1 ? "" : "s");
  }
  const bool by_certificate = trunk.known_by == config::KnownBy::kCertificate;
  const bool tls =
      (trunk.targets.empty() && by_certificate) ||
      std::ranges::any_of(trunk.targets, [](const Target& target) { return target.transport == Transport::kTls; });
  if (tls) {
    text += fmt::format("; {}", versions(trunk.tls));
    text += trunk.verify_name.empty() ? "; its certificate must carry the target's host"
                                      : fmt::format("; its certificate must carry {}", trunk.verify_name);
  }
  if (trunk.listener.valid()) text += fmt::format("; as {}", config.listeners[trunk.listener.value].name);
  if (tls && !trunk.targets.empty()) text += trunk_tls_lines(trunk);
  return text + peers_lines(trunk, config) + watch_lines(trunk);
}

std::string header_list(const std::vector<config::HeaderName>& names) {
  std::string text;
  for (const config::HeaderName& name : names) text += (text.empty() ? "" : ", ") + name.name;
  return text;
}

std::string route_text(const Route& route, const Config& config) {
  std::string text = route.methods.empty() ? "every request" : fmt::format("{}", fmt::join(route.methods, ", "));
  if (route.from_trunk.valid()) text += fmt::format(" from trunk {}", config.trunks[route.from_trunk.value].name);
  if (route.from_listener.valid())
    text += fmt::format(" that came in at {}", config.listeners[route.from_listener.value].name);
  if (!route.user_prefix.empty()) text += fmt::format(" for users that begin with '{}'", route.user_prefix);
  if (!route.user_match.empty()) text += fmt::format(" for users that match '{}'", route.user_match);
  if (!route.host.empty()) text += fmt::format(" for host {}", route.host);
  if (!route.has_headers.empty()) text += fmt::format(" with {}", header_list(route.has_headers));
  if (route.reject != 0) return text + fmt::format(" -> rejected: {} {}", route.reject, route.reason);
  std::vector<std::string> trunks;
  for (const TrunkId trunk : route.to) trunks.push_back(config.trunks[trunk.value].name);
  text += fmt::format(" -> trunk {}", fmt::join(trunks, ", or while that is down "));
  for (const std::string& action : route_actions(route)) text += "\n" + action;
  return text;
}

std::string share_text(config::Share share) { return fmt::format("{:g}%", share.millionths / 10'000.0); }

std::string hep_text(const Config& config) {
  std::string text = fmt::format(
      "Copies of messages, decrypted, go to the HEP collector udp:{} as capture agent {}: {} "
      "of the calls",
      config.hep.collector.text(), config.hep.capture_id, share_text(config.hep.sample));
  for (const Trunk& trunk : config.trunks) {
    if (trunk.hep_sample != config.hep.sample)
      text += fmt::format(", of trunk {} {}", trunk.name, share_text(trunk.hep_sample));
  }
  return text + "\n";
}

// Lines of "name  text", the texts under each other, also those that have several lines.
std::string list(std::string_view title, const std::vector<std::pair<std::string, std::string>>& lines) {
  if (lines.empty()) return fmt::format("\n{}: none\n", title);
  std::size_t width = 0;
  for (const auto& [name, text] : lines) width = std::max(width, name.size());
  std::string result = fmt::format("\n{}\n", title);
  for (const auto& [name, text] : lines) {
    std::string_view shown = name;
    for (std::string_view rest = text; !rest.empty();) {
      const std::string_view line = rest.substr(0, rest.find('\n'));
      result += fmt::format("  {:<{}}  {}\n", shown, width, line);
      rest.remove_prefix(std::min(rest.size(), line.size() + 1));
      shown = {};
    }
  }
  return result;
}

}  // namespace

std::vector<std::string> route_actions(const Route& route) {
  std::vector<std::string> actions;
  const config::PrefixRewrite& prefix = route.rewrite_user_prefix;
  if (!prefix.from.empty() && !prefix.to.empty())
    actions.push_back(fmt::format("'{}' at the beginning of the user becomes '{}'", prefix.from, prefix.to));
  else if (!prefix.from.empty())
    actions.push_back(fmt::format("'{}' at the beginning of the user is stripped", prefix.from));
  else if (!prefix.to.empty())
    actions.push_back(fmt::format("'{}' is put before the user", prefix.to));
  if (!route.rewrite_host.empty()) actions.push_back(fmt::format("the host becomes {}", route.rewrite_host));
  if (!route.remove_headers.empty()) actions.push_back(fmt::format("removes {}", header_list(route.remove_headers)));
  for (std::string_view rest = route.add_headers; !rest.empty();) {
    const std::size_t end = rest.find("\r\n");
    actions.push_back(fmt::format("adds {}", rest.substr(0, end)));
    rest.remove_prefix(end + 2);
  }
  return actions;
}

std::string config_report(const Config& config) {
  std::string report = fmt::format("{} is good.\n{} worker{}; records are encrypted {}\nControl socket {}\n",
                                   config.path, config.workers, config.workers == 1 ? "" : "s",
                                   record_layer(config.record_layer), config.control_socket);
  if (!config.token_key_file.empty())
    report += fmt::format("Dialogs outlive a restart, by the key in {}\n", config.token_key_file);
  if (!config.hep.collector.empty()) report += hep_text(config);
  std::vector<std::pair<std::string, std::string>> lines;
  for (const Listener& listener : config.listeners) lines.emplace_back(listener.name, listener_text(listener));
  report += list("Listeners", lines);
  lines.clear();
  for (const Trunk& trunk : config.trunks) lines.emplace_back(trunk.name, trunk_text(trunk, config));
  report += list("Trunks", lines);
  lines.clear();
  for (const Route& route : config.routes)
    lines.emplace_back(fmt::format("{}.", lines.size() + 1), route_text(route, config));
  report += list("Routes (the first that matches wins)", lines);
  return report;
}

}  // namespace ktrunk::cli
