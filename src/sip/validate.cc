#include "sip/validate.h"

namespace ktrunk::sip {

namespace {

constexpr Defect bad(const char* what) { return {400, what}; }

bool appears_once(const Message& message, HeaderId id) {
  const std::size_t index = message.first(id);
  return index != Message::kNoHeader && message.next_same(index) == Message::kNoHeader;
}

// What requests and responses have in common.
Defect check_common(const Message& message, const config::Limits& limits) {
  if (message.defect().status != 0) return message.defect();
  if (message.header_section_size() > limits.max_header_bytes) return {513, "Header Section Too Long"};
  if (message.header_count() > limits.max_headers) return {513, "Too many header fields"};
  const Facts& facts = message.facts();
  if (facts.vias == 0) return bad("Missing Via");
  if (!facts.top_via) return bad("Bad Via");
  if (facts.vias > limits.max_vias) return bad("Too Many Via");

  if (!appears_once(message, HeaderId::kFrom)) return bad("Need One From");
  if (!facts.from_is_sound) return bad("Bad From");
  if (!appears_once(message, HeaderId::kTo)) return bad("Need One To");
  if (!facts.to_is_sound) return bad("Bad To");
  if (!appears_once(message, HeaderId::kCallId) || message.value(HeaderId::kCallId).empty())
    return bad("Need One Call-ID");
  if (!appears_once(message, HeaderId::kCSeq)) return bad("Need One CSeq");
  if (!facts.cseq_is_sound) return bad("Bad CSeq");
  return {};
}

}  // namespace

Defect check_request(const Message& request, const config::Limits& limits) {
  if (const auto defect = check_common(request, limits); defect.status != 0) return defect;
  const Facts& facts = request.facts();
  if (facts.cseq_method != request.method_name()) return bad("CSeq Method Mismatch");

  if (request.has(HeaderId::kMaxForwards)) {
    if (!appears_once(request, HeaderId::kMaxForwards)) return bad("Need One Max-Forwards");
    if (!facts.max_forwards) return bad("Bad Max-Forwards");
  }

  if (!facts.uri) return bad("Bad Request-URI");
  if (facts.uri->scheme == Uri::Scheme::kOther) return {416, "Unsupported URI Scheme"};
  if (!facts.uri->headers.empty()) return bad("Headers in Request-URI");  // 19.1.1
  return {};
}

Defect check_response(const Message& response, const config::Limits& limits) {
  if (const auto defect = check_common(response, limits); defect.status != 0) return defect;
  // Under ours there must be the Via of the peer that the response goes to.
  if (response.facts().vias < 2) return bad("No Via Below Ours");
  return {};
}

}  // namespace ktrunk::sip
