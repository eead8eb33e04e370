#include "sip/text.h"

namespace ktrunk::sip {

std::optional<ParameterReader::Parameter> ParameterReader::fail() {
  malformed_ = true;
  rest_ = {};
  return std::nullopt;
}

std::optional<ParameterReader::Parameter> ParameterReader::next() {
  rest_ = trim_front(rest_);
  if (rest_.empty()) return std::nullopt;
  if (rest_.front() != ';') return fail();
  rest_ = trim_front(rest_.substr(1));

  std::size_t length = span_of(kTokenClass, rest_);
  if (length == 0) return fail();
  Parameter parameter{.name = rest_.substr(0, length), .value = {}, .whole = rest_.substr(0, length)};
  const char* begin = rest_.data();
  rest_ = trim_front(rest_.substr(length));
  if (rest_.empty() || rest_.front() != '=') return parameter;

  rest_ = trim_front(rest_.substr(1));
  if (rest_.empty()) return fail();
  if (rest_.front() == '"') {
    length = skip_quoted(rest_, 0);
    if (length == std::string_view::npos) return fail();
  } else {  // a token or a host; an IPv6 address comes with and without brackets (RFC 5118 4.5)
    length = span_of(kParameterClass, rest_);
    if (length == 0) return fail();
    if (length < rest_.size() && rest_[length] != ';' && !is_lws(rest_[length])) return fail();
  }
  parameter.has_value = true;
  parameter.value = rest_.substr(0, length);
  rest_ = rest_.substr(length);
  parameter.whole = {begin, static_cast<std::size_t>(rest_.data() - begin)};
  return parameter;
}

std::optional<std::string_view> find_parameter(std::string_view text, std::string_view name) {
  ParameterReader reader(text);
  while (const auto parameter = reader.next())
    if (iequals(parameter->name, name)) return parameter->value;
  return std::nullopt;
}

}  // namespace ktrunk::sip
