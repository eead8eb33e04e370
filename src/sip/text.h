// The character classes and small readers of RFC 3261 25.1. Pure functions on views; nothing is kept.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>
#include <type_traits>

#include "sip/octets.h"

namespace ktrunk::sip {

[[nodiscard]] constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
[[nodiscard]] constexpr bool is_alpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
[[nodiscard]] constexpr bool is_alnum(char c) { return is_digit(c) || is_alpha(c); }
[[nodiscard]] constexpr bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
[[nodiscard]] constexpr bool is_blank(char c) { return c == ' ' || c == '\t'; }
// Linear white space inside a header value: a fold's line end counts, for the parser has checked that a blank follows.
[[nodiscard]] constexpr bool is_lws(char c) { return is_blank(c) || c == '\r' || c == '\n'; }
[[nodiscard]] constexpr char to_lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

// RFC 3261 25.1, token.
inline constexpr CharacterSet kTokenSet([](char c) {
  return is_alnum(c) || std::string_view("-.!%*_+`'~").find(c) != std::string_view::npos;
});
// Visible ASCII without what could end a URI in a header, and without '@' and '%'.
inline constexpr CharacterSet kUriSet([](char c) {
  return c > ' ' && c != 0x7f && std::string_view("<>\"\\@%").find(c) == std::string_view::npos;
});
// A host name or IPv4 address; underscores are no part of the grammar, but of real names.
inline constexpr CharacterSet kHostSet([](char c) { return is_alnum(c) || c == '.' || c == '-' || c == '_'; });
// An unquoted parameter's value: tokens and hosts, with and without brackets (RFC 5118 4.5).
inline constexpr CharacterSet kParameterSet([](char c) {
  return kTokenSet.has(c) || std::string_view("[]:/@").find(c) != std::string_view::npos;
});

[[nodiscard]] constexpr bool is_token_char(char c) { return kTokenSet.has(c); }
[[nodiscard]] inline bool is_token(std::string_view text) {
  return !text.empty() && span_of(kTokenSet, text) == text.size();
}
// How many digits the text begins with, from an offset on: the offset behind them.
[[nodiscard]] constexpr std::size_t span_of_digits(std::string_view text, std::size_t from = 0) {
  while (from < text.size() && is_digit(text[from])) ++from;
  return from;
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

// Whatever may be white space; most octets are not.
[[nodiscard]] constexpr bool is_at_most_blank(char c) { return static_cast<unsigned char>(c) <= ' '; }

[[nodiscard]] constexpr std::string_view trim_front(std::string_view text) {
  while (!text.empty() && is_at_most_blank(text.front()) && is_lws(text.front())) text.remove_prefix(1);
  return text;
}
[[nodiscard]] constexpr std::string_view trim(std::string_view text) {
  text = trim_front(text);
  while (!text.empty() && is_at_most_blank(text.back()) && is_lws(text.back())) text.remove_suffix(1);
  return text;
}

// Takes a text apart from its front. Views that it gives lie in the text.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : at_(text.data()), end_(text.data() + text.size()) {}

  [[nodiscard]] bool done() const { return at_ == end_; }
  [[nodiscard]] std::string_view rest() const { return {at_, static_cast<std::size_t>(end_ - at_)}; }
  [[nodiscard]] std::string_view since(const char* begin) const {
    return {begin, static_cast<std::size_t>(at_ - begin)};
  }
  // The next octet; 0 at the end.
  [[nodiscard]] char peek() const { return at_ != end_ ? *at_ : '\0'; }
  bool take(char wanted) {
    if (at_ == end_ || *at_ != wanted) return false;
    ++at_;
    return true;
  }
  bool take(std::string_view wanted) {
    if (!rest().starts_with(wanted)) return false;
    at_ += wanted.size();
    return true;
  }
  void skip(std::size_t octets) { at_ += octets; }
  void skip_lws() {
    while (at_ != end_ && is_at_most_blank(*at_) && is_lws(*at_)) ++at_;
  }
  // Octets of a set, perhaps none.
  std::string_view take_span(const CharacterSet& set) {
    const std::string_view span(at_, span_of(set, rest()));
    at_ += span.size();
    return span;
  }
  std::string_view take_digits() {
    const std::string_view digits(at_, span_of_digits(rest()));
    at_ += digits.size();
    return digits;
  }

 private:
  const char* at_;
  const char* end_;
};

// A whole text of decimal digits, at most `highest`. Leading zeros are allowed (1*DIGIT).
[[nodiscard]] constexpr std::optional<std::uint64_t> parse_number(std::string_view text, std::uint64_t highest) {
  if (text.empty()) return std::nullopt;
  const std::uint64_t most = highest / 10;
  std::uint64_t number = 0;
  for (const char c : text) {
    const auto digit = static_cast<unsigned char>(c - '0');
    if (digit > 9 || number > most) return std::nullopt;
    number *= 10;
    if (digit > highest - number) return std::nullopt;
    number += digit;
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
  explicit ParameterReader(std::string_view text) : cursor_(text) {}

  // The next parameter. False at the end or at an error.
  [[nodiscard]] bool next(Parameter& parameter) {
    cursor_.skip_lws();
    if (cursor_.done()) return false;
    if (!cursor_.take(';')) return fail();
    cursor_.skip_lws();
    parameter.name = cursor_.take_span(kTokenSet);
    if (parameter.name.empty()) return fail();
    parameter.whole = parameter.name;
    parameter.value = {};
    cursor_.skip_lws();
    parameter.has_value = cursor_.take('=');
    return !parameter.has_value || read_value(parameter);
  }
  [[nodiscard]] bool malformed() const { return malformed_; }

 private:
  [[nodiscard]] bool fail() {
    malformed_ = true;
    return false;
  }
  [[nodiscard]] bool read_value(Parameter& parameter) {
    cursor_.skip_lws();
    if (cursor_.peek() == '"') {
      const std::size_t size = skip_quoted(cursor_.rest(), 0);
      if (size == std::string_view::npos) return fail();
      parameter.value = cursor_.rest().substr(0, size);
      cursor_.skip(size);
    } else {  // a token or a host; an IPv6 address comes with and without brackets (RFC 5118 4.5)
      parameter.value = cursor_.take_span(kParameterSet);
      if (parameter.value.empty()) return fail();
      if (!cursor_.done() && cursor_.peek() != ';' && !is_lws(cursor_.peek())) return fail();
    }
    parameter.whole = cursor_.since(parameter.name.data());
    return true;
  }

  Cursor cursor_;
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
    } else {
      copy_octets(data_ + size_, text.data(), text.size());
      size_ += text.size();
    }
    return *this;
  }
  FixedText& operator<<(std::uint64_t number) {
    char digits[20];
    std::size_t first = sizeof digits;
    for (; number > 9; number /= 10) digits[--first] = static_cast<char>('0' + number % 10);
    digits[--first] = static_cast<char>('0' + number);
    return *this << std::string_view(digits + first, sizeof digits - first);
  }
  [[nodiscard]] std::string_view view() const { return {data_, size_}; }
  [[nodiscard]] bool overflowed() const { return overflowed_; }

 private:
  std::size_t size_ = 0;
  bool overflowed_ = false;
  char data_[Capacity];
};

}  // namespace ktrunk::sip
