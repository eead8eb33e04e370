#include "cli/route_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <variant>

#include "cli/config_report.h"
#include "cli/table.h"
#include "config/peer_addresses.h"
#include "sip/proxy.h"

namespace ktrunk::cli {
namespace {

template <typename Named>
Result<std::uint16_t> place_of(const std::vector<Named>& tables, std::string_view name, std::string_view what) {
  const auto found = std::ranges::find(tables, name, &Named::name);
  if (found == tables.end()) return fail("the configuration has no {} named '{}'", what, name);
  return static_cast<std::uint16_t>(found - tables.begin());
}

std::string with_crlf(std::string_view message) {
  if (message.substr(0, message.find('\n')).ends_with('\r')) return std::string(message);
  std::string out;
  std::size_t done = 0;
  while (done < message.size()) {
    const std::size_t feed = std::min(message.find('\n', done), message.size());
    out += message.substr(done, feed - done);
    if (feed == message.size()) break;
    out += "\r\n";
    const bool empty_line = feed == done;
    done = feed + 1;
    if (empty_line) break;
  }
  return out.append(message.substr(std::min(done, message.size())));
}

Result<sip::Flow> flow_of(const config::Config& config, const RouteQuestion& question) {
  sip::Flow flow;
  flow.remote = question.peer;
  flow.listener = ListenerId{0};
  if (!question.trunk.empty()) {
    const auto trunk = place_of(config.trunks, question.trunk, "trunk");
    if (!trunk) return std::unexpected(trunk.error());
    flow.trunk = TrunkId{*trunk};
    flow.listener = config.trunks[*trunk].listener;
  }
  if (!question.listener.empty()) {
    const auto listener = place_of(config.listeners, question.listener, "listener");
    if (!listener) return std::unexpected(listener.error());
    flow.listener = ListenerId{*listener};
  }
  flow.transport = config.listeners[flow.listener.value].transport;
  if (question.trunk.empty()) flow.trunk = config::PeerAddresses(config).find(flow.remote, flow.listener);
  if (flow.transport != config::Transport::kUdp) flow.connection = {SlotIndex{0}, Generation{1}};
  return flow;
}

// A connection to the trunk's first target.
sip::Flow flow_to(const config::Config& config, TrunkId id) {
  const config::Trunk& trunk = config.trunks[id.value];
  sip::Flow flow;
  flow.trunk = id;
  flow.listener = trunk.listener;
  if (!trunk.targets.empty()) flow.transport = trunk.targets.front().transport;
  if (flow.transport != config::Transport::kUdp) {
    flow.connection = {SlotIndex{1}, Generation{1}};
  } else if (const auto address = Address::from_ip(trunk.targets.front().host, trunk.targets.front().port)) {
    flow.remote = *address;
  }
  return flow;
}

// Decisions as reports.
class Reporter {
 public:
  Reporter(const config::Config& config, const sip::Proxy& proxy, const sip::Message& message, const sip::Flow& source,
           sip::Edits& edits)
      : config_(config), proxy_(proxy), message_(message), source_(source), edits_(edits) {}

