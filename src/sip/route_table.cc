#include "sip/route_table.h"

#include "sip/uri.h"

namespace ktrunk::sip {

namespace {

bool method_matches(const std::vector<std::string>& methods, std::string_view method) {
  if (methods.empty()) return true;
  const bool follows_invite = method == "ACK" || method == "CANCEL";
  for (const std::string& allowed : methods)
    if (allowed == method || (follows_invite && allowed == "INVITE")) return true;
  return false;
}

}  // namespace

RouteTable::RouteTable(const config::Config& config) : routes_(config.routes) {
  for (config::Route& route : routes_)
    if (route.host.starts_with('[') && route.host.ends_with(']'))
      route.host = route.host.substr(1, route.host.size() - 2);
}

std::optional<std::size_t> RouteTable::place(const Query& query) const {
  for (std::size_t i = 0; i < routes_.size(); ++i) {
    const config::Route& route = routes_[i];
    if (route.from_trunk.valid() && route.from_trunk != query.from_trunk) continue;
    if (route.from_listener.valid() && route.from_listener != query.from_listener) continue;
    if (!method_matches(route.methods, query.method)) continue;
    if (!user_has_prefix(query.user, route.user_prefix)) continue;
    if (!route.host.empty() && !same_host(route.host, query.host)) continue;
    return i;
  }
  return std::nullopt;
}

std::optional<TrunkId> RouteTable::find(const Query& query) const {
  const auto found = place(query);
  return found ? std::optional(routes_[*found].to) : std::nullopt;
}

}  // namespace ktrunk::sip
