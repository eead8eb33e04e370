// Crash points: places where a process changes what others see, and where a test can make it stop for ever, as if it
// had died there. Nothing at all but in a build with KTRUNK_CRASH_POINTS, which is for tests (the file is named by the
// environment variable KTRUNK_CRASH_FILE).
#pragma once

#include <atomic>
#include <cstdint>

namespace ktrunk::ipc {

// The file, mapped by the test and by every process that it starts.
struct CrashOrder {
  std::atomic<std::int32_t> process{0};   // whom it is for; writer: the test, last
  std::atomic<std::uint32_t> points{0};   // it stops at this one, counted from 1 and down to 0; 0: it does not
  std::atomic<std::uint32_t> reached{0};  // 1: there it stands; writer: the process
};
static_assert(sizeof(CrashOrder) == 12);

#ifdef KTRUNK_CRASH_POINTS
void crash_point();
#else
inline void crash_point() {}
#endif

}  // namespace ktrunk::ipc
