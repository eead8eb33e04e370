// The character classes and small readers of RFC 3261 25.1. Pure functions on views; nothing is kept.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>
#include <type_traits>

namespace ktrunk::sip {

[[nodiscard]] constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
[[nodiscard]] constexpr bool is_alpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
[[nodiscard]] constexpr bool is_alnum(char c) { return is_digit(c) || is_alpha(c); }
[[nodiscard]] constexpr bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
[[nodiscard]] constexpr bool is_blank(char c) { return c == ' ' || c == '\t'; }
// Linear white space inside a header value: a fold's line end counts, for the parser has checked that a blank follows.
[[nodiscard]] constexpr bool is_lws(char c) { return is_blank(c) || c == '\r' || c == '\n'; }
[[nodiscard]] constexpr char to_lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

// Classes of octets that are looked for in one table.
enum CharacterClass : std::uint8_t {
  kTokenClass = 1,      // RFC 3261 25.1, token
  kUriClass = 2,        // visible ASCII without what could end a URI in a header, and without '@' and '%'
  kHostClass = 4,       // a host name or IPv4 address; underscores are no part of the grammar, but of real names
  kDigitClass = 8,      // 0 to 9
  kParameterClass = 16  // an unquoted parameter's value: tokens and hosts, with and without brackets (RFC 5118 4.5)
};

namespace detail {
inline constexpr auto kClasses = [] {
  std::array<std::uint8_t, 256> table{};
  for (unsigned i = 0; i < 128; ++i) {
    const char c = static_cast<char>(i);
    const auto is_in = [c](std::string_view some) { return some.find(c) != std::string_view::npos; };
    unsigned classes = 0;
    if (is_alnum(c) || is_in("-.!%*_+`'~")) classes |= kTokenClass | kParameterClass;
    if (c > ' ' && i != 0x7f && !is_in("<>\"\\@%")) classes |= kUriClass;
    if (is_alnum(c) || is_in(".-_")) classes |= kHostClass;
    if (is_digit(c)) classes |= kDigitClass;
    if (is_in("[]:/@")) classes |= kParameterClass;
    table[i] = static_cast<std::uint8_t>(classes);
  }
  return table;
}();
}  // namespace detail

[[nodiscard]] constexpr bool is_in(CharacterClass wanted, char c) {
  return (detail::kClasses[static_cast<unsigned char>(c)] & wanted) != 0;
}
// How many octets of a class the text begins with, from an offset on: the offset behind them.
[[nodiscard]] constexpr std::size_t span_of(CharacterClass wanted, std::string_view text, std::size_t from = 0) {
  const auto classes = [text](std::size_t i) { return detail::kClasses[static_cast<unsigned char>(text[i])]; };
  // Four at a time, while all of them are.
  while (from + 4 <= text.size() &&
         (classes(from) & classes(from + 1) & classes(from + 2) & classes(from + 3) & wanted) != 0)
    from += 4;
  while (from < text.size() && is_in(wanted, text[from])) ++from;
  return from;
}

[[nodiscard]] constexpr bool is_token_char(char c) { return is_in(kTokenClass, c); }
[[nodiscard]] constexpr bool is_token(std::string_view text) {
  return !text.empty() && span_of(kTokenClass, text) == text.size();
}

// A word that is written in the program, such as a parameter's name.
template <std::size_t Size>
struct Word {
  std::array<char, Size - 1> text;
  consteval Word(const char (&literal)[Size]) { std::copy_n(literal, Size - 1, text.begin()); }

