#include "config/notation.h"

#include <algorithm>
#include <charconv>

namespace ktrunk::config {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// Letters, digits and these marks alone.
bool is_made_of(std::string_view text, std::string_view marks) {
  return std::ranges::all_of(
      text, [&](char c) { return is_letter(c) || is_digit(c) || marks.find(c) != std::string_view::npos; });
}

// The whole of text as a decimal number of at most `highest`.
template <typename Number>
bool parse_number(std::string_view text, Number highest, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size() && is_digit(text.front()) && number <= highest;
}

Status check_label(std::string_view label, std::string_view host) {
  constexpr std::size_t kMaxLabel = 63;  // RFC 1035 2.3.4
  if (label.empty() || label.size() > kMaxLabel || !is_made_of(label, "-_") || label.front() == '-' ||
      label.back() == '-')
    return fail("'{}' is no host name; expected a DNS name or an IP address", host);
  return {};
}

}  // namespace

std::string_view transport_name(Transport transport) {
  switch (transport) {
    case Transport::kTls:
      return "tls";
    case Transport::kTcp:
      return "tcp";
    case Transport::kUdp:
      return "udp";
  }
  std::unreachable();
}

std::uint16_t default_port(Transport transport) { return transport == Transport::kTls ? 5061 : 5060; }

Status check_host(std::string_view host) {
  constexpr std::size_t kMaxName = 253;
  if (host.empty()) return fail("no host; expected a DNS name or an IP address");
  if (Address::from_ip(host, 0)) return {};
  if (host.find(':') != std::string_view::npos) return fail("'{}' is not an IPv6 address", host);
  if (host.size() > kMaxName) return fail("the host name is longer than {} characters", kMaxName);
  std::string_view rest = host.ends_with('.') ? host.substr(0, host.size() - 1) : host;
  std::string_view label;
  for (;;) {
    const std::size_t dot = rest.find('.');
    label = rest.substr(0, dot);
    if (Status status = check_label(label, host); !status) return status;
    if (dot == std::string_view::npos) break;
    rest.remove_prefix(dot + 1);
  }
  // A top label of digits alone is an address gone wrong (RFC 3696 2).
  if (std::ranges::all_of(label, is_digit)) return fail("'{}' is not an IPv4 address", host);
  return {};
}

Result<HostPort> parse_host_port(std::string_view text) {
  HostPort result;
  std::string_view host = text;
  std::string_view port;
  bool port_given = false;
  if (text.starts_with('[')) {
    const std::size_t close = text.find(']');
    if (close == std::string_view::npos) return fail("'{}' has no closing bracket; expected [IPV6]:PORT", text);
    host = text.substr(1, close - 1);
    if (host.find(':') == std::string_view::npos) return fail("'{}' is not an IPv6 address in brackets", text);
    const std::string_view rest = text.substr(close + 1);
    if (!rest.empty()) {
      if (!rest.starts_with(':')) return fail("'{}' has '{}' after the bracket; expected :PORT", text, rest);
      port = rest.substr(1);
      port_given = true;
    }
  } else if (const std::size_t colon = text.find(':'); colon != std::string_view::npos) {
    if (text.find(':', colon + 1) != std::string_view::npos)
      return fail("'{}': an IPv6 address needs brackets, as in [2001:db8::1]:5061", text);
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
    port_given = true;
  }
  if (Status status = check_host(host); !status) return std::unexpected(status.error());
  if (port_given && (port.empty() || !parse_number<std::uint16_t>(port, 65535, result.port) || result.port == 0))
    return fail("'{}' has no valid port; expected 1 to 65535", text);
  result.host = host;
  return result;
}

namespace {

// What stands behind a target's host and port.
Status read_target_parameters(std::string_view parameters, Target& target) {
  while (!parameters.empty()) {
    parameters.remove_prefix(1);  // the semicolon
    const std::string_view parameter = parameters.substr(0, parameters.find(';'));
    parameters.remove_prefix(parameter.size());
    const std::size_t equals = parameter.find('=');
    const std::string_view name = parameter.substr(0, equals);
    std::uint16_t* const value = name == "priority" ? &target.priority : name == "weight" ? &target.weight : nullptr;
    const std::string_view number = equals == std::string_view::npos ? "" : parameter.substr(equals + 1);
    if (value == nullptr || number.empty() || !parse_number<std::uint16_t>(number, 65535, *value) || *value == 0)
      return fail("'{}'; expected priority=N or weight=N, 1 to 65535, behind a target", parameter);
  }
  return {};
}

}  // namespace

