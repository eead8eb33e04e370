#include "base/event_loop.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/log.h"

namespace ktrunk {

struct EventLoop::WatchEntry {
  int fd;
  Interest interest;
  Handler handler;
  Wakes wakes;
};

namespace {

std::uint32_t epoll_events(Interest interest) {
  std::uint32_t events = 0;
  if (interest == Interest::kRead || interest == Interest::kReadWrite) events |= EPOLLIN;
  if (interest == Interest::kWrite || interest == Interest::kReadWrite) events |= EPOLLOUT;
  return events;
}

}  // namespace

EventLoop::Watch& EventLoop::Watch::operator=(Watch&& other) noexcept {
  if (this != &other) {
    reset();
    loop_ = std::exchange(other.loop_, nullptr);
    id_ = other.id_;
  }
  return *this;
}

void EventLoop::Watch::set(Interest interest) {
  if (loop_ == nullptr) return;
  const auto found = loop_->watches_.find(id_);
  if (found == loop_->watches_.end() || found->second->interest == interest) return;
  if (const int code = loop_->apply(id_, *found->second, interest); code != 0)
    log::error("epoll_ctl on descriptor {}: {}", found->second->fd, errno_text(code));
}

void EventLoop::Watch::reset() {
  EventLoop* loop = std::exchange(loop_, nullptr);
  if (loop == nullptr) return;
  const auto found = loop->watches_.find(id_);
  if (found == loop->watches_.end()) return;
  (void)loop->apply(id_, *found->second, Interest::kNothing);
  // The handler may be running: turn() holds a reference to its entry until it returns.
  loop->watches_.erase(found);
}

EventLoop::Timer& EventLoop::Timer::operator=(Timer&& other) noexcept {
  if (this != &other) {
    reset();
    loop_ = std::exchange(other.loop_, nullptr);
    key_ = other.key_;
  }
  return *this;
}

void EventLoop::Timer::reset() {
  EventLoop* loop = std::exchange(loop_, nullptr);
  if (loop != nullptr) loop->timers_.erase(key_);
}

bool EventLoop::Timer::pending() const { return loop_ != nullptr && loop_->timers_.contains(key_); }

Result<std::unique_ptr<EventLoop>> EventLoop::create() {
  Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) return fail_errno(errno, "epoll_create1");
  return std::unique_ptr<EventLoop>(new EventLoop(std::move(epoll)));
}

int EventLoop::apply(std::uint64_t id, WatchEntry& entry, Interest interest) {
  epoll_event event = {.events = epoll_events(interest), .data = {.u64 = id}};
  int operation = EPOLL_CTL_MOD;
  if (entry.interest == Interest::kNothing) operation = EPOLL_CTL_ADD;
  if (interest == Interest::kNothing) operation = EPOLL_CTL_DEL;
  if (entry.interest == interest) return 0;
  if (entry.wakes == Wakes::kOne) {
    event.events |= EPOLLEXCLUSIVE;
    if (operation == EPOLL_CTL_MOD) {  // which the kernel does not take for such an entry
      if (::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, entry.fd, nullptr) != 0) return errno;
      entry.interest = Interest::kNothing;
      operation = EPOLL_CTL_ADD;
    }
  }
  if (::epoll_ctl(epoll_.get(), operation, entry.fd, &event) != 0) return errno;
  entry.interest = interest;
  return 0;
}

Result<EventLoop::Watch> EventLoop::watch(int fd, Interest interest, Handler handler, Wakes wakes) {
  const std::uint64_t id = next_id_++;
  auto entry = std::make_shared<WatchEntry>(fd, Interest::kNothing, std::move(handler), wakes);
  if (const int code = apply(id, *entry, interest); code != 0) return fail_errno(code, "epoll_ctl");
  watches_.emplace(id, std::move(entry));
  return Watch(*this, id);
}

EventLoop::Timer EventLoop::after(Clock::duration delay, TimerHandler handler) {
  const TimerKey key(Clock::now() + delay, next_id_++);
  timers_.emplace(key, std::move(handler));
  return {*this, key};
}

void EventLoop::run_due_timers() {
  // Those set by the handlers get a higher number than `last`: they wait for the next turn, even when due at once.
  const Clock::time_point now = Clock::now();
  const std::uint64_t last = next_id_;
  auto next = timers_.begin();
  while (next != timers_.end() && next->first.first <= now) {
    if (next->first.second >= last) {
      ++next;
      continue;
    }
    const TimerHandler handler = std::move(next->second);
    timers_.erase(next);
    handler();
    next = timers_.begin();  // the handler may have changed everything
  }
}

Status EventLoop::turn(Clock::duration max_wait) {
  using std::chrono::milliseconds;
  Clock::duration wait = std::max(max_wait, Clock::duration::zero());
  if (!timers_.empty()) wait = std::clamp(timers_.begin()->first.first - Clock::now(), Clock::duration::zero(), wait);
  // Rounded up: a timer that is due in 0.4 ms must not make the loop spin until then.
  constexpr std::int64_t kLongestMs = 60'000;
  const auto ms = static_cast<int>(std::min(std::chrono::ceil<milliseconds>(wait).count(), kLongestMs));

  std::array<epoll_event, kEventsPerTurn> events;
  const int ready = ::epoll_wait(epoll_.get(), events.data(), kEventsPerTurn, ms);
  if (ready < 0 && errno != EINTR) return fail_errno(errno, "epoll_wait");
  for (int i = 0; i < ready; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    const auto found = watches_.find(event.data.u64);
    if (found == watches_.end()) continue;
    const std::shared_ptr<WatchEntry> entry = found->second;
    const bool broken = (event.events & (EPOLLERR | EPOLLHUP)) != 0;
    entry->handler({.read = broken || (event.events & (EPOLLIN | EPOLLRDHUP)) != 0,
                    .write = broken || (event.events & EPOLLOUT) != 0});
  }
  run_due_timers();
  return {};
}

}  // namespace ktrunk
