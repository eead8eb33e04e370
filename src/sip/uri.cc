#include "sip/uri.h"

#include <algorithm>

#include "sip/ip_text.h"
#include "sip/text.h"

namespace ktrunk::sip {

namespace {

// Takes a URI's text: the set of the grammar, and '#', '|' and the like that telephones send in practice; escapes that
// are complete. Stops at the first octet that cannot be part of one, and at an '@'.
inline void skip_uri_text(Cursor& cursor) {
  for (;;) {
    (void)cursor.take_span(kUriSet);
    if (cursor.peek() != '%') return;
    const std::string_view escape = cursor.rest();
    if (escape.size() < 3 || !is_hex(escape[1]) || !is_hex(escape[2])) return;
    cursor.skip(3);
  }
}
bool is_uri_text(std::string_view text) {
  Cursor cursor(text);
  skip_uri_text(cursor);
  return cursor.done();
}

bool is_ipv6_text(std::string_view text) {
  return text.find(':') != std::string_view::npos &&
         std::all_of(text.begin(), text.end(), [](char c) { return is_hex(c) || c == ':' || c == '.'; });
}

bool is_host_name(std::string_view text) { return !text.empty() && span_of(kHostSet, text) == text.size(); }

bool is_scheme(std::string_view text) {
  return !text.empty() && is_alpha(text[0]) &&
         std::all_of(text.begin(), text.end(), [](char c) { return is_alnum(c) || c == '+' || c == '-' || c == '.'; });
}

// [ user [ ":" password ] "@" ] host [ ":" port ] [ parameters ] [ headers ]
bool parse_sip(std::string_view text, Uri& uri) {
  Cursor cursor(text);
  skip_uri_text(cursor);
  const bool has_user = cursor.peek() == '@';
  if (has_user) {
    const std::string_view user_info = cursor.since(text.data());
    const std::size_t colon = find_octet(user_info, ':');
    uri.user = {user_info.data(), colon};
    if (uri.user.empty()) return false;
    if (colon < user_info.size()) uri.password = user_info.substr(colon + 1);
    cursor.skip(1);
  } else if (cursor.done()) {
    cursor = Cursor(text);
  } else {
    return false;
  }
  if (cursor.peek() == '[') {
    const std::string_view rest = cursor.rest();
    const std::size_t end = std::min(rest.find_first_of(";?"), rest.size());
    const auto host_port = parse_host_port(rest.substr(0, end));
    if (!host_port) return false;
    uri.host = host_port->host;
    uri.is_ipv6 = true;
    uri.port = host_port->port;
    cursor.skip(end);
  } else {
    uri.host = cursor.take_span(kHostSet);
    if (uri.host.empty()) return false;
    if (cursor.take(':') && !parse_port(cursor.take_digits(), uri.port)) return false;
  }
  if (cursor.done()) return true;
  if (cursor.peek() != ';' && cursor.peek() != '?') return false;
  const std::string_view rest = cursor.rest();
  // A second '@' is no URI's text either: who knows which one counts.
  if (has_user && !is_uri_text(rest)) return false;
  const std::size_t question = find_octet(rest, '?');
  uri.parameters = rest.substr(0, question);
  if (question < rest.size()) uri.headers = rest.substr(question);
  return true;
}

bool parse_tel(std::string_view rest, Uri& uri) {
  const std::size_t tail = rest.find(';');
  uri.user = rest.substr(0, tail);
  if (tail != std::string_view::npos) uri.parameters = rest.substr(tail);
  return is_uri_text(rest) && !uri.user.empty() && std::all_of(uri.user.begin(), uri.user.end(), [](char c) {
           return is_hex(c) || std::string_view("+*#-.()").find(c) != std::string_view::npos;
         });
}

}  // namespace

std::optional<HostPort> parse_host_port(std::string_view text) {
  HostPort result;
  std::string_view port_text;
  if (text.starts_with('[')) {
    const std::size_t close = text.find(']');
    if (close == std::string_view::npos) return std::nullopt;
    result.host = text.substr(1, close - 1);
    result.is_ipv6 = true;
    if (!is_ipv6_text(result.host)) return std::nullopt;
    port_text = text.substr(close + 1);
  } else {
    const std::size_t colon = std::min(text.find(':'), text.size());
    result.host = text.substr(0, colon);
    if (!is_host_name(result.host)) return std::nullopt;
    port_text = text.substr(colon);
  }
  if (port_text.empty()) return result;
  if (port_text[0] != ':' || !parse_port(port_text.substr(1), result.port)) return std::nullopt;
  return result;
}

bool parse_port(std::string_view digits, std::uint16_t& port) {
  const auto number = parse_number(digits, 65535);
  port = static_cast<std::uint16_t>(number.value_or(0));
  return port != 0;
}

bool read_uri(std::string_view text, Uri& uri) {
  uri.text = text;
  if (text.size() >= 4 && is_word<"sip:">({text.data(), 4})) {
    uri.scheme = Uri::Scheme::kSip;
    return parse_sip(text.substr(4), uri);
  }
  if (text.size() >= 5 && is_word<"sips:">({text.data(), 5})) {
    uri.scheme = Uri::Scheme::kSips;
    return parse_sip(text.substr(5), uri);
  }
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos || !is_scheme(text.substr(0, colon))) return false;
  const std::string_view rest = text.substr(colon + 1);
  if (iequals(text.substr(0, colon), "tel")) {
    uri.scheme = Uri::Scheme::kTel;
    return parse_tel(rest, uri);
  }
  return !rest.empty() && std::none_of(rest.begin(), rest.end(), [](char c) { return c <= ' ' || c == 0x7f; });
}

