// SpareMemory: gives memory that a crowd of connections has left behind back to the system. The C library keeps what is
// freed for later, all of it; after thousands of connections have gone that is worth the time to look for it.
#pragma once

#include <cstddef>

namespace ktrunk {

class SpareMemory {
 public:
  // One connection more has gone.
  void freed() { ++freed_; }
  // At a quiet moment, now and then.
  void look();

 private:
  std::size_t freed_ = 0;  // since memory was last given back
};

}  // namespace ktrunk
