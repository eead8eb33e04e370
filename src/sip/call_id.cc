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

}  // namespace

std::string_view find_call_id(std::string_view message) {
  std::size_t line = message.find('\n');
  while (line != std::string_view::npos && ++line < message.size()) {
    if (message[line] == '\r' || message[line] == '\n') return {};  // the empty line
    std::string_view rest;
    if (is_call_id(message.substr(line), rest)) {
      while (!rest.empty() && is_lws(rest.front())) rest.remove_prefix(1);
      std::size_t end = 0;
      while (end < rest.size() && !is_lws(rest[end])) ++end;
      return rest.substr(0, end);
    }
    line = message.find('\n', line);
  }
  return {};
}

}  // namespace ktrunk::sip
