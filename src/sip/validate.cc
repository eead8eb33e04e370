#include "sip/validate.h"

#include "sip/limits.h"
#include "sip/text.h"

namespace ktrunk::sip {

namespace {

constexpr Message::Defect bad(const char* what) { return {400, what}; }

bool appears_once(const Message& message, HeaderId id) {
  const std::size_t index = message.first(id);
  return index != Message::kNoHeader && message.next_same(index) == Message::kNoHeader;
}

// CSeq = 1*DIGIT LWS Method
bool parse_cseq(std::string_view value, std::string_view& method) {
  const std::size_t digits = value.find_first_not_of("0123456789");
  if (digits == std::string_view::npos || !is_lws(value[digits])) return false;
  if (!parse_number(value.substr(0, digits), 0xffffffff)) return false;
  method = trim(value.substr(digits));
  return is_token(method);
}

bool parse_party(std::string_view value, bool& has_tag) {
  const auto address = parse_name_addr(value);
  if (!address || !parse_uri(address->uri)) return false;
  ParameterReader parameters(address->parameters);
  while (const auto parameter = parameters.next()) has_tag = has_tag || iequals(parameter->name, "tag");
  return !parameters.malformed();
}

// What requests and responses have in common.
Message::Defect check_common(const Message& message, const config::Limits& limits, RequestFacts& facts,
                             std::string_view& cseq_method) {
  if (message.defect().status != 0) return message.defect();
  if (message.header_section_size() > limits.max_header_bytes) return {513, "Header Section Too Long"};
  if (message.header_count() > limits.max_headers) return {513, "Too many header fields"};
  for (ValueCursor cursor(message, HeaderId::kVia); const auto value = cursor.next(); ++facts.vias) {
    if (facts.vias == limits.max_vias) return bad("Too Many Via");
    if (facts.vias != 0) continue;
    const auto via = parse_via(value->text);
    if (!via) return bad("Bad Via");
    facts.top_via = *via;
  }
  if (facts.vias == 0) return bad("Missing Via");

  bool from_has_tag = false;
  if (!appears_once(message, HeaderId::kFrom)) return bad("Need One From");
  if (!parse_party(message.value(HeaderId::kFrom), from_has_tag)) return bad("Bad From");
  if (!appears_once(message, HeaderId::kTo)) return bad("Need One To");
  if (!parse_party(message.value(HeaderId::kTo), facts.to_has_tag)) return bad("Bad To");
  if (!appears_once(message, HeaderId::kCallId) || message.value(HeaderId::kCallId).empty())
    return bad("Need One Call-ID");
  if (!appears_once(message, HeaderId::kCSeq)) return bad("Need One CSeq");
  if (!parse_cseq(message.value(HeaderId::kCSeq), cseq_method)) return bad("Bad CSeq");
  return {};
}

}  // namespace

Message::Defect check_request(const Message& request, const config::Limits& limits, RequestFacts& facts) {
  std::string_view cseq_method;
  if (const auto defect = check_common(request, limits, facts, cseq_method); defect.status != 0) return defect;
  if (cseq_method != request.method_name()) return bad("CSeq Method Mismatch");

  if (request.has(HeaderId::kMaxForwards)) {
    if (!appears_once(request, HeaderId::kMaxForwards)) return bad("Need One Max-Forwards");
    const auto hops = parse_number(request.value(HeaderId::kMaxForwards), kMaxMaxForwards);
    if (!hops) return bad("Bad Max-Forwards");
    facts.max_forwards = static_cast<unsigned>(*hops);
  }

  const auto uri = parse_uri(request.request_uri());
  if (!uri) return bad("Bad Request-URI");
  if (uri->scheme == Uri::Scheme::kOther) return {416, "Unsupported URI Scheme"};
  if (!uri->headers.empty()) return bad("Headers in Request-URI");  // 19.1.1
  facts.uri = *uri;
  return {};
}

Message::Defect check_response(const Message& response, const config::Limits& limits, Via& top_via) {
  std::string_view cseq_method;
  RequestFacts facts;
  if (const auto defect = check_common(response, limits, facts, cseq_method); defect.status != 0) return defect;
  top_via = facts.top_via;
  // Under ours there must be the Via of the peer that the response goes to.
  if (facts.vias < 2) return bad("No Via Below Ours");
  return {};
}

}  // namespace ktrunk::sip