  RouteReport operator()(const sip::Reply& reply) const {
    const auto place = rejecting_route(reply);
    const std::string route = place ? fmt::format("route {} of {} rejects\n", *place + 1, config_.routes.size()) : "";
    RouteReport report{.what = RouteReport::What::kAnswered,
                       .summary = route + fmt::format("answered {} {}\n", reply.status, reply.reason),
                       .octets = {}};
    proxy_.build_reply(message_, source_, reply, report.octets);
    return report;
  }
  RouteReport operator()(const sip::Drop& drop) const {
    return {.what = RouteReport::What::kDropped, .summary = fmt::format("dropped: {}\n", drop.why), .octets = {}};
  }
  RouteReport operator()(const sip::ToTrunk& way) const {
    const sip::Flow destination = flow_to(config_, way.route->to.front());
    std::string to =
        fmt::format("route {} of {}: to trunk '{}', {}\n", place().value_or(0) + 1, config_.routes.size(),
                    config_.trunks[destination.trunk.value].name, config::transport_name(destination.transport));
    for (std::size_t i = 1; i < way.route->to.size(); ++i)
      to += fmt::format("while that is down: to trunk '{}'\n", config_.trunks[way.route->to[i].value].name);
    for (const std::string& action : route_actions(*way.route)) to += action + "\n";
    if (way.needs == sip::Needs::kTls && destination.transport != config::Transport::kTls) {
      RouteReport refused = std::visit(*this, sip::Proxy::refuse_sips(message_));
      refused.summary = to + "sips asks for TLS\n" + refused.summary;
      return refused;
    }
    proxy_.forward_request(message_, source_, destination, edits_, way.route);
    if (edits_.failed()) return (*this)(sip::Reply{500, "Message Needs Too Many Changes", {}});
    if (destination.transport == config::Transport::kUdp &&
        config::is_large_by_tcp(config_.trunks[destination.trunk.value]) &&
        edits_.size(message_.bytes()) > sip::kMostDatagramRequestBytes) {
      to += "too large for a datagram: by tcp, if there is a connection\n";
      sip::Flow carrier = destination;
      carrier.transport = config::Transport::kTcp;
      proxy_.forward_request(message_, source_, destination, edits_, way.route, std::nullopt, &carrier);
    }
    RouteReport report{.what = RouteReport::What::kForwarded, .summary = to, .octets = {}};
    report.octets.resize(edits_.size(message_.bytes()));
    edits_.write(message_.bytes(), report.octets.data());
    return report;
  }
  RouteReport operator()(const sip::ToFlow&) const {
    return (*this)(sip::Drop{"it belongs to a ktrunkd that is running"});
  }

 private:
  // Among the [[route]] tables, if one fits.
  [[nodiscard]] std::optional<std::size_t> place() const {
    const auto uri = sip::parse_uri(message_.request_uri());
    return sip::RouteTable(config_).place({.from_trunk = source_.trunk,
                                           .from_listener = source_.listener,
                                           .method = message_.method_name(),
                                           .user = uri ? uri->user : "",
                                           .host = uri ? uri->host : "",
                                           .request = &message_});
  }
  [[nodiscard]] std::optional<std::size_t> rejecting_route(const sip::Reply& reply) const {
    const auto found = place();
    if (!found) return std::nullopt;
    const config::Route& route = config_.routes[*found];
    const bool its_own = route.reject != 0 && (route.reject == reply.status || reply.status == 481);
    return its_own ? found : std::nullopt;
  }

  const config::Config& config_;
  const sip::Proxy& proxy_;
  const sip::Message& message_;
  const sip::Flow& source_;
  sip::Edits& edits_;
};

}  // namespace

Result<RouteReport> route_report(const config::Config& config, std::string_view message,
                                 const RouteQuestion& question) {
  const auto source = flow_of(config, question);
  if (!source) return std::unexpected(source.error());
  const sip::Proxy proxy(config, sip::TokenKey{});
  const std::string octets = with_crlf(message);
  sip::Message parsed;
  sip::Edits edits;
  parsed.parse(octets, sip::Carrier::kDatagram);
  const sip::Decision decision = proxy.decide(parsed, *source, edits);
  RouteReport report = std::visit(Reporter(config, proxy, parsed, *source, edits), decision);
  const std::string from =
      source->trunk.valid() ? fmt::format("trunk '{}'", config.trunks[source->trunk.value].name) : "a stranger";
  report.summary = fmt::format("{} {}\nfrom {}, by listener '{}'\n{}",
                               parsed.is_request() ? printable(std::string(parsed.method_name())) : "no request",
                               printable(std::string(parsed.request_uri())), from,
                               config.listeners[source->listener.value].name, report.summary);
  return report;
}

}  // namespace ktrunk::cli
