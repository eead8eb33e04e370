#include "sip/via.h"

#include "sip/ip_text.h"
#include "sip/text.h"
#include "sip/uri.h"

namespace ktrunk::sip {

namespace {

// Takes a token off the front, and the LWS round it. Empty: there is none.
std::string_view take_token(std::string_view& rest) {
  rest = trim_front(rest);
  const std::size_t length = span_of(kTokenClass, rest);
  const std::string_view token = rest.substr(0, length);
  rest.remove_prefix(length);
  return token;
}

bool take_slash(std::string_view& rest) {
  rest = trim_front(rest);
  if (!rest.starts_with('/')) return false;
  rest.remove_prefix(1);
  return true;
}

// sent-by = host [ COLON port ], with LWS round the colon; stops at the semicolon.
bool take_sent_by(std::string_view& rest, Via& via) {
  std::size_t host_end = 0;
  if (rest.starts_with('[')) {
    host_end = rest.find(']');
    if (host_end == std::string_view::npos) return false;
    ++host_end;
    const auto host = parse_host_port(rest.substr(0, host_end));
    if (!host) return false;
    via.host = host->host;
    via.is_ipv6 = true;
  } else {
    host_end = span_of(kHostClass, rest);
    if (host_end == 0) return false;
    via.host = rest.substr(0, host_end);
  }
  rest = trim_front(rest.substr(host_end));
  if (!rest.starts_with(':')) return true;
  rest = trim_front(rest.substr(1));
  const std::size_t digits = span_of(kDigitClass, rest);
  const auto port = parse_number(rest.substr(0, digits), 65535);
  if (!port || *port == 0) return false;
  via.port = static_cast<std::uint16_t>(*port);
  rest = trim_front(rest.substr(digits));
  return true;
}

bool set_once(std::string_view& place, std::string_view value) {
  if (!place.empty()) return false;
  place = value;
  return true;
}

}  // namespace

bool Via::has_magic_cookie() const {
  return branch.size() > kMagicCookie.size() && is_word<"z9hG4bK">(branch.substr(0, kMagicCookie.size()));
}

std::optional<Via> parse_via(std::string_view text) {
  Via via{.text = trim(text)};
  std::string_view rest = via.text;
  if (constexpr std::string_view kUsual = "SIP/2.0/"; rest.starts_with(kUsual)) {
    rest.remove_prefix(kUsual.size());
  } else {
    if (!is_word<"SIP">(take_token(rest)) || !take_slash(rest)) return std::nullopt;
    if (take_token(rest) != "2.0" || !take_slash(rest)) return std::nullopt;
  }
  via.transport = take_token(rest);
  if (via.transport.empty() || rest.empty() || !is_lws(rest.front())) return std::nullopt;
  rest = trim_front(rest);
  if (!take_sent_by(rest, via)) return std::nullopt;

  ParameterReader reader(rest);
  while (const auto parameter = reader.next()) {
    bool once = true;
    if (is_word<"branch">(parameter->name)) {
      once = parameter->has_value && set_once(via.branch, parameter->value);
    } else if (is_word<"received">(parameter->name)) {
      std::string_view address = parameter->value;
      if (address.starts_with('[') && address.ends_with(']')) address = address.substr(1, address.size() - 2);
      once = parameter->has_value && set_once(via.received_parameter, parameter->whole);
      via.received = address;
    } else if (is_word<"rport">(parameter->name)) {
      once = set_once(via.rport_parameter, parameter->whole);
      via.rport = parameter->value;
    } else if (is_word<"maddr">(parameter->name)) {
      once = set_once(via.maddr, parameter->value);
    } else if (is_word<"flow">(parameter->name)) {
      via.flow = parameter->value;  // not ours, as a rule; what is ours stands once
    }
    if (!once) return std::nullopt;  // twice the same parameter: two readers may take different ones
  }
  if (reader.malformed()) return std::nullopt;
  return via;
}

bool sent_by_is(const Via& via, const Address& source) {
  const auto sent_by = parse_ip(via.host);
  return sent_by && sent_by == to_ip_value(source.ip_bytes());
}

Address response_address(const Via& top_via, const Address& source) {
  if (top_via.wants_rport()) return source;
  return with_port(source, top_via.port != 0 ? top_via.port : 5060);
}

}  // namespace ktrunk::sip
