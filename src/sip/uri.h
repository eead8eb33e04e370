// Uri: sip, sips and tel URIs (RFC 3261 19.1 and 25.1, RFC 3966) and the name-addr around them, as views into the
// caller's text. Pure; nothing is unescaped in place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace ktrunk::sip {

struct Uri {
  enum class Scheme : std::uint8_t { kSip, kSips, kTel, kOther };

  Scheme scheme = Scheme::kOther;
  std::string_view text;  // all of it
  std::string_view user;  // without password, as written (escapes kept); tel: the number; may be empty
  std::string_view password;
  std::string_view host;        // without brackets; empty for tel
  bool is_ipv6 = false;         // host stood in brackets
  std::uint16_t port = 0;       // 0: none
  std::string_view parameters;  // from the first semicolon on, or empty
  std::string_view headers;     // from the question mark on, or empty
};

// Parses text as a whole. None: it is no URI, or a sip, sips or tel URI with broken syntax. A URI of another scheme is
// returned as kOther with nothing but its text. RFC 5118: a bare IPv6 address is an error; ":::" is tolerated.
[[nodiscard]] std::optional<Uri> parse_uri(std::string_view text);
// The same into a Uri that is new. False: it is none, and `uri` says nothing.
[[nodiscard]] bool read_uri(std::string_view text, Uri& uri);

// "display" <uri>;params, or uri;params (RFC 3261 20.10): From, To, Route, Record-Route, Contact.
struct NameAddr {
  std::string_view display;     // with its quotes; may be empty
  std::string_view uri;         // as written, not checked
  std::string_view parameters;  // of the header field, from the first semicolon on, or empty
};
// None: quotes or brackets do not balance, or there is text where none may be.
[[nodiscard]] std::optional<NameAddr> parse_name_addr(std::string_view text);

// Whether a host from a URI or Via, and a name or literal address, are the same: without case, and addresses by value.
// Neither has brackets.
[[nodiscard]] bool same_host(std::string_view a, std::string_view b);

// Whether the unescaped user part begins with prefix; and how many octets, escapes included, that is, or none.
[[nodiscard]] std::optional<std::size_t> user_prefix_length(std::string_view user, std::string_view prefix);
[[nodiscard]] inline bool user_has_prefix(std::string_view user, std::string_view prefix) {
  return user_prefix_length(user, prefix).has_value();
}
// The user part without escapes, in room; what does not fit is left out.
[[nodiscard]] std::string_view unescape_user(std::string_view user, std::span<char> room);

// HOST[:PORT], HOST a name, IPv4 or bracketed IPv6 address. port is 0 when there is none.
struct HostPort {
  std::string_view host;  // without brackets
  bool is_ipv6 = false;
  std::uint16_t port = 0;
};
[[nodiscard]] std::optional<HostPort> parse_host_port(std::string_view text);
// 1 to 65535, in digits. False: it is none.
[[nodiscard]] bool parse_port(std::string_view digits, std::uint16_t& port);

}  // namespace ktrunk::sip
