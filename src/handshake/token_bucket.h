// Token bucket: how many of something may still happen: so many at once, and so many a second for good. It holds its
// level alone; the limits are its owner's, as one pair of them serves thousands of buckets. Pure: the time is passed
// in.
#pragma once

#include <algorithm>

#include "base/event_loop.h"

namespace ktrunk::handshake {

class TokenBucket {
 public:
  struct Limits {
    double burst;
    double per_second;
  };

  // Full.
  TokenBucket(const Limits& limits, Clock::time_point now) : level_(limits.burst), counted_(now) {}

  // One happens now. False: it is one too many, and is not counted.
  [[nodiscard]] bool take(const Limits& limits, Clock::time_point now) {
    fill(limits, now);
    if (level_ < 1) return false;
    level_ -= 1;
    return true;
  }
  [[nodiscard]] bool full(const Limits& limits, Clock::time_point now) {
    fill(limits, now);
    return level_ >= limits.burst;
  }
  // When it was last looked at.
  [[nodiscard]] Clock::time_point counted() const { return counted_; }

 private:
  void fill(const Limits& limits, Clock::time_point now) {
    const double since = std::chrono::duration<double>(std::max(now - counted_, Clock::duration::zero())).count();
    counted_ = now;
    level_ = std::min(limits.burst, level_ + since * limits.per_second);
  }
  double level_;
  Clock::time_point counted_;
};

}  // namespace ktrunk::handshake
