// Header lines: a walk over the header section of a whole SIP message, as little as the load generator needs of it. Its
// own messages come back to it with lines added by proxies; names are expected in their long form.
#pragma once

#include <strings.h>

#include <cstddef>
#include <optional>
#include <string_view>

namespace ktrunk::bench {

struct HeaderLine {
  std::string_view whole;  // with its CRLF
  std::string_view name;
  std::string_view value;  // without the blanks around it

  // names: of the same length are compared without regard to case.
  [[nodiscard]] bool is(std::string_view wanted) const {
    return name.size() == wanted.size() && ::strncasecmp(name.data(), wanted.data(), name.size()) == 0;
  }
};

class HeaderLines {
 public:
  // message: lives as long as this and the lines.
  explicit HeaderLines(std::string_view message) : rest_(message) { (void)next_raw(); }

  // The next header; none at the empty line or the end.
  [[nodiscard]] std::optional<HeaderLine> next() {
    const std::string_view raw = next_raw();
    if (raw.size() <= 2) return std::nullopt;
    const std::size_t colon = raw.find(':');
    if (colon == std::string_view::npos) return HeaderLine{raw, {}, {}};
    std::string_view value = raw.substr(colon + 1);
    while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) value.remove_prefix(1);
    while (!value.empty() && static_cast<unsigned char>(value.back()) <= ' ') value.remove_suffix(1);
    return HeaderLine{raw, raw.substr(0, colon), value};
  }

 private:
  std::string_view next_raw() {
    const std::size_t end = rest_.find('\n');
    const std::string_view line = rest_.substr(0, end == std::string_view::npos ? rest_.size() : end + 1);
    rest_.remove_prefix(line.size());
    return line;
  }
  std::string_view rest_;
};

// The URI of "Name <sip:user@host>;parameter", or of a value without brackets.
[[nodiscard]] inline std::string_view uri_in(std::string_view value) {
  const std::size_t open = value.find('<');
  if (open == std::string_view::npos) return value.substr(0, value.find(';'));
  const std::size_t close = value.find('>', open);
  return close == std::string_view::npos ? std::string_view() : value.substr(open + 1, close - open - 1);
}

}  // namespace ktrunk::bench
