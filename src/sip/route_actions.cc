#include "sip/route_actions.h"

#include <algorithm>

namespace ktrunk::sip {

UriChanges uri_changes(const Uri& uri, const config::Route& route) {
  UriChanges changes;
  if (uri.scheme != Uri::Scheme::kSip && uri.scheme != Uri::Scheme::kSips) return changes;
  const config::PrefixRewrite& prefix = route.rewrite_user_prefix;
  if ((!prefix.from.empty() || !prefix.to.empty()) && !uri.user.empty()) {
    const auto length = user_prefix_length(uri.user, prefix.from);
    if (length && uri.user.size() - *length + prefix.to.size() != 0)
      changes.list[changes.count++] = {.place = uri.user.substr(0, *length), .text = prefix.to};
  }
  if (!route.rewrite_host.empty()) {
    const char* const begin = uri.host.data() - (uri.is_ipv6 ? 1 : 0);
    const char* end = uri.text.data() + uri.text.size();
    if (!uri.headers.empty()) end = uri.headers.data();
    if (!uri.parameters.empty()) end = uri.parameters.data();
    changes.list[changes.count++] = {.place = {begin, static_cast<std::size_t>(end - begin)},
                                     .text = route.rewrite_host};
  }
  return changes;
}

void edit_header_fields(const Message& request, const config::Route& route, Edits& edits) {
  const auto goes = [&](std::size_t index) {
    return std::ranges::any_of(route.remove_headers,
                               [&](const auto& name) { return name.is(request.header(index).name); });
  };
  const std::size_t count = route.remove_headers.empty() ? 0 : request.header_count();
  for (std::size_t i = 0; i < count; ++i) {
    if (!goes(i)) continue;
    const std::size_t begin = request.header(i).line;
    while (i + 1 < count && goes(i + 1)) ++i;  // neighbours are one edit
    edits.erase(begin, request.header(i).line_end - begin);
  }
  if (!route.add_headers.empty()) edits.insert(request.header_section_size() - 2, route.add_headers);
}

}  // namespace ktrunk::sip
