#include "sip/call_id.h"

#include "sip/text.h"

namespace ktrunk::sip {
namespace {

// The name at the front of a line is Call-ID's, long or short: what stands behind its colon.
bool is_call_id(std::string_view line, std::string_view& rest) {
  std::size_t name = 0;
  if (line.size() > 1 && to_lower(line[0]) == 'i' && (line[1] == ':' || is_blank(line[1]))) name = 1;
  if (line.size() > 7 && iequals(line.substr(0, 7), "call-id")) name = 7;
  if (name == 0) return false;
  while (name < line.size() && is_blank(line[name])) ++name;
  if (name == line.size() || line[name] != ':') return false;
  rest = line.substr(name + 1);
  return true;
}

std::string_view first_word(std::string_view text) {
  std::size_t end = 0;
  while (end < text.size() && !is_lws(text[end])) ++end;
  return text.substr(0, end);
}

}  // namespace

std::string_view find_call_id(std::string_view message) {
  std::size_t line = message.find('\n');
  while (line != std::string_view::npos && ++line < message.size()) {
    if (message[line] == '\r' || message[line] == '\n') return {};  // the empty line
    std::string_view rest;
    if (is_call_id(message.substr(line), rest)) {
      return first_word(trim_front(rest));
    }
    line = message.find('\n', line);
  }
  return {};
}

std::string_view find_call_id(std::string_view message, const HeaderIndex& index) {
  if (!index.complete()) return find_call_id(message);
  const std::uint16_t first = index.first(HeaderId::kCallId);
  if (first == HeaderIndex::kNone) return {};
  const HeaderIndex::Field& field = index.field(first);
  return first_word(message.substr(field.value, field.value_size));
}

}  // namespace ktrunk::sip
