// Framer: where one SIP message ends and the next begins on a stream (RFC 3261 18.3), resumably, without copying.
// Workers run one per stream connection.
#pragma once

#include <cstddef>
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
  [[nodiscard]] Result next(std::string_view bytes);

  // True when part of a message has been seen: the partial-message clock runs.
  [[nodiscard]] bool mid_message() const { return scanned_ != 0; }

 private:
  std::size_t max_message_bytes_;
  std::size_t scanned_ = 0;  // octets of the header section looked at already
  // (further private members as the implementation needs)
};

}  // namespace ktrunk::sip
