#include "sip/uri.h"

#include <algorithm>

#include "sip/ip_text.h"
#include "sip/text.h"

namespace ktrunk::sip {

namespace {

bool all_escapes_complete(std::string_view text) {
  for (std::size_t i = text.find('%'); i != std::string_view::npos; i = text.find('%', i + 1))
    if (i + 2 >= text.size() || !is_hex(text[i + 1]) || !is_hex(text[i + 2])) return false;
  return true;
}

// Visible ASCII without what could end a URI in a header: the classes of the grammar, and '#', '|' and the like that
// telephones send in practice.
bool is_uri_text(std::string_view text) {
  const bool clean = std::all_of(text.begin(), text.end(), [](char c) {
    return c > ' ' && c < 0x7f && c != '<' && c != '>' && c != '"' && c != '\\' && c != '@';
  });
  return clean && all_escapes_complete(text);
}

bool is_ipv6_text(std::string_view text) {
  return text.find(':') != std::string_view::npos &&
         std::all_of(text.begin(), text.end(), [](char c) { return is_hex(c) || c == ':' || c == '.'; });
}

// A name or IPv4 address. Underscores are no part of the grammar, but of real names.
bool is_host_name(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return is_alnum(c) || c == '.' || c == '-' || c == '_'; });
}

bool is_scheme(std::string_view text) {
  return !text.empty() && is_alpha(text[0]) &&
         std::all_of(text.begin(), text.end(), [](char c) { return is_alnum(c) || c == '+' || c == '-' || c == '.'; });
}

bool parse_sip(std::string_view rest, Uri& uri) {
  const std::size_t at = rest.find('@');
  if (at != std::string_view::npos) {
    std::string_view user_info = rest.substr(0, at);
    if (user_info.empty() || !is_uri_text(user_info)) return false;
    const std::size_t colon = user_info.find(':');
    uri.user = user_info.substr(0, colon);
    if (uri.user.empty()) return false;
    if (colon != std::string_view::npos) uri.password = user_info.substr(colon + 1);
    rest = rest.substr(at + 1);
  }
  if (!is_uri_text(rest)) return false;  // a second '@' too: who knows which one counts
  const std::size_t tail = rest.find_first_of(";?");
  const auto host_port = parse_host_port(rest.substr(0, tail));
  if (!host_port) return false;
  uri.host = host_port->host;
  uri.is_ipv6 = host_port->is_ipv6;
  uri.port = host_port->port;
  if (tail == std::string_view::npos) return true;
  rest = rest.substr(tail);
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
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos || !is_scheme(text.substr(0, colon))) return std::nullopt;
  Uri uri{.text = text};
  const std::string_view scheme = text.substr(0, colon);
  const std::string_view rest = text.substr(colon + 1);
  if (iequals(scheme, "sip") || iequals(scheme, "sips")) {
    uri.scheme = scheme.size() == 3 ? Uri::Scheme::kSip : Uri::Scheme::kSips;
    if (!parse_sip(rest, uri)) return std::nullopt;
  } else if (iequals(scheme, "tel")) {
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

bool user_has_prefix(std::string_view user, std::string_view prefix) {
  const auto nibble = [](char c) { return is_digit(c) ? c - '0' : to_lower(c) - 'a' + 10; };
  std::size_t i = 0;
  for (const char wanted : prefix) {
    if (i >= user.size()) return false;
    char c = user[i++];
    if (c == '%' && i + 1 < user.size() && is_hex(user[i]) && is_hex(user[i + 1])) {
      c = static_cast<char>(nibble(user[i]) * 16 + nibble(user[i + 1]));
      i += 2;
    }
    if (c != wanted) return false;
  }
  return true;
}

}  // namespace ktrunk::sip
