#include "base/spare_memory.h"

#include <malloc.h>

namespace ktrunk {
namespace {

// Fewer are not worth a walk through the heap.
constexpr std::size_t kMany = 500;

}  // namespace

void SpareMemory::look() {
  if (freed_ < kMany) return;
  freed_ = 0;
  (void)::malloc_trim(0);
}

}  // namespace ktrunk
