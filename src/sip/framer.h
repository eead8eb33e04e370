// Framer: where one SIP message ends and the next begins on a stream (RFC 3261 18.3), resumably, without copying.
// Workers run one per stream connection. Lines are header_index.h's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "sip/header_index.h"

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
  // index: gets the message's header fields if they can be had on the way. It is complete() after kMessage, or empty:
  // where an earlier call has seen some of them, or they need a closer look.
  [[nodiscard]] Result next(std::string_view bytes, HeaderIndex* index = nullptr);

  // True when part of a message has been seen: the partial-message clock runs.
  [[nodiscard]] bool mid_message() const { return scan_.scanned() != 0; }

 private:
  [[nodiscard]] static Result between_messages(std::string_view bytes);
  [[nodiscard]] Result finish(Result result);
  [[nodiscard]] Result headers_done(std::string_view bytes);

  std::size_t max_message_bytes_;
  HeaderScan scan_;
  bool headers_done_ = false;
  ContentLength content_length_;
};

}  // namespace ktrunk::sip
