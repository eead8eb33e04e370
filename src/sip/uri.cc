#include "sip/uri.h"

#include <algorithm>

#include "sip/ip_text.h"
#include "sip/text.h"

namespace ktrunk::sip {

namespace {

// How far a URI's text goes from an offset on: the classes of the grammar, and '#', '|' and the like that telephones
// send in practice; escapes that are complete. Ends at the first octet that cannot be part of one, and at an '@'.
std::size_t uri_span(std::string_view text, std::size_t from = 0) {
  for (;;) {
    from = span_of(kUriClass, text, from);
    const bool escape = from + 2 < text.size() && text[from] == '%' && is_hex(text[from + 1]) && is_hex(text[from + 2]);
    if (!escape) return from;
    from += 3;
  }
}
bool is_uri_text(std::string_view text) { return uri_span(text) == text.size(); }

bool is_ipv6_text(std::string_view text) {
  return text.find(':') != std::string_view::npos &&
         std::all_of(text.begin(), text.end(), [](char c) { return is_hex(c) || c == ':' || c == '.'; });
}

bool is_host_name(std::string_view text) { return !text.empty() && span_of(kHostClass, text) == text.size(); }

bool is_scheme(std::string_view text) {
  return !text.empty() && is_alpha(text[0]) &&
         std::all_of(text.begin(), text.end(), [](char c) { return is_alnum(c) || c == '+' || c == '-' || c == '.'; });
}

bool parse_sip(std::string_view rest, Uri& uri) {
  std::size_t clean = uri_span(rest);
  if (clean < rest.size()) {
    if (rest[clean] != '@' || clean == 0) return false;
    const std::string_view user_info = rest.substr(0, clean);
    const std::size_t colon = user_info.find(':');
    uri.user = user_info.substr(0, colon);
    if (uri.user.empty()) return false;
    if (colon != std::string_view::npos) uri.password = user_info.substr(colon + 1);
    rest = rest.substr(clean + 1);
    clean = 0;
  }
  std::size_t end = 0;  // of host and port
  if (rest.starts_with('[')) {
    end = std::min(rest.find_first_of(";?"), rest.size());
    const auto host_port = parse_host_port(rest.substr(0, end));
    if (!host_port) return false;
    uri.host = host_port->host;
    uri.is_ipv6 = true;
    uri.port = host_port->port;
  } else {
    end = span_of(kHostClass, rest);
    if (end == 0) return false;
    uri.host = rest.substr(0, end);
    if (end < rest.size() && rest[end] == ':') {
      const std::size_t digits = span_of(kDigitClass, rest, end + 1);
      const auto port = parse_number(rest.substr(end + 1, digits - end - 1), 65535);
      if (!port || *port == 0) return false;
      uri.port = static_cast<std::uint16_t>(*port);
      end = digits;
    }
  }
  if (end == rest.size()) return true;
  if (rest[end] != ';' && rest[end] != '?') return false;
  // A second '@' is no URI's text either: who knows which one counts.
  if (clean == 0 && uri_span(rest, end) != rest.size()) return false;
  rest = rest.substr(end);
  const std::size_t question = rest.find('?');
  uri.parameters = rest.substr(0, question);
  if (question != std::string_view::npos) uri.headers = rest.substr(question);
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
  const auto port = parse_number(port_text.substr(1), 65535);
  if (port_text[0] != ':' || !port || *port == 0) return std::nullopt;
  result.port = static_cast<std::uint16_t>(*port);
  return result;
}

std::optional<Uri> parse_uri(std::string_view text) {
  Uri uri{.text = text};
  const bool sips = is_word<"sips:">(text.substr(0, 5));
  if (sips || is_word<"sip:">(text.substr(0, 4))) {
    uri.scheme = sips ? Uri::Scheme::kSips : Uri::Scheme::kSip;
    if (!parse_sip(text.substr(sips ? 5 : 4), uri)) return std::nullopt;
    return uri;
  }
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos || !is_scheme(text.substr(0, colon))) return std::nullopt;
  const std::string_view scheme = text.substr(0, colon);
  const std::string_view rest = text.substr(colon + 1);
  if (iequals(scheme, "tel")) {
    uri.scheme = Uri::Scheme::kTel;
    if (!parse_tel(rest, uri)) return std::nullopt;
  } else if (rest.empty() || std::any_of(rest.begin(), rest.end(), [](char c) { return c <= ' ' || c == 0x7f; })) {
    return std::nullopt;
  }
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
    while (end + open < text.size() && is_lws(text[end + open])) ++open;
    open += end;
    if (open >= text.size() || text[open] != '<') return std::nullopt;
  } else {
    open = text.find('<');
    if (open == std::string_view::npos) {  // addr-spec: parameters belong to the header field (20.10)
      const std::size_t semicolon = std::min(text.find(';'), text.size());
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
  const std::size_t close = text.find('>', open);
  if (close == std::string_view::npos) return std::nullopt;
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
