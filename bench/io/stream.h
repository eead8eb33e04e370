// Stream: one connection of a measuring program, its handshake done: TCP, TLS by the kernel, or TLS by OpenSSL.
// Sending is the daemon's (worker/sender.h): messages are gathered into blocks of at most 16384 octets, one block in
// flight; what is written during a turn of the loop leaves at its end.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/address.h"
#include "base/fd.h"
#include "bench/io/block.h"
#include "bench/io/reactor.h"
#include "handshake/tls_session.h"
#include "sip/framer.h"

namespace ktrunk::bench {

class Stream;

// Whom a stream tells.
class StreamUser {
 public:
  virtual ~StreamUser() = default;
  // The octets live during the call.
  virtual void on_octets(Stream& stream, std::string_view octets) = 0;
  // The stream has ended, for this reason; said once. The user retires it, now or later.
  virtual void on_end(Stream& stream, const std::string& reason) = 0;
};

// How a stream's records are made, and what its handshake agreed on.
struct StreamKind {
  enum class Records : std::uint8_t { kNone, kKernel, kUser } records = Records::kNone;
  std::string version;  // "TLS 1.3"; "" without TLS
  std::string cipher;
};

class Stream : public Source {
 public:
  // user: outlives the stream. number: the user's own, to find what belongs to the stream.
  void start(StreamUser& user, std::size_t number);

  // Where to write the next message of at most `bytes` octets, at most a record's; then commit what has been written.
  // Nothing may come between the two. Null when the queue is full.
  [[nodiscard]] char* reserve(std::size_t bytes);
  void commit(std::size_t bytes);
  [[nodiscard]] bool ended() const { return ended_; }
  [[nodiscard]] std::size_t queued_bytes() const { return queued_bytes_; }

  // Ends the sending side in order, once everything has gone: not before queued_bytes() is 0.
  virtual void finish() = 0;

  [[nodiscard]] std::size_t number() const { return number_; }
  [[nodiscard]] const StreamKind& kind() const { return kind_; }
  [[nodiscard]] virtual int fd() const = 0;

  static constexpr std::size_t kMaxQueuedBytes = 1u << 20;

 protected:
  Stream(Reactor& reactor, StreamKind kind) : reactor_(reactor), kind_(std::move(kind)) {}
  virtual void receive() = 0;           // begins receiving
  virtual void send(Block& block) = 0;  // nothing is in flight
  void sent();                          // the block in flight has gone
  void end(const std::string& reason);
  void turn_ended() override;

  Reactor& reactor_;
  StreamUser* user_ = nullptr;
  bool in_flight_ = false;

 private:
  [[nodiscard]] static BlockPool& pool();

  StreamKind kind_;
  std::size_t number_ = 0;
  std::size_t queued_bytes_ = 0;
  std::deque<BlockPtr> queue_;
  bool ended_ = false;
};

// TCP, plain or with the kernel's TLS. socket: connected.
[[nodiscard]] std::unique_ptr<Stream> make_kernel_stream(Reactor& reactor, Fd socket, StreamKind kind);
// TLS by OpenSSL in this process. session: its handshake is done.
[[nodiscard]] std::unique_ptr<Stream> make_user_stream(Reactor& reactor, handshake::TlsSession session,
                                                       StreamKind kind);

// Cuts a stream of octets into SIP messages.
class Splitter {
 public:
  // Calls on_message(std::string_view) for each whole message. False: the stream cannot be framed.
  template <typename OnMessage>
  [[nodiscard]] bool feed(std::string_view octets, OnMessage&& on_message);

 private:
  static constexpr std::size_t kMaxMessageBytes = 65535;
  sip::Framer framer_{kMaxMessageBytes};
  std::vector<char> partial_;
};

template <typename OnMessage>
bool Splitter::feed(std::string_view octets, OnMessage&& on_message) {
  const bool joined = !partial_.empty();
  if (joined) {
    partial_.insert(partial_.end(), octets.begin(), octets.end());
    octets = {partial_.data(), partial_.size()};
  }
  std::size_t consumed = 0;
  for (;;) {
    const std::string_view rest = octets.substr(consumed);
    const sip::Framer::Result frame = framer_.next(rest);
    if (frame.outcome == sip::Framer::Outcome::kMalformed) return false;
    if (frame.outcome == sip::Framer::Outcome::kNeedMore) break;
    if (frame.outcome == sip::Framer::Outcome::kMessage) on_message(rest.substr(0, frame.length));
    consumed += frame.length;
  }
  if (joined) {
    partial_.erase(partial_.begin(), partial_.begin() + static_cast<std::ptrdiff_t>(consumed));
  } else if (consumed < octets.size()) {
    partial_.assign(octets.begin() + static_cast<std::ptrdiff_t>(consumed), octets.end());
  }
  return true;
}

}  // namespace ktrunk::bench
