// HeaderIndex: where the header fields of one message lie (RFC 3261 7.3), as one pass over its header section finds
// them. HeaderScan: that pass, resumably. Framer and Message both use them, so that both see the same lines, and what
// the framer has found need not be looked for again.
//
// Lines end in CRLF. A message whose first line ends in a bare LF is taken apart too, if all of its lines do; a mix of
// the two is malformed, for two programs could see two different messages in it. Nothing is allocated or copied; all
// offsets count octets of the message.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "sip/limits.h"
#include "sip/octets.h"

namespace ktrunk::sip {

// The header fields that something here looks for; all others are kOther. Compact forms (7.3.3) are the same header.
enum class HeaderId : std::uint8_t {
  kOther,
  kCallId,
  kContact,
  kContentLength,
  kContentType,
  kCSeq,
  kFrom,
  kMaxForwards,
  kProxyRequire,
  kRecordRoute,
  kRequire,
  kRoute,
  kSupported,
  kTimestamp,
  kTo,
  kUnsupported,
  kVia,
};
inline constexpr std::size_t kHeaderIds = 17;
[[nodiscard]] HeaderId header_id(std::string_view name);

// What makes a message unfit to be forwarded.
struct Defect {
  int status = 0;         // 0: none; else the reply's status
  const char* what = "";  // static; fit for a reason phrase
};

// What the Content-Length fields of a message say together. Two lengths are two messages, depending on who reads.
struct ContentLength {
  enum class State : std::uint8_t { kAbsent, kKnown, kBad };  // kBad: one that is no number, or two that differ
  // What is longer than that counts as this.
  static constexpr std::uint32_t kMost = 0xffffffff;

  State state = State::kAbsent;
  std::uint32_t octets = 0;

  void add(std::string_view value);
};

// Where the lines of a header section end.
class HeaderScan {
 public:
  HeaderScan() = default;
  // One that is over: HeaderIndex::build_usual() has seen the end.
  static HeaderScan ended(std::size_t size) {
    HeaderScan scan;
    scan.scanned_ = static_cast<std::uint32_t>(size);
    return scan;
  }

  // Looks at text up to text[end], from where it stopped the last time; text begins with the same octets each time.
  // Calls field(begin, end, line_end) for each header field that is complete: from its first octet to one past its
  // last, folds included, without its last line end; and one past that. Returns whether the empty line was there.
  // Each octet is looked at once, however the text is cut.
  template <typename Field>
  bool run(std::string_view text, std::size_t end, Field&& field);

  [[nodiscard]] std::size_t scanned() const { return scanned_; }
  // When run() has returned true: the section's length with the empty line.
  [[nodiscard]] std::size_t size() const { return scanned_; }
  [[nodiscard]] std::size_t start_line_end() const { return start_line_end_; }
  // Of what has been looked at:
  [[nodiscard]] bool has_mixed_line_ends() const { return mixed_; }
  [[nodiscard]] bool has_bare_line_feeds() const { return bare_; }
  [[nodiscard]] bool has_stray_return() const { return stray_; }  // a CR without LF
  [[nodiscard]] bool begins_with_fold() const { return fold_; }   // white space before the first header field

 private:
  std::uint32_t scanned_ = 0;
  std::uint32_t line_ = 0;      // where the line being read begins
  std::uint32_t field_ = 0;     // where the header field being read begins; 0: there is none yet
  std::uint32_t text_end_ = 0;  // where the text of the line before ends
  std::uint32_t start_line_end_ = 0;
  bool bare_ = false, mixed_ = false, stray_ = false, fold_ = false;
};

class HeaderIndex {
 public:
  static constexpr std::uint16_t kNone = 0xffff;
  struct Field {
    std::uint32_t line, line_end;     // from its first octet to one past its last line end
    std::uint32_t value, value_size;  // trimmed at both ends, folds inside kept
    std::uint32_t name_size;
    std::uint16_t next;  // the next field of the same name; kNone
    HeaderId id;
  };
  static_assert(kMaxHeaderSectionBytes <= kNone);

  HeaderIndex() { clear(); }

