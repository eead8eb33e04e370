// The processors that this process, and what it starts, may run on.
#pragma once

#include <sched.h>

namespace ktrunk {

// CPU_SETSIZE stands for more than that.
[[nodiscard]] inline int processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return ::sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : CPU_SETSIZE;
}

}  // namespace ktrunk
