// Stream: one connection of a measuring program, its handshake done: TCP, TLS by the kernel, or TLS by OpenSSL.
// Sending is the daemon's (worker/sender.h): messages are gathered into blocks of at most 16384 octets, one block in
// flight; what is written during a turn of the loop leaves at its end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/address.h"
#include "base/fd.h"
#include "bench/common/report.h"
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

[[nodiscard]] Json stream_kind_json(const StreamKind& kind);

class Stream : public Source {
 public:
  // user: outlives the stream. number: the user's own, to find what belongs to the stream. kNever: what comes stays in
  // the kernel, and that the peer has ended the stream shows when something is sent.
  enum class Receiving : std::uint8_t { kAlways, kNever };
  void start(StreamUser& user, std::size_t number, Receiving receiving = Receiving::kAlways);

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
  // Takes messages from the front of `octets` as long as they are whole.
  template <typename OnMessage>
  [[nodiscard]] bool take(std::string_view& octets, OnMessage& on_message);

  static constexpr std::size_t kMaxMessageBytes = 65535;
  static constexpr std::size_t kPiece = 512;  // of what follows a message's beginning, copied behind it
  sip::Framer framer_{kMaxMessageBytes};
  std::string partial_;
};

template <typename OnMessage>
bool Splitter::take(std::string_view& octets, OnMessage& on_message) {
  while (!octets.empty()) {
    const sip::Framer::Result frame = framer_.next(octets);
    if (frame.outcome == sip::Framer::Outcome::kMalformed) return false;
    if (frame.outcome == sip::Framer::Outcome::kNeedMore) break;
    if (frame.outcome == sip::Framer::Outcome::kMessage) on_message(octets.substr(0, frame.length));
    octets.remove_prefix(frame.length);
  }
  return true;
}

template <typename OnMessage>
bool Splitter::feed(std::string_view octets, OnMessage&& on_message) {
  // A message that was cut is put together; what is behind it is taken where it lies.
  while (!partial_.empty() && !octets.empty()) {
    const std::string_view piece = octets.substr(0, kPiece);
    partial_ += piece;
    std::string_view rest = partial_;
    if (!take(rest, on_message)) return false;
    if (rest.size() == partial_.size() || rest.size() > piece.size()) {
      octets.remove_prefix(piece.size());
      partial_.erase(0, partial_.size() - rest.size());
    } else {
      octets.remove_prefix(piece.size() - rest.size());
      partial_.clear();
    }
  }
  if (!take(octets, on_message)) return false;
  partial_ += octets;
  return true;
}

}  // namespace ktrunk::bench
