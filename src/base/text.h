// Text: characters of bounded length in a fixed place, for messages between processes and for shared memory.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <string_view>

namespace ktrunk {

// Longer text is cut. Bytes from elsewhere may lack the terminating NUL: view() ends within the array all the same.
template <std::size_t N>
struct Text {
  std::array<char, N> bytes{};

  Text() = default;
  explicit Text(std::string_view text) { std::copy_n(text.data(), std::min(text.size(), N - 1), bytes.data()); }
  [[nodiscard]] std::string_view view() const { return {bytes.data(), ::strnlen(bytes.data(), N - 1)}; }
};

}  // namespace ktrunk
