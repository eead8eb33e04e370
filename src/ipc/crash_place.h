// What a test shares with the processes that it stops at crash points (crash_point.h): the order, and where in its
// program the process stands that has reached its point, so that a test can say which stores it has tried.
#pragma once

#include <atomic>
#include <cstdint>

#include "ipc/crash_point.h"

namespace ktrunk::ipc {

struct CrashFile {
  CrashOrder order;
  std::atomic<std::uint64_t> place{0};  // address in the program's file; written before `reached`
};

}  // namespace ktrunk::ipc
