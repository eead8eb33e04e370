// Message::facts(): each header field that routing looks at, read once.
#include "sip/limits.h"
#include "sip/message.h"
#include "sip/party.h"
#include "sip/text.h"

namespace ktrunk::sip {

namespace {

// CSeq = 1*DIGIT LWS Method
bool read_cseq(std::string_view value, std::string_view& number, std::string_view& method) {
  Cursor cursor(value);
  number = cursor.take_digits();
  if (!is_lws(cursor.peek()) || !parse_number(number, 0xffffffff)) return false;
  cursor.skip_lws();
  method = cursor.rest();
  return is_token(method);
}

}  // namespace

void Message::read_vias() {
  for (std::size_t i = first(HeaderId::kVia); i != kNoHeader; i = next_same(i)) {
    const HeaderIndex::Field& field = fields().field(i);
    std::string_view rest = header(i).value;
    for (bool open = !rest.empty(); open; ++facts_.vias) {
      const std::string_view value = take_value(rest, open);
      if (facts_.vias == 1 && facts_.top_via_size == 0) facts_.top_via_size = offset_of(value) - facts_.top_via_place;
      if (facts_.vias != 0) continue;
      if (!read_via(value, facts_.top_via.emplace())) facts_.top_via.reset();
      facts_.top_via_place = open ? offset_of(value) : field.line;
      facts_.top_via_size = open ? 0 : std::size_t{field.line_end} - field.line;
    }
  }
}

void Message::read_facts() {
  read_vias();
  const Party from = read_party(value(HeaderId::kFrom));
  facts_.from_is_sound = from.sound;
  facts_.from_tag = from.tag;
  const Party to = read_party(value(HeaderId::kTo));
  facts_.to_is_sound = to.sound;
  facts_.to_has_tag = to.has_tag;
  facts_.cseq_is_sound = read_cseq(value(HeaderId::kCSeq), facts_.cseq_number, facts_.cseq_method);
  if (kind_ != Kind::kRequest) return;
  if (const auto hops = parse_number(value(HeaderId::kMaxForwards), kMaxMaxForwards); hops)
    facts_.max_forwards = static_cast<unsigned>(*hops);
}

}  // namespace ktrunk::sip
