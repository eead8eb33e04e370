// Event loop: descriptors and timers of the supervisor and the handshake process, on one epoll instance (epoll(7),
// level-triggered). One thread; nothing in it blocks but turn(). A handler may end any watch or timer, its own
// included, and start new ones: what has been ended is never called again, not even for events that were already
// fetched.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <utility>

#include "base/fd.h"
#include "base/result.h"

namespace ktrunk {

using Clock = std::chrono::steady_clock;

// What a descriptor is waited for. kNothing keeps the watch but takes the descriptor out of epoll, which would report
// its hang-up over and over otherwise.
enum class Interest : std::uint8_t { kNothing = 0, kRead = 1, kWrite = 2, kReadWrite = 3 };
[[nodiscard]] constexpr Interest interest(bool read, bool write) {
  return static_cast<Interest>((read ? 1 : 0) | (write ? 2 : 0));
}

// What a descriptor is ready for. An error or a hang-up makes it ready for both: the next call tells which it was.
struct Ready {
  bool read = false;
  bool write = false;
};

class EventLoop {
  struct WatchEntry;
  using TimerKey = std::pair<Clock::time_point, std::uint64_t>;

 public:
  using Handler = std::function<void(Ready)>;
  using TimerHandler = std::function<void()>;

  // Watches a descriptor for as long as it lives. It must go (or be reset) before the descriptor is closed or given
  // away: epoll holds on to the open file behind it, which other processes may share. Does not own the descriptor.
  class Watch {
   public:
    Watch() = default;
    Watch(Watch&& other) noexcept : loop_(std::exchange(other.loop_, nullptr)), id_(other.id_) {}
    Watch& operator=(Watch&& other) noexcept;
    ~Watch() { reset(); }

    void set(Interest interest);  // nothing happens on an empty watch
    void reset();
    [[nodiscard]] bool active() const { return loop_ != nullptr; }

   private:
    friend class EventLoop;
    Watch(EventLoop& loop, std::uint64_t id) : loop_(&loop), id_(id) {}
    EventLoop* loop_ = nullptr;
    std::uint64_t id_ = 0;
  };

  // A time to come; called once, unless it goes before.
  class Timer {
   public:
    Timer() = default;
    Timer(Timer&& other) noexcept : loop_(std::exchange(other.loop_, nullptr)), key_(other.key_) {}
    Timer& operator=(Timer&& other) noexcept;
    ~Timer() { reset(); }

    void reset();
    [[nodiscard]] bool pending() const;

   private:
    friend class EventLoop;
    Timer(EventLoop& loop, TimerKey key) : loop_(&loop), key_(key) {}
    EventLoop* loop_ = nullptr;
    TimerKey key_{};
  };

  // Watches and timers point to the loop: it stays where it is and outlives them.
  [[nodiscard]] static Result<std::unique_ptr<EventLoop>> create();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Whom an event wakes when several processes (or loops) watch the same open file: kOne wakes one of them, as far as
  // the kernel can (EPOLLEXCLUSIVE): for listening sockets.
  enum class Wakes : std::uint8_t { kAll, kOne };
  // fd: open, and not watched already.
  [[nodiscard]] Result<Watch> watch(int fd, Interest interest, Handler handler, Wakes wakes = Wakes::kAll);
  // delay 0: in the next turn, after the descriptors that are ready then.
  [[nodiscard]] Timer after(Clock::duration delay, TimerHandler handler);

  // Waits for something to happen, at most max_wait, and calls the handlers of what has happened: at most
  // kEventsPerTurn descriptors and the timers that were due when the wait ended. Fails when epoll does.
  [[nodiscard]] Status turn(Clock::duration max_wait);

 private:
  static constexpr int kEventsPerTurn = 256;

  explicit EventLoop(Fd epoll) : epoll_(std::move(epoll)) {}
  [[nodiscard]] int apply(std::uint64_t id, WatchEntry& entry, Interest interest);
  void run_due_timers();

  Fd epoll_;
  std::uint64_t next_id_ = 1;  // never used twice, so that an event of an ended watch finds nothing
  std::unordered_map<std::uint64_t, std::shared_ptr<WatchEntry>> watches_;
  std::map<TimerKey, TimerHandler> timers_;
};

}  // namespace ktrunk
