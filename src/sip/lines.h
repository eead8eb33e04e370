// LineFeeds: where the lines of a header section end, as framer and parser both need it: octets are looked at sixteen
// at a time, once. Pure; the text must stay where it is.
#pragma once

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace ktrunk::sip {

class LineFeeds {
 public:
  static constexpr std::size_t kNone = ~std::size_t{0};

  // Those at text[from] up to, not including, text[end].
  LineFeeds(std::string_view text, std::size_t from, std::size_t end) : text_(text.data()), next_(from), end_(end) {}

  // The offset of the next one; kNone when there is no other.
  [[nodiscard]] std::size_t next() {
    while (feeds_ == 0) {
      if (next_ >= end_) return kNone;
      load();
    }
    const std::size_t feed = block_ + static_cast<std::size_t>(std::countr_zero(feeds_));
    feeds_ &= feeds_ - 1;
    return feed;
  }
  // Whether a CR without LF stands before that offset, which next() has given.
  [[nodiscard]] bool stray_return_before(std::size_t feed) const { return stray_ < feed; }

 private:
  static constexpr std::size_t kBlock = 32;

  void load() {
    block_ = next_;
    const std::size_t size = std::min(kBlock, end_ - block_);
    next_ += size;
    const char* octets = text_ + block_;
    char last[kBlock] = {};
    if (size < kBlock) {
      std::memcpy(last, octets, size);
      octets = last;
    }
    feeds_ = mask(octets, '\n');
    const std::uint32_t returns = mask(octets, '\r');
    // The octet behind each CR must be an LF; the first of a block may be behind the last of the block before.
    const std::uint32_t strays = (returns << 1 | open_return_) & ~feeds_;
    open_return_ = returns >> (kBlock - 1);
    if (strays != 0 && stray_ == kNone) stray_ = block_ + static_cast<std::size_t>(std::countr_zero(strays)) - 1;
  }

  // A bit for each of a block's octets that is `wanted`.
  static std::uint32_t mask(const char* octets, char wanted) {
#if defined(__SSE2__)
    __m128i low, high;
    std::memcpy(&low, octets, sizeof low);
    std::memcpy(&high, octets + sizeof low, sizeof high);
    const __m128i all = _mm_set1_epi8(wanted);
    const auto bits = [all](__m128i half) {
      return static_cast<std::uint32_t>(_mm_movemask_epi8(_mm_cmpeq_epi8(half, all)));
    };
    return bits(high) << 16 | bits(low);
#else
    std::uint32_t bits = 0;
    for (std::size_t i = 0; i < kBlock; ++i) bits |= std::uint32_t{octets[i] == wanted} << i;
    return bits;
#endif
  }

  const char* text_;
  std::size_t next_;  // the block to look at next
  std::size_t end_;
  std::size_t block_ = 0;  // the one looked at
  std::size_t stray_ = kNone;
  std::uint32_t feeds_ = 0;  // of it, that are not given out yet
  std::uint32_t open_return_ = 0;
};

}  // namespace ktrunk::sip
