// Back-off: how long to wait before the next try, longer after every failure, and never the same twice, so that many
// who have lost the same peer do not come back all at once.
#pragma once

#include <algorithm>
#include <random>

#include "base/event_loop.h"

namespace ktrunk::handshake {

class BackOff {
 public:
  // The first wait is between least and 1.5 times that; each further one doubles; none is longer than most.
  BackOff(Clock::duration least, Clock::duration most) : least_(least), most_(most) {}

  [[nodiscard]] Clock::duration next() {
    const auto span = std::min(least_ * (std::int64_t{1} << doublings_), most_);
    if (span < most_) ++doublings_;
    // At the ceiling the spread goes below it: two thirds of most, to most.
    const auto base = std::min(span, most_ * 2 / 3);
    return base + Clock::duration(std::uniform_int_distribution<Clock::rep>(0, base.count() / 2)(random()));
  }
  void reset() { doublings_ = 0; }

 private:
  static std::minstd_rand& random() {
    static std::minstd_rand generator(std::random_device{}());
    return generator;
  }
  Clock::duration least_;
  Clock::duration most_;
  int doublings_ = 0;  // least_ * 2^doublings_ stays below 2 * most_
};

}  // namespace ktrunk::handshake
