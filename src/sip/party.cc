#include "sip/party.h"

#include <bit>
#include <optional>

#include "sip/text.h"
#include "sip/uri.h"

namespace ktrunk::sip {

namespace {

constexpr std::uint64_t below(std::size_t place) { return (std::uint64_t{1} << place) - 1; }
std::size_t first_of(std::uint64_t places) { return static_cast<std::size_t>(std::countr_zero(places)); }

// What stands before the "<": nothing, or one quoted string without escapes and blanks.
bool is_usual_display(std::string_view value, const Block64& octets, std::size_t open) {
  if (open == 0) return true;
  const std::uint64_t quotes = octets.equal_to(Octet('"')), escapes = octets.equal_to(Octet('\\'));
  if (value[0] != '"' || std::popcount(quotes) != 2 || escapes != 0) return false;
  const std::size_t close = first_of(quotes & ~std::uint64_t{1});
  if (close >= open) return false;
  const std::uint64_t between = below(open) & ~below(close + 1);
  return (octets.equal_to(Octet(' ')) & between) == between;
}

// [display] <sip:USER@HOST> [;tag=TOKEN], in at most 64 octets, no octet of which needs a second look.
std::optional<Party> read_usual(std::string_view value) {
  constexpr std::size_t kTag = sizeof ";tag=" - 1, kScheme = sizeof "sip:" - 1;
  if (value.empty() || value.size() > Block64::kOctets) return std::nullopt;
  const Block64 octets(value.data(), value.size());
  const std::uint64_t opens = octets.equal_to(Octet('<'));
  if (std::popcount(opens) != 1) return std::nullopt;
  const std::size_t open = first_of(opens), user = open + 1 + kScheme;
  if (user >= value.size() || !is_word<"sip:">({value.data() + open + 1, kScheme})) return std::nullopt;
  if (!is_usual_display(value, octets, open)) return std::nullopt;
  // The first octet that is no URI's text is the "@"; then only a host's, up to the ">".
  const std::uint64_t stops = octets.outside(kUriSet) & ~below(user);
  if (stops == 0) return std::nullopt;
  const std::size_t at = first_of(stops);
  if (value[at] != '@' || at == user || value[user] == ':' || at + 1 == value.size()) return std::nullopt;
  const std::uint64_t after_host = octets.outside(kHostSet) & ~below(at + 1);
  if (after_host == 0) return std::nullopt;
  const std::size_t close = first_of(after_host);
  if (value[close] != '>' || close == at + 1) return std::nullopt;
  if (close + 1 == value.size()) return Party{.sound = true, .has_tag = false, .tag = {}};
  const std::size_t tag = close + 1 + kTag;
  if (tag >= value.size() || value[close + 1] != ';' || value[tag - 1] != '=' ||
      !is_word<"tag">({value.data() + close + 2, 3}))
    return std::nullopt;
  if ((octets.outside(kTokenSet) & ~below(tag)) != 0) return std::nullopt;
  return Party{.sound = true, .has_tag = true, .tag = value.substr(tag)};
}

}  // namespace

Party read_party_closely(std::string_view value) {
  Party party;
  const auto address = parse_name_addr(value);
  if (!address) return party;
  ParameterReader parameters(address->parameters);
  for (ParameterReader::Parameter parameter; parameters.next(parameter);) {
    if (party.has_tag || !is_word<"tag">(parameter.name)) continue;
    party.has_tag = true;
    party.tag = parameter.value;
  }
  Uri uri;
  party.sound = !parameters.malformed() && read_uri(address->uri, uri);
  return party;
}

Party read_party(std::string_view value) {
  const auto usual = read_usual(value);
  return usual ? *usual : read_party_closely(value);
}

}  // namespace ktrunk::sip