  // An index of nothing.
  void clear() {
    count_ = 0;
    first_.fill(kNone);
    size_ = start_line_end_ = 0;
    defect_ = {};
    content_length_ = {};
  }
  // Takes the header section apart, which must end within message[end]. False: it does not.
  bool build(std::string_view message, std::size_t end);
  // The same in one go for the usual case: all of its lines end in CRLF, and there is no other CR or LF. False: it must
  // be looked at more closely, or does not end there; the index is empty then.
  bool build_usual(std::string_view message, std::size_t end);

  [[nodiscard]] bool complete() const { return size_ != 0; }
  [[nodiscard]] std::size_t size() const { return size_; }  // of the header section with the empty line
  [[nodiscard]] std::size_t start_line_end() const { return start_line_end_; }
  [[nodiscard]] std::size_t count() const { return count_; }
  [[nodiscard]] const Field& field(std::size_t index) const { return fields_[index]; }
  [[nodiscard]] std::uint16_t first(HeaderId id) const { return first_[static_cast<std::size_t>(id)]; }
  [[nodiscard]] const ContentLength& content_length() const { return content_length_; }
  // The first that was found: the one nearest to the cause.
  [[nodiscard]] Defect defect() const { return defect_; }

 private:
  void set_defect(int status, const char* what) {
    if (defect_.status == 0) defect_ = {status, what};
  }
  void add(const char* message, std::size_t begin, std::size_t end, std::size_t line_end);
  void finish(const HeaderScan& scan);

  std::size_t count_ = 0;
  std::size_t size_ = 0;
  std::size_t start_line_end_ = 0;
  ContentLength content_length_;
  Defect defect_;
  std::array<std::uint16_t, kHeaderIds> first_;
  std::array<std::uint16_t, kHeaderIds> last_;  // set where first_ is
  std::array<Field, kMaxHeaders> fields_;       // the first count_ are set
};

inline const HeaderIndex kNoIndex;

// A header field's text taken apart: "NAME : VALUE".
struct HeaderField {
  std::string_view name;   // empty: it is none
  std::string_view value;  // trimmed
  HeaderId id = HeaderId::kOther;
};
[[nodiscard]] HeaderField split_field(std::string_view field);

template <typename Field>
bool HeaderScan::run(std::string_view text, std::size_t end, Field&& field) {
  const Octet feed_octet('\n'), return_octet('\r');
  HeaderScan now = *this;  // in registers
  bool return_before = scanned_ != 0 && text[scanned_ - 1] == '\r';
  bool stray_before = stray_;
  for (std::size_t block = scanned_; block < end; block += Block64::kOctets) {
    const Block64 octets(text.data() + block, end - block);
    std::uint64_t feeds = octets.equal_to(feed_octet);
    const std::uint64_t returns = octets.equal_to(return_octet);
    const std::uint64_t behind_returns = returns << 1 | std::uint64_t{return_before};
    return_before = returns >> 63 != 0;
    const std::uint64_t strays = behind_returns & ~feeds & octets.valid();
    now.stray_ |= strays != 0;
    for (; feeds != 0; feeds &= feeds - 1) {
      const auto place = static_cast<unsigned>(std::countr_zero(feeds));
      const auto feed = static_cast<std::uint32_t>(block + place);
      const bool bare = (behind_returns >> place & 1) == 0;
      const std::uint32_t text_end = feed - (bare ? 0 : 1);
      now.mixed_ |= (bare != now.bare_) & (now.line_ != 0);
      if (text_end == now.line_ && now.line_ != 0) {  // the empty line
        if (now.field_ != 0) field(now.field_, now.text_end_, now.line_);
        // What stands behind it is no matter of this section.
        now.stray_ = stray_before || (strays & ((std::uint64_t{1} << place) - 1)) != 0;
        now.scanned_ = feed + 1;
        *this = now;
        return true;
      }
      if (const char first = text[now.line_]; first != ' ' && first != '\t') {
        if (now.field_ != 0) field(now.field_, now.text_end_, now.line_);
        now.field_ = now.line_;
      } else {
        now.fold_ |= now.field_ == 0 && now.line_ != 0;
      }
      if (now.line_ == 0) {
        now.bare_ = bare;
        now.start_line_end_ = text_end;
      }
      now.text_end_ = text_end;
      now.line_ = feed + 1;
    }
    stray_before = now.stray_;
  }
  now.scanned_ = std::max(scanned_, static_cast<std::uint32_t>(end));
  *this = now;
  return false;
}

}  // namespace ktrunk::sip
