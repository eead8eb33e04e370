#include "sip/framer.h"

#include <algorithm>

#include "sip/limits.h"

namespace ktrunk::sip {

Framer::Result Framer::finish(Result result) {
  *this = Framer(max_message_bytes_);
  return result;
}

// bytes is not empty and begins with CR or LF: no message has begun.
Framer::Result Framer::between_messages(std::string_view bytes) {
  if (bytes[0] == '\n') return {Outcome::kSkip, 1};
  constexpr std::string_view kPingText = "\r\n\r\n";
  const std::size_t common = std::min(bytes.size(), kPingText.size());
  if (bytes.substr(0, common) == kPingText.substr(0, common))
    return common == kPingText.size() ? Result{Outcome::kPing, common} : Result{};
  if (bytes.starts_with("\r\n")) return {Outcome::kSkip, 2};
  return {Outcome::kMalformed, 0, 400, "a CR without LF where a message should begin"};
}

Framer::Result Framer::headers_done(std::string_view bytes) {
  const std::size_t headers = scan_.size();
  if (content_length_.state == ContentLength::State::kAbsent)
    return finish({Outcome::kMalformed, headers, 400, "no Content-Length on a stream"});
  if (content_length_.state == ContentLength::State::kBad)
    return finish({Outcome::kMalformed, headers, 400, "Content-Length is not one number"});
  if (content_length_.octets > max_message_bytes_ - headers)
    return finish({Outcome::kMalformed, headers, 413, "the message is over the limit"});
  const std::size_t total = headers + content_length_.octets;
  if (bytes.size() < total) return {};
  return finish({Outcome::kMessage, total});
}

Framer::Result Framer::next(std::string_view bytes, HeaderIndex* index) {
  if (index != nullptr) index->clear();
  if (headers_done_) return headers_done(bytes);
  if (scan_.scanned() == 0) {
    if (bytes.empty()) return {};
    if (bytes[0] == '\r' || bytes[0] == '\n') return between_messages(bytes);
  } else {
    index = nullptr;
  }

  const std::size_t limit = std::min(kMaxHeaderSectionBytes, max_message_bytes_);
  const std::size_t end = std::min(bytes.size(), limit);
  if (index != nullptr && index->build_usual(bytes, end)) {
    scan_ = HeaderScan::ended(index->size());
    headers_done_ = true;
    content_length_ = index->content_length();
    return headers_done(bytes);
  }
  headers_done_ = scan_.run(bytes, end, [&](auto begin, auto field_end, auto) {
    const HeaderField field = split_field(bytes.substr(begin, field_end - begin));
    if (field.id == HeaderId::kContentLength) content_length_.add(field.value);
  });
  if (scan_.has_mixed_line_ends()) return finish({Outcome::kMalformed, 0, 400, "CRLF and bare LF line ends are mixed"});
  if (headers_done_) return headers_done(bytes);
  if (scan_.scanned() >= limit) return finish({Outcome::kMalformed, 0, 413, "the header section is over the limit"});
  return {};
}

}  // namespace ktrunk::sip
