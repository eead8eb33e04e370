#include "sip/via.h"

#include "sip/ip_text.h"
#include "sip/text.h"
#include "sip/uri.h"

namespace ktrunk::sip {

namespace {

// SIP / 2.0 /, with LWS where the grammar has it.
bool take_protocol(Cursor& cursor) {
  if (cursor.take("SIP/2.0/")) return true;
  if (!is_word<"SIP">(cursor.take_span(kTokenSet))) return false;
  cursor.skip_lws();
  if (!cursor.take('/')) return false;
  cursor.skip_lws();
  if (cursor.take_span(kTokenSet) != "2.0") return false;
  cursor.skip_lws();
  return cursor.take('/');
}

// sent-by = host [ COLON port ], with LWS round the colon; stops at the semicolon.
bool take_sent_by(Cursor& cursor, Via& via) {
  if (cursor.peek() == '[') {
    const std::string_view rest = cursor.rest();
    const std::size_t close = rest.find(']');
    if (close == std::string_view::npos) return false;
    const auto host = parse_host_port(rest.substr(0, close + 1));
    if (!host) return false;
    via.host = host->host;
    via.is_ipv6 = true;
    cursor.skip(close + 1);
  } else {
    via.host = cursor.take_span(kHostSet);
    if (via.host.empty()) return false;
  }
  cursor.skip_lws();
  if (!cursor.take(':')) return true;
  cursor.skip_lws();
  if (!parse_port(cursor.take_digits(), via.port)) return false;
  cursor.skip_lws();
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

bool read_via(std::string_view text, Via& via) {
  via.text = trim(text);
  Cursor cursor(via.text);
  if (!take_protocol(cursor)) return false;
  cursor.skip_lws();
  via.transport = cursor.take_span(kTokenSet);
  if (via.transport.empty() || !is_lws(cursor.peek())) return false;
  cursor.skip_lws();
  if (!take_sent_by(cursor, via)) return false;

  ParameterReader reader(cursor.rest());
  for (ParameterReader::Parameter parameter; reader.next(parameter);) {
    bool once = true;
    if (is_word<"branch">(parameter.name)) {
      once = parameter.has_value && set_once(via.branch, parameter.value);
    } else if (is_word<"received">(parameter.name)) {
      std::string_view address = parameter.value;
      if (address.starts_with('[') && address.ends_with(']')) address = address.substr(1, address.size() - 2);
      once = parameter.has_value && set_once(via.received_parameter, parameter.whole);
      via.received = address;
    } else if (is_word<"rport">(parameter.name)) {
      once = set_once(via.rport_parameter, parameter.whole);
      via.rport = parameter.value;
    } else if (is_word<"maddr">(parameter.name)) {
      once = set_once(via.maddr, parameter.value);
    } else if (is_word<"flow">(parameter.name)) {
      via.flow = parameter.value;  // not ours, as a rule; what is ours stands once
    }
    if (!once) return false;  // twice the same parameter: two readers may take different ones
  }
  return !reader.malformed();
}

std::optional<Via> parse_via(std::string_view text) {
  std::optional<Via> via(std::in_place);
  if (!read_via(text, *via)) via.reset();
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
