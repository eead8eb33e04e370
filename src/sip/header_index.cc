#include "sip/header_index.h"

#include "sip/text.h"

namespace ktrunk::sip {

namespace {

HeaderId compact_form(char letter) {
  switch (to_lower(letter)) {
    case 'c':
      return HeaderId::kContentType;
    case 'f':
      return HeaderId::kFrom;
    case 'i':
      return HeaderId::kCallId;
    case 'k':
      return HeaderId::kSupported;
    case 'l':
      return HeaderId::kContentLength;
    case 'm':
      return HeaderId::kContact;
    case 't':
      return HeaderId::kTo;
    case 'v':
      return HeaderId::kVia;
    default:
      return HeaderId::kOther;
  }
}

template <Word kWord>
[[gnu::always_inline]] inline HeaderId if_word(std::string_view name, HeaderId id) {
  return is_word<kWord>(name) ? id : HeaderId::kOther;
}

[[gnu::always_inline]] inline HeaderId id_of(std::string_view name) {
  if (name.empty()) return HeaderId::kOther;
  const char first = to_lower(name[0]);
  switch (name.size()) {
    case 1:
      return compact_form(name[0]);
    case 2:
      return if_word<"To">(name, HeaderId::kTo);
    case 3:
      return if_word<"Via">(name, HeaderId::kVia);
    case 4:
      return first == 'f' ? if_word<"From">(name, HeaderId::kFrom) : if_word<"CSeq">(name, HeaderId::kCSeq);
    case 5:
      return if_word<"Route">(name, HeaderId::kRoute);
    case 7:
      if (to_lower(name[1]) == 'a') return if_word<"Call-ID">(name, HeaderId::kCallId);
      return first == 'c' ? if_word<"Contact">(name, HeaderId::kContact) : if_word<"Require">(name, HeaderId::kRequire);
    case 9:
      return first == 's' ? if_word<"Supported">(name, HeaderId::kSupported)
                          : if_word<"Timestamp">(name, HeaderId::kTimestamp);
    case 11:
      return if_word<"Unsupported">(name, HeaderId::kUnsupported);
    case 12:
      if (first == 'r') return if_word<"Record-Route">(name, HeaderId::kRecordRoute);
      return first == 'm' ? if_word<"Max-Forwards">(name, HeaderId::kMaxForwards)
                          : if_word<"Content-Type">(name, HeaderId::kContentType);
    case 13:
      return if_word<"Proxy-Require">(name, HeaderId::kProxyRequire);
    case 14:
      return if_word<"Content-Length">(name, HeaderId::kContentLength);
    default:
      return HeaderId::kOther;
  }
}

// Where the parts of a header field lie, as offsets into it.
struct Parts {
  std::size_t name_end = 0;  // 0: it is no header field
  std::size_t value = 0, value_end = 0;
  HeaderId id = HeaderId::kOther;
};

// Where a name ends that is not known by its colon: a token, perhaps with white space behind it.
std::size_t name_end(std::string_view field, std::size_t colon) {
  const std::size_t end = span_of(kTokenSet, field.substr(0, colon));
  for (std::size_t i = end; i < colon; ++i)
    if (!is_lws(field[i])) return 0;
  return end;
}

[[gnu::always_inline]] inline Parts split(std::string_view field) {
  const char* const octets = field.data();
  Parts parts;
  const std::uint32_t colons = Block(octets, field.size()).equal_to(':');
  const std::size_t colon = colons != 0 ? static_cast<std::size_t>(std::countr_zero(colons))
                                        : find_octet(field, ':', std::min(Block::kOctets, field.size()));
  if (colon >= field.size()) return parts;
  parts.name_end = colon;
  parts.id = id_of({octets, colon});
  if (parts.id == HeaderId::kOther) {
    parts.name_end = name_end(field, colon);
    if (parts.name_end != colon) parts.id = id_of({octets, parts.name_end});
  }
  std::size_t value = colon + 1, end = field.size();
  while (value != end && is_at_most_blank(octets[value]) && is_lws(octets[value])) ++value;
  while (value != end && is_at_most_blank(octets[end - 1]) && is_lws(octets[end - 1])) --end;
  if (value == end) value = end = colon + 1;  // an empty value stands behind the colon
  parts.value = value;
  parts.value_end = end;
  return parts;
}

}  // namespace

HeaderId header_id(std::string_view name) { return id_of(name); }

HeaderField split_field(std::string_view field) {
  const Parts parts = split(field);
  return {.name = field.substr(0, parts.name_end),
          .value = field.substr(parts.value, parts.value_end - parts.value),
          .id = parts.id};
}

void ContentLength::add(std::string_view value) {
  std::uint64_t number = 0;
  for (const char c : value) {
    if (!is_digit(c)) {
      state = State::kBad;
      return;
    }
    number = std::min<std::uint64_t>(number * 10 + static_cast<std::uint64_t>(c - '0'), kMost);
  }
  if (value.empty() || (state != State::kAbsent && octets != number)) {
    state = State::kBad;
  } else if (state == State::kAbsent) {
    state = State::kKnown;
    octets = static_cast<std::uint32_t>(number);
  }
}

[[gnu::always_inline]] inline void HeaderIndex::add(const char* message, std::size_t begin, std::size_t end,
                                                    std::size_t line_end) {
  const char* const octets = message + begin;
  const Parts parts = split({octets, end - begin});
  if (parts.name_end == 0) return set_defect(400, "Malformed header field");
  const std::size_t value_size = parts.value_end - parts.value;
  if (parts.id == HeaderId::kContentLength) content_length_.add({octets + parts.value, value_size});
  if (count_ == kMaxHeaders) return set_defect(513, "Too many header fields");
  const auto narrow = [](std::size_t offset) { return static_cast<std::uint32_t>(offset); };
  const auto index = static_cast<std::uint16_t>(count_++);
  fields_[index] = {.line = narrow(begin),
                    .line_end = narrow(line_end),
                    .value = narrow(begin + parts.value),
                    .value_size = narrow(value_size),
                    .name_size = narrow(parts.name_end),
                    .next = kNone,
                    .id = parts.id};
  if (parts.id == HeaderId::kOther) return;
  const auto slot = static_cast<std::size_t>(parts.id);
  if (first_[slot] == kNone) {
    first_[slot] = index;
  } else {
    fields_[last_[slot]].next = index;
  }
  last_[slot] = index;
}

void HeaderIndex::finish(const HeaderScan& scan) {
  size_ = scan.size();
  start_line_end_ = scan.start_line_end();
  if (scan.has_mixed_line_ends()) set_defect(400, "Mixed line ends");
  if (scan.begins_with_fold()) set_defect(400, "White space before the first header field");
  if (scan.has_stray_return()) set_defect(400, "CR without LF");
  // A peer that takes CRLF alone for a line end would not see where this message ends.
  if (scan.has_bare_line_feeds()) set_defect(400, "Bare LF line ends");
}

bool HeaderIndex::build_usual(std::string_view message, std::size_t end) {
  clear();
  constexpr std::size_t kMostLines = kMaxHeaders + 2;
  const char* const text = message.data();
  const Octet feed('\n'), carriage_return('\r');
  std::array<std::uint16_t, kMostLines> feeds;  // where the lines' LFs stand, the empty line's at last
  std::size_t lines = 0;
  std::uint64_t return_before = 0, feeds_before = 0;
  for (std::size_t block = 0;; block += Block64::kOctets) {
    if (block >= end) return false;
    const Block64 octets(text + block, end - block);
    std::uint64_t here = octets.equal_to(feed);
    const std::uint64_t returns = octets.equal_to(carriage_return);
    const std::uint64_t behind_returns = returns << 1 | return_before;
    // CRLFCRLF: an LF two octets behind another. What stands behind the first of these is the body's.
    const std::uint64_t empty = here & (here << 2 | feeds_before >> 62);
    const std::uint64_t ours = (empty ^ (empty - 1)) & octets.valid();  // all, where there is no empty line
    if (((here ^ behind_returns) & ours) != 0) return false;
    return_before = returns >> 63;
    feeds_before = here;
    for (here &= ours; here != 0; here &= here - 1) {
      if (lines == kMostLines) return false;
      feeds[lines++] = static_cast<std::uint16_t>(block + static_cast<std::size_t>(std::countr_zero(here)));
    }
    if (empty != 0) break;
  }
  const std::size_t first = std::size_t{feeds[0]} + 1;
  const auto begins_with_blank = [text](std::size_t line) { return text[line] == ' ' || text[line] == '\t'; };
  if (lines < 2 || begins_with_blank(first)) return false;
  start_line_end_ = first - 2;
  size_ = std::size_t{feeds[lines - 1]} + 1;
  std::size_t begin = first;
  for (std::size_t i = 1; i + 1 < lines; ++i) {
    const std::size_t next = std::size_t{feeds[i]} + 1;
    if (begins_with_blank(next)) continue;  // a fold
    add(text, begin, next - 2, next);
    begin = next;
  }
  return true;
}

bool HeaderIndex::build(std::string_view message, std::size_t end) {
  if (build_usual(message, end)) return true;
  HeaderScan scan;
  const bool ended = scan.run(message, end, [&](auto begin, auto field_end, auto line_end) {
    add(message.data(), begin, field_end, line_end);
  });
  if (ended) finish(scan);
  start_line_end_ = scan.start_line_end();
  return ended;
}

}  // namespace ktrunk::sip
