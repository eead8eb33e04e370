// Message::facts(): each header field that routing looks at, read once.
#include "sip/limits.h"
#include "sip/message.h"
#include "sip/text.h"

namespace ktrunk::sip {

namespace {

// From or To. Tells whether it is sound; the tag is the first one there is.
bool read_party(std::string_view value, bool& has_tag, std::string_view& tag) {
  const auto address = parse_name_addr(value);
  if (!address) return false;
  ParameterReader parameters(address->parameters);
  while (const auto parameter = parameters.next()) {
    if (has_tag || !is_word<"tag">(parameter->name)) continue;
    has_tag = true;
    tag = parameter->value;
  }
  return !parameters.malformed() && parse_uri(address->uri);
}

// CSeq = 1*DIGIT LWS Method
bool read_cseq(std::string_view value, std::string_view& number, std::string_view& method) {
  const std::size_t digits = span_of(kDigitClass, value);
  number = value.substr(0, digits);
  if (digits == value.size() || !is_lws(value[digits]) || !parse_number(number, 0xffffffff)) return false;
  method = trim(value.substr(digits));
  return is_token(method);
}

}  // namespace

void Message::read_vias() {
  for (ValueCursor cursor(*this, HeaderId::kVia); const auto value = cursor.next(); ++facts_.vias) {
    if (facts_.vias == 1 && facts_.top_via_size == 0)
      facts_.top_via_size = offset_of(value->text) - facts_.top_via_place;
    if (facts_.vias != 0) continue;
    facts_.top_via = parse_via(value->text);
    if (value->last_on_line) {
      const Entry& field = headers_[value->header];
      facts_.top_via_place = field.line;
      facts_.top_via_size = std::size_t{field.line_end} - field.line;
    } else {
      facts_.top_via_place = offset_of(value->text);
    }
  }
}

void Message::read_facts() {
  read_vias();
  std::string_view to_tag;
  bool from_has_tag = false;
  facts_.from_is_sound = read_party(value(HeaderId::kFrom), from_has_tag, facts_.from_tag);
  facts_.to_is_sound = read_party(value(HeaderId::kTo), facts_.to_has_tag, to_tag);
  facts_.cseq_is_sound = read_cseq(value(HeaderId::kCSeq), facts_.cseq_number, facts_.cseq_method);
  if (kind_ != Kind::kRequest) return;
  if (const auto hops = parse_number(value(HeaderId::kMaxForwards), kMaxMaxForwards); hops)
    facts_.max_forwards = static_cast<unsigned>(*hops);
}

}  // namespace ktrunk::sip
