#include "sip/route_table.h"

#include <algorithm>
#include <array>

#include "sip/limits.h"
#include "sip/uri.h"

namespace ktrunk::sip {

namespace {

bool follows_invite(std::string_view method) { return method == "ACK" || method == "CANCEL"; }

bool method_matches(const std::vector<std::string>& methods, std::string_view method) {
  if (methods.empty()) return true;
  for (const std::string& allowed : methods)
    if (allowed == method || (follows_invite(method) && allowed == "INVITE")) return true;
  return false;
}

bool has_header(const Message& request, const config::HeaderName& name) {
  for (std::size_t i = 0; i < request.header_count(); ++i)
    if (name.is(request.header(i).name)) return true;
  return false;
}

bool has_headers(const std::vector<config::HeaderName>& names, const RouteTable::Query& query) {
  if (names.empty()) return true;
  if (query.request == nullptr || follows_invite(query.method)) return false;
  return std::ranges::all_of(names, [&](const auto& name) { return has_header(*query.request, name); });
}

bool user_matches(const config::UserPattern& pattern, std::string_view user) {
  if (user.find('%') == std::string_view::npos) return pattern.matches(user);
  std::array<char, kMaxHeaderSectionBytes> room;
  return pattern.matches(unescape_user(user, room));
}

}  // namespace

RouteTable::RouteTable(const config::Config& config) {
  for (const config::Route& route : config.routes) {
    Entry& entry = entries_.emplace_back(Entry{route, std::nullopt});
    std::string& host = entry.route.host;
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    if (route.user_match.empty()) continue;
    // config::parse() has compiled it once already.
    if (auto compiled = config::UserPattern::compile(route.user_match)) entry.user_match = std::move(*compiled);
  }
}

std::optional<std::size_t> RouteTable::place(const Query& query) const {
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const config::Route& route = entries_[i].route;
    if (route.from_trunk.valid() && route.from_trunk != query.from_trunk) continue;
    if (route.from_listener.valid() && route.from_listener != query.from_listener) continue;
    if (!method_matches(route.methods, query.method)) continue;
    if (!user_has_prefix(query.user, route.user_prefix)) continue;
    if (!route.host.empty() && !same_host(route.host, query.host)) continue;
    if (!has_headers(route.has_headers, query)) continue;
    if (!route.user_match.empty() && (!entries_[i].user_match || !user_matches(*entries_[i].user_match, query.user)))
      continue;
    return i;
  }
  return std::nullopt;
}

const config::Route* RouteTable::find(const Query& query) const {
  const auto found = place(query);
  return found ? &entries_[*found].route : nullptr;
}

}  // namespace ktrunk::sip
