#include "sip/route_set.h"

#include "sip/limits.h"
#include "sip/text.h"

namespace ktrunk::sip {

namespace {

// The user part of a Route value if it may be a token, and whether the value names us.
struct RouteUri {
  Uri uri;
  bool parsed = false;
};
RouteUri route_uri(std::string_view value) {
  const auto address = parse_name_addr(value);
  if (!address) return {};
  const auto uri = parse_uri(address->uri);
  return uri ? RouteUri{*uri, true} : RouteUri{};
}

// One Route header field: how many values it has, and those at the edges of what is erased.
struct LineValues {
  std::size_t count = 0;
  std::size_t first_begin = 0;
  std::size_t kept_begin = 0;  // of value number `popped`
  std::size_t last_end = 0;
  std::size_t before_last_end = 0;
};

// Looks at the first Route that is not ours: the value number plan.pop.
void look_behind_ours(const Message& request, std::size_t count, RoutePlan& plan) {
  const auto target = parse_uri(plan.target);
  plan.sips = target && target->scheme == Uri::Scheme::kSips;
  if (plan.pop >= count) return;
  ValueCursor routes(request, HeaderId::kRoute);
  auto value = routes.next();
  for (std::size_t i = 0; i < plan.pop; ++i) value = routes.next();
  const RouteUri next = route_uri(value->text);
  if (!next.parsed || next.uri.host.empty()) return;
  plan.sips = plan.sips || next.uri.scheme == Uri::Scheme::kSips;
  if (find_parameter(next.uri.parameters, "lr")) return;
  plan.to_strict_router = true;
  plan.strict_router = next.uri.text.substr(0, next.uri.text.size() - next.uri.headers.size());  // 19.1.1
}

// Makes a URI of the request the last Route value. going: how many leading values are about to be erased.
void append_route(const Message& request, std::string_view uri, const UriChanges& changes, std::size_t going,
                  Edits& edits) {
  std::size_t count = 0;
  ValueCursor::Value last{};
  for (ValueCursor routes(request, HeaderId::kRoute); const auto value = routes.next(); ++count) last = *value;
  const bool alone = count <= going;  // no value stays: a line of its own, where the first one was
  const std::size_t place =
      alone ? request.header(request.first(HeaderId::kRoute)).line : request.offset_of(last.text) + last.text.size();
  edits.insert(place, alone ? "Route: <" : ", <");
  std::size_t done = request.offset_of(uri);
  for (std::size_t i = 0; i < changes.count; ++i) {
    const std::size_t change = request.offset_of(changes.list[i].place);
    edits.replace_with_original(place, 0, done, change - done);
    edits.insert(place, changes.list[i].text);
    done = change + changes.list[i].place.size();
  }
  edits.replace_with_original(place, 0, done, request.offset_of(uri) + uri.size() - done);
  edits.insert(place, alone ? ">\r\n" : ">");
}

}  // namespace

RoutePlan plan_routes(const Message& request, const Uri& request_uri, const OwnAddresses& own, const TokenKey& key) {
  RoutePlan plan{.target = request.request_uri()};
  if (!request.has(HeaderId::kRoute) && request_uri.user.size() < kMacBytes) {
    plan.sips = request_uri.scheme == Uri::Scheme::kSips;
    return plan;
  }

  std::size_t count = 0;
  std::string_view last;
  for (ValueCursor routes(request, HeaderId::kRoute); const auto value = routes.next(); ++count) last = value->text;
  if (count > kMaxRouteValues) {
    plan.next = RoutePlan::Next::kBroken;
    return plan;
  }

  std::string_view token_text;
  if (const auto token = decode_route_token(request_uri.user, key)) {
    plan.next = RoutePlan::Next::kBroken;
    if (count == 0) return plan;
    const RouteUri target = route_uri(last);
    if (!target.parsed) return plan;
    plan.next = RoutePlan::Next::kToken;
    plan.token = *token;
    plan.from_strict_router = true;
    plan.target = target.uri.text;
    token_text = request_uri.user;
    --count;
  }

  ValueCursor routes(request, HeaderId::kRoute);
  for (; plan.pop < count; ++plan.pop) {
    const RouteUri route = route_uri(routes.next()->text);
    if (!route.parsed) break;
    if (plan.next == RoutePlan::Next::kToken) {
      // The second of our two lines goes with the first; any other Route is for the next hop, even one of ours: the
      // request comes back to us later for it.
      if (plan.token.lines == RouteToken::Lines::kTwo && route.uri.user == token_text) ++plan.pop;
      break;
    }
    if (const auto token = decode_route_token(route.uri.user, key)) {
      plan.next = RoutePlan::Next::kToken;
      plan.token = *token;
      token_text = route.uri.user;
    } else if (!own.is_us(route.uri)) {
      break;
    } else if (!route.uri.user.empty()) {
      plan.next = RoutePlan::Next::kForged;
      break;
    }
  }
  look_behind_ours(request, count, plan);
  return plan;
}

void edit_routes(const Message& request, const RoutePlan& plan, const UriChanges& changes, Edits& edits) {
  const std::string_view uri = plan.to_strict_router ? plan.strict_router : plan.target;
  if (plan.from_strict_router || plan.to_strict_router)
    edits.replace_with_original(request.offset_of(request.request_uri()), request.request_uri().size(),
                                request.offset_of(uri), uri.size());
  else
    for (std::size_t i = 0; i < changes.count; ++i)
      edits.replace(request.offset_of(changes.list[i].place), changes.list[i].place.size(), changes.list[i].text);
  // Between two strict routers the last Route value is the target and stays where it is.
  const bool take_last = plan.from_strict_router && !plan.to_strict_router;
  std::size_t to_pop = plan.pop + (plan.to_strict_router ? 1 : 0);
  std::size_t last_header = Message::kNoHeader;  // the field that holds the last value
  if (take_last)
    for (ValueCursor routes(request, HeaderId::kRoute); const auto value = routes.next();) last_header = value->header;
  if (plan.to_strict_router && !plan.from_strict_router) append_route(request, plan.target, changes, to_pop, edits);

  ValueCursor routes(request, HeaderId::kRoute);
  auto value = routes.next();
  while (value && (to_pop > 0 || take_last)) {
    const std::size_t header = value->header;
    LineValues line;
    for (; value && value->header == header; value = routes.next()) {
      const std::size_t begin = request.offset_of(value->text);
      if (line.count == 0) line.first_begin = begin;
      if (line.count == to_pop) line.kept_begin = begin;
      line.before_last_end = line.last_end;
      line.last_end = begin + value->text.size();
      ++line.count;
    }
    const std::size_t popped = line.count < to_pop ? line.count : to_pop;
    const bool takes_last = header == last_header;
    to_pop -= popped;
    if (popped + (takes_last ? 1 : 0) >= line.count) {
      const Message::Header field = request.header(header);
      edits.erase(field.line, field.line_end - field.line);
      continue;
    }
    if (popped > 0) edits.erase(line.first_begin, line.kept_begin - line.first_begin);
    if (takes_last) edits.erase(line.before_last_end, line.last_end - line.before_last_end);
  }
}

void pop_top_via(const Message& message, Edits& edits) {
  if (message.facts().vias == 0) return edits.fail();
  edits.erase(message.facts().top_via_place, message.facts().top_via_size);
}

}  // namespace ktrunk::sip
