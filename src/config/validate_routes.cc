// has_headers and the messages that have none of their INVITE's header fields: a stateless proxy cannot remember where
// the INVITE went, so CANCEL, and ACK to a response other than 2xx, must come to the same trunk and Request-URI by what
// they do have.
#include <algorithm>

#include "config/tables.h"

namespace ktrunk::config {
namespace {

bool takes_invites(const Route& route) {
  return route.methods.empty() || std::ranges::find(route.methods, "INVITE") != route.methods.end();
}

// No INVITE meets the conditions of both, as far as can be told.
bool disjoint(const Route& a, const Route& b) {
  if (!takes_invites(a) || !takes_invites(b)) return true;
  if (a.from_trunk.valid() && b.from_trunk.valid() && a.from_trunk != b.from_trunk) return true;
  if (a.from_listener.valid() && b.from_listener.valid() && a.from_listener != b.from_listener) return true;
  const auto is_name = [](const std::string& host) { return !host.empty() && !host.starts_with('['); };
  if (is_name(a.host) && is_name(b.host) && a.host != b.host) return true;  // an IPv6 address has several spellings
  return !a.user_prefix.starts_with(b.user_prefix) && !b.user_prefix.starts_with(a.user_prefix);
}

// Whichever INVITE meets the conditions of `narrow`, less has_headers, meets those of `wide`.
bool covers(const Route& wide, const Route& narrow) {
  return takes_invites(wide) && (!wide.from_trunk.valid() || wide.from_trunk == narrow.from_trunk) &&
         (!wide.from_listener.valid() || wide.from_listener == narrow.from_listener) &&
         (wide.host.empty() || wide.host == narrow.host) &&
         (wide.user_match.empty() || wide.user_match == narrow.user_match) &&
         narrow.user_prefix.starts_with(wide.user_prefix);
}

bool same_way(const Route& a, const Route& b) {
  return a.to == b.to && a.rewrite_user_prefix == b.rewrite_user_prefix && a.rewrite_host == b.rewrite_host &&
         b.reject == 0;
}

}  // namespace

void check_routes(Draft& draft) {
  const std::vector<Route>& routes = draft.config.routes;
  for (std::size_t i = 0; i < routes.size(); ++i) {
    // Where the INVITE is rejected, its ACK is ours to swallow, and whoever else gets it will do so (RFC 3261 8.2.7).
    if (routes[i].has_headers.empty() || routes[i].reject != 0 || !takes_invites(routes[i])) continue;
    const auto next =
        std::find_if(routes.begin() + static_cast<std::ptrdiff_t>(i) + 1, routes.end(),
                     [&](const Route& other) { return other.has_headers.empty() && !disjoint(routes[i], other); });
    if (next != routes.end() && covers(*next, routes[i]) && same_way(routes[i], *next)) continue;
    draft.routes[i].problem(
        "has_headers",
        "an INVITE's CANCEL and ACK have none of its header fields, but must go the same way; expected methods without "
        "INVITE, reject, or a later route without has_headers that takes the same requests with the same to and "
        "rewrites");
  }
}

}  // namespace ktrunk::config