std::optional<Uri> parse_uri(std::string_view text) {
  std::optional<Uri> uri(std::in_place);
  if (!read_uri(text, *uri)) uri.reset();
  return uri;
}

std::optional<NameAddr> parse_name_addr(std::string_view text) {
  text = trim(text);
  NameAddr result;
  std::size_t open = 0;
  if (text.starts_with('"')) {
    const std::size_t end = skip_quoted(text, 0);
    if (end == std::string_view::npos) return std::nullopt;
    result.display = text.substr(0, end);
    open = end;
    while (open < text.size() && is_lws(text[open])) ++open;
    if (open >= text.size() || text[open] != '<') return std::nullopt;
  } else if (!text.starts_with('<')) {
    open = find_octet(text, '<');
    if (open == text.size()) {  // addr-spec: parameters belong to the header field (20.10)
      const std::size_t semicolon = find_octet(text, ';');
      result.uri = trim(text.substr(0, semicolon));
      result.parameters = text.substr(semicolon);
      // RFC 3261 20: a URI with a comma, question mark or semicolon must be in <>.
      if (result.uri.empty() || result.uri.find_first_of("?,\" \t\r\n") != std::string_view::npos) return std::nullopt;
      return result;
    }
    result.display = trim(text.substr(0, open));
    for (const char c : result.display)  // tokens; and UTF-8 outside quotes, which is common
      if (!is_token_char(c) && !is_lws(c) && static_cast<unsigned char>(c) < 0x80) return std::nullopt;
  }
  const std::size_t close = find_octet(text, '>', open);
  if (close == text.size()) return std::nullopt;
  result.uri = text.substr(open + 1, close - open - 1);
  result.parameters = trim_front(text.substr(close + 1));
  if (!result.parameters.empty() && result.parameters[0] != ';') return std::nullopt;
  return result;
}

bool same_host(std::string_view a, std::string_view b) {
  if (iequals(a, b)) return true;
  const auto first = parse_ip(a);
  return first && first == parse_ip(b);
}

namespace {

// The octet that the user part has at i, which moves behind it.
char next_unescaped(std::string_view user, std::size_t& i) {
  const auto nibble = [](char c) { return is_digit(c) ? c - '0' : to_lower(c) - 'a' + 10; };
  const char c = user[i++];
  if (c != '%' || i + 1 >= user.size() || !is_hex(user[i]) || !is_hex(user[i + 1])) return c;
  i += 2;
  return static_cast<char>(nibble(user[i - 2]) * 16 + nibble(user[i - 1]));
}

}  // namespace

std::optional<std::size_t> user_prefix_length(std::string_view user, std::string_view prefix) {
  std::size_t i = 0;
  for (const char wanted : prefix)
    if (i >= user.size() || next_unescaped(user, i) != wanted) return std::nullopt;
  return i;
}

std::string_view unescape_user(std::string_view user, std::span<char> room) {
  std::size_t used = 0;
  for (std::size_t i = 0; i < user.size() && used < room.size();) room[used++] = next_unescaped(user, i);
  return {room.data(), used};
}

}  // namespace ktrunk::sip
