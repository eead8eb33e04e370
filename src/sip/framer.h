// Framer: where one SIP message ends and the next begins on a stream (RFC 3261 18.3), resumably, without copying.
// Workers run one per stream connection.
//
// Lines end in CRLF. A message whose first line ends in a bare LF is framed too, if all of its lines do; a mix of the
// two is malformed, for two programs could see two different messages in it. Message (message.h) splits lines alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace ktrunk::sip {

class Framer {
 public:
  enum class Outcome {
    kNeedMore,   // no whole message yet; consume nothing, call again with the same bytes and more behind them
    kMessage,    // the first `length` bytes are one whole message, start-line to the end of the body
    kPing,       // the first `length` bytes are a double CRLF keepalive (RFC 5626 3.5.1): answer with one CRLF
    kSkip,       // the first `length` bytes are a lone CRLF between messages (7.5; a pong): nothing to answer
    kMalformed,  // nothing behind this can be framed: answer `status` if it is a request, then close
  };
  struct Result {
    Outcome outcome = Outcome::kNeedMore;
    std::size_t length = 0;   // octets consumed; for kMalformed: the header octets to parse for an answer, or 0
    int status = 0;           // kMalformed: 400, 413 (message too large)
    const char* reason = "";  // kMalformed: one line for the log
  };

  explicit Framer(std::size_t max_message_bytes) : max_message_bytes_(max_message_bytes) {}

  // bytes: all that was received and not consumed. After kNeedMore the next call's bytes must begin with the same
  // octets (they may have moved in memory); after any other outcome, the caller has removed `length` octets.
  // Looks at each octet a bounded number of times, however the stream is cut. A line end that may yet become a double
  // CRLF is kNeedMore, and not mid_message().
  [[nodiscard]] Result next(std::string_view bytes);

  // True when part of a message has been seen: the partial-message clock runs.
  [[nodiscard]] bool mid_message() const { return scanned_ != 0; }

 private:
  enum class LineEnd : std::uint8_t { kUnknown, kCrLf, kLf };
  enum class Length : std::uint8_t { kAbsent, kKnown, kBad, kTooLarge };

  [[nodiscard]] Result between_messages(std::string_view bytes) const;
  [[nodiscard]] Result finish(Result result);
  [[nodiscard]] Result headers_done(std::string_view bytes);
  void end_of_header(std::string_view bytes, std::size_t end);

  std::size_t max_message_bytes_;
  std::size_t scanned_ = 0;         // octets of the header section looked at already
  std::size_t line_ = 0;            // where the line being read begins
  std::size_t header_ = 0;          // where the header field being read begins; 0: the start-line
  std::size_t header_section_ = 0;  // its length with the empty line, once that has been seen
  std::size_t content_length_ = 0;  // valid when length_ is kKnown
  LineEnd line_end_ = LineEnd::kUnknown;
  Length length_ = Length::kAbsent;
};

// Content-Length as framer and parser both read it: digits and nothing else. highest: the most that is acceptable.
enum class ContentLengthFault : std::uint8_t { kNone, kBad, kTooLarge };
[[nodiscard]] ContentLengthFault parse_content_length(std::string_view value, std::size_t highest, std::size_t& length);

}  // namespace ktrunk::sip
