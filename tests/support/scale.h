// KTRUNK_TEST_SCALE: what long tests divide their sizes by, where time is short.
#pragma once

#include <algorithm>
#include <cstdlib>

namespace ktrunk::test {

// 1 where it is not set.
inline unsigned scale() {
  const char* text = std::getenv("KTRUNK_TEST_SCALE");
  return text == nullptr ? 1 : std::max(1U, static_cast<unsigned>(std::strtoul(text, nullptr, 10)));
}

}  // namespace ktrunk::test
