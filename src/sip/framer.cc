#include "sip/framer.h"

#include <algorithm>

#include "sip/limits.h"
#include "sip/lines.h"
#include "sip/text.h"

namespace ktrunk::sip {

ContentLengthFault parse_content_length(std::string_view value, std::size_t highest, std::size_t& length) {
  value = trim(value);
  if (value.empty() || span_of(kDigitClass, value) != value.size()) return ContentLengthFault::kBad;
  const auto number = parse_number(value, highest);
  if (!number) return ContentLengthFault::kTooLarge;
  length = static_cast<std::size_t>(*number);
  return ContentLengthFault::kNone;
}

Framer::Result Framer::finish(Result result) {
  *this = Framer(max_message_bytes_);
  return result;
}

// bytes is not empty and begins with CR or LF: no message has begun.
Framer::Result Framer::between_messages(std::string_view bytes) const {
  if (bytes[0] == '\n') return {Outcome::kSkip, 1};
  constexpr std::string_view kPingText = "\r\n\r\n";
  const std::size_t common = std::min(bytes.size(), kPingText.size());
  if (bytes.substr(0, common) == kPingText.substr(0, common))
    return common == kPingText.size() ? Result{Outcome::kPing, common} : Result{};
  if (bytes.starts_with("\r\n")) return {Outcome::kSkip, 2};
  return {Outcome::kMalformed, 0, 400, "a CR without LF where a message should begin"};
}

// Called when the header field from header_ to end is complete. Remembers what Content-Length says.
void Framer::end_of_header(std::string_view bytes, std::size_t end) {
  if (header_ == 0) return;  // the start-line
  const char first = to_lower(bytes[header_]);
  if (first != 'c' && first != 'l') return;
  const std::string_view field = bytes.substr(header_, end - header_);
  constexpr std::string_view kName = "Content-Length";
  std::size_t colon = kName.size();
  if (!is_word<"Content-Length">(field.substr(0, kName.size()))) {
    if (first != 'l') return;
    colon = 1;
  }
  while (colon < field.size() && is_lws(field[colon])) ++colon;
  if (colon == field.size() || field[colon] != ':') return;

  std::size_t value = 0;
  switch (parse_content_length(field.substr(colon + 1), max_message_bytes_, value)) {
    case ContentLengthFault::kBad:
      length_ = Length::kBad;
      break;
    case ContentLengthFault::kTooLarge:
      if (length_ != Length::kBad) length_ = Length::kTooLarge;
      break;
    case ContentLengthFault::kNone:
      if (length_ == Length::kAbsent) {
        length_ = Length::kKnown;
        content_length_ = value;
      } else if (length_ != Length::kKnown || content_length_ != value) {
        length_ = Length::kBad;  // two lengths: two messages, depending on who reads
      }
      break;
  }
}

Framer::Result Framer::headers_done(std::string_view bytes) {
  switch (length_) {
    case Length::kAbsent:
      return finish({Outcome::kMalformed, header_section_, 400, "no Content-Length on a stream"});
    case Length::kBad:
      return finish({Outcome::kMalformed, header_section_, 400, "Content-Length is not one number"});
    case Length::kTooLarge:
      return finish({Outcome::kMalformed, header_section_, 413, "Content-Length is over the limit"});
    case Length::kKnown:
      break;
  }
  if (content_length_ > max_message_bytes_ - header_section_)
    return finish({Outcome::kMalformed, header_section_, 413, "the message is over the limit"});
  const std::size_t total = header_section_ + content_length_;
  if (bytes.size() < total) return {};
  return finish({Outcome::kMessage, total});
}

Framer::Result Framer::next(std::string_view bytes) {
  if (header_section_ != 0) return headers_done(bytes);
  if (scanned_ == 0) {
    if (bytes.empty()) return {};
    if (bytes[0] == '\r' || bytes[0] == '\n') return between_messages(bytes);
  }

  const std::size_t limit = std::min(kMaxHeaderSectionBytes, max_message_bytes_);
  const std::size_t end = std::min(bytes.size(), limit);
  LineFeeds feeds(bytes, scanned_, end);
  for (std::size_t feed = feeds.next(); feed != LineFeeds::kNone; feed = feeds.next()) {
    scanned_ = feed + 1;
    const LineEnd this_end = feed > line_ && bytes[feed - 1] == '\r' ? LineEnd::kCrLf : LineEnd::kLf;
    if (line_end_ == LineEnd::kUnknown) line_end_ = this_end;
    if (line_end_ != this_end) return finish({Outcome::kMalformed, 0, 400, "CRLF and bare LF line ends are mixed"});

    const std::size_t text_end = this_end == LineEnd::kCrLf ? feed - 1 : feed;
    if (text_end == line_) {  // the empty line
      end_of_header(bytes, line_);
      header_section_ = scanned_;
      return headers_done(bytes);
    }
    if (line_ != 0 && !is_blank(bytes[line_])) {  // not a fold: the field before it is complete
      end_of_header(bytes, line_);
      header_ = line_;
    }
    line_ = scanned_;
  }
  scanned_ = std::max(scanned_, end);
  if (scanned_ >= limit) return finish({Outcome::kMalformed, 0, 413, "the header section is over the limit"});
  return {};
}

}  // namespace ktrunk::sip
