// Only in programs that are built with KTRUNK_CRASH_POINTS.
#include "ipc/crash_point.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>

namespace ktrunk::ipc {
namespace {

// Before main(), as a worker may not open files later.
CrashOrder* map_order() {
  const char* file = std::getenv("KTRUNK_CRASH_FILE");
  const int descriptor = file != nullptr ? ::open(file, O_RDWR | O_CLOEXEC) : -1;
  if (descriptor < 0) return nullptr;
  void* memory = ::mmap(nullptr, sizeof(CrashOrder), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  ::close(descriptor);
  return memory != MAP_FAILED ? static_cast<CrashOrder*>(memory) : nullptr;
}

CrashOrder* const order = map_order();
const std::int32_t self = ::getpid();

}  // namespace

void crash_point() {
  if (order == nullptr || order->process.load() != self) return;
  if (order->points.load() == 0 || order->points.fetch_sub(1) != 1) return;
  order->reached.store(1);
  for (;;) __builtin_ia32_pause();  // until it is killed: no system call, for the worker may make few
}

}  // namespace ktrunk::ipc
