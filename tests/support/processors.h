// Tests that need several processors, or one alone.
#pragma once

#include <sched.h>

#include "base/processors.h"

namespace ktrunk::test {

// While it lives this thread, and what it starts, has one processor alone.
class OneProcessor {
 public:
  OneProcessor() {
    CPU_ZERO(&before_);
    ok_ = ::sched_getaffinity(0, sizeof before_, &before_) == 0;
    cpu_set_t one;
    CPU_ZERO(&one);
    for (int each = 0; each < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++each) {
      if (CPU_ISSET(each, &before_)) CPU_SET(each, &one);
    }
    ok_ = ok_ && ::sched_setaffinity(0, sizeof one, &one) == 0;
  }
  ~OneProcessor() {
    if (ok_) (void)::sched_setaffinity(0, sizeof before_, &before_);
  }
  OneProcessor(const OneProcessor&) = delete;
  OneProcessor& operator=(const OneProcessor&) = delete;
  [[nodiscard]] bool ok() const { return ok_; }

 private:
  cpu_set_t before_;
  bool ok_ = false;
};

}  // namespace ktrunk::test

// At the start of a test body: skips it where nothing can be spread.
#define KTRUNK_REQUIRE_TWO_PROCESSORS() \
  if (::ktrunk::processors() < 2) GTEST_SKIP() << "one processor alone: nothing is spread over workers"