Result<Target> parse_target(std::string_view whole) {
  Target target;
  const std::string_view text = whole.substr(0, whole.find(';'));
  if (Status status = read_target_parameters(whole.substr(text.size()), target); !status)
    return std::unexpected(std::move(status.error()));
  const std::size_t colon = text.find(':');
  const std::string_view scheme = text.substr(0, colon);
  if (scheme == "tls") {
    target.transport = Transport::kTls;
  } else if (scheme == "tcp") {
    target.transport = Transport::kTcp;
  } else if (scheme == "udp") {
    target.transport = Transport::kUdp;
  } else {
    return fail("'{}' begins with no transport; expected \"tls:HOST:PORT\", \"tcp:HOST:PORT\" or \"udp:HOST:PORT\"",
                text);
  }
  if (colon == std::string_view::npos) return fail("'{}' has no host; expected \"{}:HOST:PORT\"", text, scheme);
  Result<HostPort> address = parse_host_port(text.substr(colon + 1));
  if (!address) return std::unexpected(std::move(address.error()));
  target.host = std::move(address->host);
  target.port = address->port;
  if (target.port == 0 && Address::from_ip(target.host, 0)) target.port = default_port(target.transport);
  return target;
}

Result<Share> parse_share(std::string_view text) {
  constexpr std::size_t kPlaces = 4;  // a percent is 10^4 millionths
  const auto wrong = [&] { return fail("'{}' is no share; expected a percentage such as \"100%\" or \"0.5%\"", text); };
  if (!text.ends_with('%')) return wrong();
  const std::string_view number = text.substr(0, text.size() - 1);
  const std::size_t point = std::min(number.find('.'), number.size());
  const std::string_view places = number.substr(std::min(point + 1, number.size()));
  if (places.size() > kPlaces || (point < number.size() && places.empty())) return wrong();
  const std::string digits = fmt::format("{}{:0<4}", number.substr(0, point), places);
  Share share;
  if (point == 0 || !std::ranges::all_of(digits, is_digit) ||
      !parse_number<std::uint32_t>(digits, Share::kAll, share.millionths))
    return wrong();
  return share;
}

std::string uri_host(std::string_view host) {
  return host.find(':') != std::string_view::npos ? fmt::format("[{}]", host) : std::string(host);
}

Status check_name(std::string_view name) {
  constexpr std::size_t kMaxLength = 64;
  if (name.empty() || name.size() > kMaxLength || !is_made_of(name, "._:-[]"))
    return fail("'{}'; expected 1 to {} letters, digits and . _ : - [ ]", name, kMaxLength);
  return {};
}

bool is_token(std::string_view text) { return !text.empty() && is_made_of(text, "-.!%*_+`'~"); }

std::string to_lower(std::string_view text) {
  std::string lower(text);
  std::ranges::transform(lower, lower.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return lower;
}

Result<std::chrono::milliseconds> parse_duration(std::string_view text) {
  constexpr std::int64_t kLongest = std::int64_t{365} * 24 * 3'600'000;
  const auto unit_at = std::ranges::find_if_not(text, is_digit);
  const std::string_view digits(text.begin(), unit_at);
  const std::string_view unit(unit_at, text.end());
  std::int64_t scale = 0;
  if (unit == "ms") scale = 1;
  if (unit == "s") scale = 1'000;
  if (unit == "m") scale = 60'000;
  if (unit == "h") scale = 3'600'000;
  std::int64_t number = 0;
  if (digits.empty() || scale == 0)
    return fail("'{}' is no duration; expected a whole number and a unit of ms, s, m or h, like \"30s\"", text);
  if (!parse_number<std::int64_t>(digits, kLongest / scale, number))
    return fail("'{}' is too long; expected a duration of at most a year", text);
  return std::chrono::milliseconds(number * scale);
}

}  // namespace ktrunk::config
