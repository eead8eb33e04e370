// Reactor: one io_uring and those who wait on it: the loop of the measuring programs. Built on ktrunkd's own ring
// (worker/ring.h), so that a measurement moves octets as the daemon does.
//
// One thread. A source is told of its own completions; what it must do once for everything that a turn brought (send,
// above all) it asks for with at_turn_end(). A source that has operations in the kernel must not be destroyed: it is
// given to retire().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "worker/ring.h"

namespace ktrunk::bench {

class Reactor;

// Who has operations in the ring.
class Source {
 public:
  virtual ~Source() = default;
  // what: the number that prepare() was given.
  virtual void completed(unsigned what, int result, unsigned flags) = 0;
  virtual void turn_ended() {}

 protected:
  Source() = default;
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;

 private:
  friend class Reactor;
  static constexpr std::uint32_t kNoPlace = 0xffffff;
  std::uint32_t place_ = kNoPlace;
  std::uint32_t operations_ = 0;
  bool wants_turn_end_ = false;
};

// What a multishot receive brought.
struct Received {
  std::string_view octets;             // they live during the call
  std::span<const std::byte> control;  // for ktls::record_type
  int flags = 0;
};

class Reactor {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Reactor>> create();
  ~Reactor();
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;

  // A submission of this source, to be filled in. what: 0 to 255, comes back with the completion.
  [[nodiscard]] io_uring_sqe* prepare(Source& source, unsigned what);
  // Arms a multishot recvmsg with room for the record type.
  void prepare_receive(Source& source, unsigned what, int fd);
  // The octets of such a receive's completion, which recycle() must follow.
  [[nodiscard]] std::optional<Received> received(int result, unsigned flags);
  void recycle(unsigned flags);

  // turn_ended() will be called once, before this turn's submissions go to the kernel.
  void at_turn_end(Source& source);
  // Takes a source that is not needed any more: its operations are cancelled, and it is destroyed once the last one has
  // completed. fd: what they are on.
  void retire(std::unique_ptr<Source> source, int fd);

  // Submits, waits for something to happen but at most until the deadline, and tells the sources.
  [[nodiscard]] Status turn(Clock::time_point deadline);
  [[nodiscard]] std::uint64_t turns() const { return turns_; }

 private:
  Reactor() = default;
  void attach(Source& source);
  void end_turn();
  void drop_retired();

  std::vector<Source*> places_;
  std::vector<std::uint32_t> free_places_;
  std::vector<Source*> turn_end_;
  std::vector<std::unique_ptr<Source>> retired_;
  std::uint64_t turns_ = 0;
  msghdr shape_{};
  worker::BufferRing* buffers_ = nullptr;  // the ring's
  std::unique_ptr<worker::Ring> ring_;
};

}  // namespace ktrunk::bench