  // Its octets from an offset on as a number, and in it the bits that are the case of a letter.
  template <typename Number>
  [[nodiscard]] consteval Number octets(std::size_t offset) const {
    std::uint64_t number = 0;
    for (std::size_t i = sizeof(Number); i-- > 0;)
      number = number << 8 | static_cast<unsigned char>(to_lower(text[offset + i]));
    return static_cast<Number>(number);
  }
  template <typename Number>
  [[nodiscard]] consteval Number cases(std::size_t offset) const {
    std::uint64_t number = 0;
    for (std::size_t i = sizeof(Number); i-- > 0;) number = number << 8 | (is_alpha(text[offset + i]) ? 0x20u : 0u);
    return static_cast<Number>(number);
  }
};

// Whether the text is that word, in any case. Several octets are compared together.
template <Word kWord>
[[nodiscard]] inline bool is_word(std::string_view text) {
  constexpr std::size_t kSize = kWord.text.size();
  // Two numbers, which overlap where the word is not twice as long as one.
  using Number = std::conditional_t<
      (kSize >= 8), std::uint64_t,
      std::conditional_t<(kSize >= 4), std::uint32_t, std::conditional_t<(kSize >= 2), std::uint16_t, std::uint8_t>>>;
  constexpr std::size_t kSecond = kSize - sizeof(Number);
  static_assert(kSize <= 2 * sizeof(Number));
  if (text.size() != kSize) return false;
  Number first = 0, second = 0;
  std::memcpy(&first, text.data(), sizeof first);
  std::memcpy(&second, text.data() + kSecond, sizeof second);
  return (first | kWord.template cases<Number>(0)) == kWord.template octets<Number>(0) &&
         (second | kWord.template cases<Number>(kSecond)) == kWord.template octets<Number>(kSecond);
}

[[nodiscard]] constexpr bool iequals(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (to_lower(a[i]) != to_lower(b[i])) return false;
  return true;
}

[[nodiscard]] constexpr std::string_view trim_front(std::string_view text) {
  while (!text.empty() && is_lws(text.front())) text.remove_prefix(1);
  return text;
}
[[nodiscard]] constexpr std::string_view trim(std::string_view text) {
  text = trim_front(text);
  while (!text.empty() && is_lws(text.back())) text.remove_suffix(1);
  return text;
}

// A whole text of decimal digits, at most `highest`. Leading zeros are allowed (1*DIGIT).
[[nodiscard]] constexpr std::optional<std::uint64_t> parse_number(std::string_view text, std::uint64_t highest) {
  if (text.empty()) return std::nullopt;
  std::uint64_t number = 0;
  for (const char c : text) {
    if (!is_digit(c)) return std::nullopt;
    const auto digit = static_cast<std::uint64_t>(c - '0');
    if (number > (highest - digit) / 10 || digit > highest) return std::nullopt;
    number = number * 10 + digit;
  }
  return number;
}

// Where the quoted string that begins at text[start] ends: one past the closing quote; npos if it never closes.
[[nodiscard]] constexpr std::size_t skip_quoted(std::string_view text, std::size_t start) {
  for (std::size_t i = start + 1; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == '"') {
      return i + 1;
    }
  }
  return std::string_view::npos;
}

// Reads ";name[=value]" parameters one after the other, with LWS allowed round every separator.
class ParameterReader {
 public:
  struct Parameter {
    std::string_view name;
    std::string_view value;  // a quoted string keeps its quotes; empty when there is none
    bool has_value = false;
    std::string_view whole;  // from name to value, without the semicolon
  };
  // text: empty, or LWS and the first semicolon onwards.
  explicit ParameterReader(std::string_view text) : rest_(text) {}

  // The next parameter, or none at the end or at an error.
  [[nodiscard]] std::optional<Parameter> next();
  [[nodiscard]] bool malformed() const { return malformed_; }

 private:
  std::optional<Parameter> fail();

  std::string_view rest_;
  bool malformed_ = false;
};

// The value of a parameter, empty for one without a value; none when absent. Names compare without case.
[[nodiscard]] std::optional<std::string_view> find_parameter(std::string_view text, std::string_view name);

// Text put together in place; what does not fit sets overflowed() and is left out.
template <std::size_t Capacity>
class FixedText {
 public:
  FixedText& operator<<(std::string_view text) {
    if (text.size() > Capacity - size_) {
      overflowed_ = true;
    } else if (!text.empty()) {
      std::memcpy(data_ + size_, text.data(), text.size());
      size_ += text.size();
    }
    return *this;
  }
  FixedText& operator<<(std::uint64_t number) {
    char digits[20];
    const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
    return *this << std::string_view(digits, static_cast<std::size_t>(end - digits));
  }
  [[nodiscard]] std::string_view view() const { return {data_, size_}; }
  [[nodiscard]] bool overflowed() const { return overflowed_; }

 private:
  std::size_t size_ = 0;
  bool overflowed_ = false;
  char data_[Capacity];
};

}  // namespace ktrunk::sip
