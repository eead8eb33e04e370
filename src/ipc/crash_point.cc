// Only in programs that are built with KTRUNK_CRASH_POINTS.
#include "ipc/crash_point.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>

#include "ipc/crash_place.h"

extern "C" const char __ehdr_start;  // where the program begins in memory; the linker's

namespace ktrunk::ipc {
namespace {

// Before main(), as a worker may not open files later.
CrashFile* map_file() {
  const char* name = std::getenv("KTRUNK_CRASH_FILE");
  const int descriptor = name != nullptr ? ::open(name, O_RDWR | O_CLOEXEC) : -1;
  if (descriptor < 0) return nullptr;
  void* memory = ::mmap(nullptr, sizeof(CrashFile), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  ::close(descriptor);
  return memory != MAP_FAILED ? static_cast<CrashFile*>(memory) : nullptr;
}

CrashFile* const file = map_file();
const std::int32_t self = ::getpid();

}  // namespace

[[gnu::noinline]] void crash_point() {
  if (file == nullptr || file->order.process.load() != self) return;
  if (file->order.points.load() == 0 || file->order.points.fetch_sub(1) != 1) return;
  file->place.store(static_cast<std::uint64_t>(static_cast<const char*>(__builtin_return_address(0)) - &__ehdr_start));
  file->order.reached.store(1);
  for (;;) __builtin_ia32_pause();  // until it is killed: no system call, for the worker may make few
}

}  // namespace ktrunk::ipc
