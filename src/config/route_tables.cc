// One [[route]] table: its conditions, where it leads, and what it changes.
#include <algorithm>
#include <array>

#include "config/notation.h"
#include "config/tables.h"
#include "config/user_pattern.h"

namespace ktrunk::config {
namespace {

bool is_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

// RFC 3261 25.1, user: unreserved, user-unreserved, and complete escapes.
bool is_user_text(std::string_view text) {
  constexpr std::string_view kMarks = "-_.!~*'()&=+$,;?/";
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (letter || kMarks.find(c) != std::string_view::npos) continue;
    if (c != '%' || i + 2 >= text.size() || !is_hex(text[i + 1]) || !is_hex(text[i + 2])) return false;
    i += 2;
  }
  return true;
}

struct Phrase {
  int status;
  std::string_view text;
};
// RFC 3261 21, RFC 8197, RFC 8688.
constexpr auto kPhrases = std::to_array<Phrase>({{400, "Bad Request"},
                                                 {403, "Forbidden"},
                                                 {404, "Not Found"},
                                                 {406, "Not Acceptable"},
                                                 {410, "Gone"},
                                                 {480, "Temporarily Unavailable"},
                                                 {484, "Address Incomplete"},
                                                 {486, "Busy Here"},
                                                 {488, "Not Acceptable Here"},
                                                 {500, "Server Internal Error"},
                                                 {501, "Not Implemented"},
                                                 {502, "Bad Gateway"},
                                                 {503, "Service Unavailable"},
                                                 {600, "Busy Everywhere"},
                                                 {603, "Decline"},
                                                 {604, "Does Not Exist Anywhere"},
                                                 {606, "Not Acceptable"},
                                                 {607, "Unwanted"},
                                                 {608, "Rejected"}});

// Answers that mean nothing without header fields, which a route has none of: challenges, lists of what is allowed.
constexpr std::array kNeedHeaderFields = {401, 405, 407, 415, 420, 421, 422, 423, 469, 489, 494};

void read_methods(TableReader& reader, Route& route) {
  const std::vector<TextItem> methods = reader.texts("methods");
  const bool invite = std::ranges::find(methods, "INVITE", &TextItem::text) != methods.end();
  for (const TextItem& method : methods) {
    if (!is_token(method.text)) {
      reader.problem(method, fmt::format("'{}' is no method; expected one like \"INVITE\"", method.text));
    } else if (std::ranges::any_of(method.text, [](char c) { return c >= 'a' && c <= 'z'; })) {
      reader.problem(method, fmt::format("'{}': methods are case-sensitive; expected upper case", method.text));
    } else if (!invite && (method.text == "ACK" || method.text == "CANCEL")) {
      reader.problem(method, fmt::format("'{}' goes where its INVITE goes; expected \"INVITE\", which means all three",
                                         method.text));
    }
    route.methods.push_back(method.text);
  }
  if (reader.has("methods") && methods.empty())
    reader.problem("methods", "no method, so nothing would match; expected one or more, or no such key for any");
}

void read_host(TableReader& reader, Route& route) {
  const std::string host = reader.text("host");
  if (host.empty()) return;
  // An IPv6 address may stand in brackets, as in the Request-URI, or without.
  const bool literal = Address::from_ip(host, 0).has_value();
  const Result<HostPort> parsed = parse_host_port(literal ? uri_host(host) : host);
  if (!parsed || parsed->port != 0) {
    reader.problem("host", parsed ? fmt::format("'{}' has a port; expected a host alone", host) : parsed.error().what);
  } else {
    route.host = to_lower(uri_host(parsed->host));
  }
}

void read_user_match(TableReader& reader, Route& route) {
  route.user_match = reader.text("user_match");
  if (route.user_match.empty()) return;
  if (const auto compiled = UserPattern::compile(route.user_match); !compiled)
    reader.problem("user_match", fmt::format("{}; expected a regular expression in RE2's syntax for the whole user",
                                             compiled.error().what));
}

std::vector<HeaderName> read_header_names(TableReader& reader, std::string_view key) {
  std::vector<HeaderName> names;
  const std::vector<TextItem> items = reader.texts(key);
  for (const TextItem& item : items) {
    if (!is_token(item.text)) {
      reader.problem(item, fmt::format("'{}' is no header field's name; expected one like \"Diversion\"", item.text));
    } else {
      names.push_back(header_name(item.text));
    }
  }
  if (reader.has(key) && items.empty()) reader.problem(key, "no name; expected one or more, or no such key");
  if (items.size() > kMaxRouteHeaders)
    reader.problem(key, fmt::format("{} names; expected {} at most", items.size(), kMaxRouteHeaders));
  return names;
}

void refuse_untouchable(TableReader& reader, const TextItem& item, const HeaderName& name) {
  if (const std::string_view why = why_untouchable(name); !why.empty())
    reader.problem(item, fmt::format("{} must go on as it is, for {}; expected another header field", name.name, why));
}

void read_remove_headers(TableReader& reader, Route& route) {
  route.remove_headers = read_header_names(reader, "remove_headers");
  for (const TextItem& item : reader.texts("remove_headers"))
    if (is_token(item.text)) refuse_untouchable(reader, item, header_name(item.text));
}

// "Name: value". TOML is UTF-8, as header values are; the reader lets no control character pass.
void read_add_headers(TableReader& reader, Route& route) {
  const std::vector<TextItem> items = reader.texts("add_headers");
  for (const TextItem& item : items) {
    const std::size_t colon = item.text.find(':');
    const std::string_view name = std::string_view(item.text).substr(0, colon);
    if (colon == std::string::npos || !is_token(name)) {
      reader.problem(item, fmt::format("'{}' is no header field; expected \"NAME: VALUE\"", item.text));
      continue;
    }
    refuse_untouchable(reader, item, header_name(name));
    std::string_view value = std::string_view(item.text).substr(colon + 1);
    value.remove_prefix(std::min(value.find_first_not_of(' '), value.size()));
    value = value.substr(0, value.find_last_not_of(' ') + 1);
    route.add_headers += fmt::format("{}: {}\r\n", name, value);
  }
  if (reader.has("add_headers") && items.empty())
    reader.problem("add_headers", "no header field; expected one or more, or no such key");
  if (items.size() > kMaxRouteHeaders || route.add_headers.size() > kMaxAddedHeaderBytes)
    reader.problem("add_headers",
                   fmt::format("{} header fields of {} bytes; expected at most {} of {} bytes together", items.size(),
                               route.add_headers.size(), kMaxRouteHeaders, kMaxAddedHeaderBytes));
}

void read_rewrites(TableReader& reader, Route& route) {
  if (auto inner = reader.inner("rewrite_user_prefix")) {
    const auto part = [&](std::string_view key) {
      std::string text = inner->text(key);
      if (text.size() > kMaxPrefixBytes)
        inner->problem(key, fmt::format("{} bytes long; expected at most {}", text.size(), kMaxPrefixBytes));
      return text;
    };
    route.rewrite_user_prefix = {.from = part("from"), .to = part("to")};
    if (!is_user_text(route.rewrite_user_prefix.to))
      inner->problem("to", fmt::format("'{}' cannot stand in a SIP URI's user; expected letters, digits, {} and "
                                       "escapes like %23",
                                       route.rewrite_user_prefix.to, "-_.!~*'()&=+$,;?/"));
    if (!inner->has("from") && !inner->has("to"))
      reader.problem("rewrite_user_prefix", "empty; expected from (what to strip), to (what to put there), or both");
    inner->finish();
  }
  const std::string host = reader.text("rewrite_host");
  if (host.empty()) return;
  const bool literal = Address::from_ip(host, 0).has_value();
  const Result<HostPort> parsed = parse_host_port(literal ? uri_host(host) : host);
  if (!parsed) return reader.problem("rewrite_host", parsed.error().what);
  route.rewrite_host = uri_host(parsed->host);
  if (parsed->port != 0) route.rewrite_host += fmt::format(":{}", parsed->port);
}

void read_reject(TableReader& reader, Route& route) {
  const bool rejects = reader.has("reject");
  route.reason = reader.text("reason");
  constexpr std::size_t kLongestReason = 128;
  if (route.reason.size() > kLongestReason)
    reader.problem("reason", fmt::format("{} bytes long; expected at most {}", route.reason.size(), kLongestReason));
  if (!rejects) {
    if (reader.has("reason")) reader.problem("reason", "there is no reject; expected reject = CODE as well");
    return;
  }
  route.reject = static_cast<int>(reader.number("reject", {400, 699}, 403));
  if (std::ranges::find(kNeedHeaderFields, route.reject) != kNeedHeaderFields.end())
    reader.problem("reject", fmt::format("{} says nothing without header fields that ktrunk does not make; expected "
                                         "another code, like 403",
                                         route.reject));
  if (route.reason.empty()) {
    const auto phrase = std::ranges::find(kPhrases, route.reject, &Phrase::status);
    route.reason = phrase == kPhrases.end() ? "Rejected" : phrase->text;
  }
  for (const std::string_view key : {"to", "rewrite_user_prefix", "rewrite_host", "add_headers", "remove_headers"})
    if (reader.has(key)) reader.problem(key, "the route rejects, so that nothing goes on; expected no such key");
}

}  // namespace

Route read_route(TableReader& reader) {
  Route route;
  // from_trunk, from_listener and to are resolved by check_references().
  (void)reader.text("from_trunk");
  (void)reader.text("from_listener");
  read_methods(reader, route);
  route.user_prefix = reader.text("user_prefix");
  read_user_match(reader, route);
  read_host(reader, route);
  route.has_headers = read_header_names(reader, "has_headers");
  const std::vector<TextItem> to = reader.text_or_texts("to");
  if (to.size() > kMaxRouteTrunks)
    reader.problem("to", fmt::format("{} trunks; expected {} at most", to.size(), kMaxRouteTrunks));
  if (!reader.has("to") && !reader.has("reject"))
    reader.missing("to", "the trunk to send to, or several in order; or reject = CODE");
  read_rewrites(reader, route);
  read_remove_headers(reader, route);
  read_add_headers(reader, route);
  read_reject(reader, route);
  reader.finish();
  return route;
}

}  // namespace ktrunk::config
