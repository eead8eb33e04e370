// Block: octets looked at thirty-two at a time, as everything that scans a message does. Pure; the text must stay where
// it is.
#pragma once

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace ktrunk::sip {

// A set of ASCII characters in the two forms in which octets are looked up: a table of sixteen rows, in which bit h of
// row l stands for the character 16 * h + l.
struct CharacterSet {
  std::array<std::uint8_t, 16> rows{};

  constexpr CharacterSet() = default;
  template <typename Holds>
  consteval explicit CharacterSet(Holds holds) {
    for (unsigned i = 0; i < 128; ++i)
      if (holds(static_cast<char>(i))) rows[i & 15] = static_cast<std::uint8_t>(rows[i & 15] | 1u << (i >> 4));
  }
  [[nodiscard]] constexpr bool has(char c) const {
    const auto octet = static_cast<unsigned char>(c);
    return octet < 128 && (rows[octet & 15] >> (octet >> 4) & 1) != 0;
  }
};

// An octet to look for. Made once before a loop: to spread it over a register takes as long as to look.
class Octet {
 public:
#if defined(__AVX2__)
  explicit Octet(char octet) : all_(_mm256_set1_epi8(octet)) {}

 private:
  friend class Block;
  __m256i all_;
#else
  explicit Octet(char octet) : all_(octet) {}

 private:
  friend class Block;
  char all_;
#endif
};

class Block {
 public:
  static constexpr std::size_t kOctets = 32;

  // The first 32 of `size` octets, at least one; the bits of masks for octets behind them say nothing. May read on
  // behind the text, never beyond its page; under a sanitizer it does not.
  explicit Block(const char* octets, std::size_t size) {
#if defined(__AVX2__)
    if (size >= kOctets || may_read_on(octets)) {
      asm("" : "+r"(octets));  // the compiler must not reason from where the text ends
      octets_ = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(octets));
    } else {
      alignas(32) char copy[kOctets] = {};
      std::memcpy(copy, octets, size);
      octets_ = _mm256_load_si256(reinterpret_cast<const __m256i*>(copy));
    }
#else
    std::memcpy(octets_.data(), octets, std::min(size, kOctets));
#endif
  }

  // A bit for each octet that is `wanted`.
  [[nodiscard]] std::uint32_t equal_to(const Octet& wanted) const {
#if defined(__AVX2__)
    return mask(_mm256_cmpeq_epi8(octets_, wanted.all_));
#else
    return mask_of([&wanted](char c) { return c == wanted.all_; });
#endif
  }
  [[nodiscard]] std::uint32_t equal_to(char wanted) const { return equal_to(Octet(wanted)); }
  // A bit for each octet that is not in the set.
  [[nodiscard]] std::uint32_t outside(const CharacterSet& set) const {
#if defined(__AVX2__)
    const __m256i rows =
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(set.rows.data())));
    const __m256i columns = _mm256_setr_epi8(1, 2, 4, 8, 16, 32, 64, -128, 0, 0, 0, 0, 0, 0, 0, 0,  //
                                             1, 2, 4, 8, 16, 32, 64, -128, 0, 0, 0, 0, 0, 0, 0, 0);
    // pshufb takes the low half of each octet, and gives 0 for octets from 128 on.
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(octets_, 4), _mm256_set1_epi8(15));
    const __m256i found = _mm256_and_si256(_mm256_shuffle_epi8(rows, octets_), _mm256_shuffle_epi8(columns, high));
    return mask(_mm256_cmpeq_epi8(found, _mm256_setzero_si256()));
#else
    return mask_of([&set](char c) { return !set.has(c); });
#endif
  }

 private:
#if defined(__AVX2__)
  static bool may_read_on(const char* octets) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    (void)octets;
    return false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    (void)octets;
    return false;
#endif
#endif
    constexpr std::size_t kPage = 4096;
    return (reinterpret_cast<std::uintptr_t>(octets) & (kPage - 1)) <= kPage - kOctets;
  }
  static std::uint32_t mask(__m256i octets) { return static_cast<std::uint32_t>(_mm256_movemask_epi8(octets)); }

  __m256i octets_;
#else
  template <typename Holds>
  [[nodiscard]] std::uint32_t mask_of(Holds&& holds) const {
    std::uint32_t bits = 0;
    for (std::size_t i = 0; i < kOctets; ++i) bits |= std::uint32_t{holds(octets_[i])} << i;
    return bits;
  }

  std::array<char, kOctets> octets_{};
#endif
};

// Sixty-four octets, of which the same holds.
class Block64 {
 public:
  static constexpr std::size_t kOctets = 2 * Block::kOctets;

  explicit Block64(const char* octets, std::size_t size)
      : valid_(size < kOctets ? (std::uint64_t{1} << size) - 1 : ~std::uint64_t{0}),
        low_(octets, size),
        high_(octets + (size > Block::kOctets ? Block::kOctets : 0),
              size > Block::kOctets ? size - Block::kOctets : size) {}

  // Of the octets that there are.
  [[nodiscard]] std::uint64_t valid() const { return valid_; }
  [[nodiscard]] std::uint64_t equal_to(const Octet& wanted) const {
    return (low_.equal_to(wanted) | std::uint64_t{high_.equal_to(wanted)} << Block::kOctets) & valid_;
  }
  [[nodiscard]] std::uint64_t outside(const CharacterSet& set) const {
    return (low_.outside(set) | std::uint64_t{high_.outside(set)} << Block::kOctets) & valid_;
  }

 private:
  std::uint64_t valid_;
  Block low_, high_;
};

// Where the first such octet stands, from an offset on; the text's size when there is none.
[[nodiscard, gnu::always_inline]] inline std::size_t find_octet(std::string_view text, char octet,
                                                                std::size_t from = 0) {
  const Octet wanted(octet);
  for (; from < text.size(); from += Block::kOctets) {
    if (const std::uint32_t found = Block(text.data() + from, text.size() - from).equal_to(wanted); found != 0)
      return std::min(from + static_cast<std::size_t>(std::countr_zero(found)), text.size());
  }
  return text.size();
}

// Where the first octet outside a set stands, from an offset on; the text's size when there is none.
[[nodiscard, gnu::always_inline]] inline std::size_t span_of(const CharacterSet& set, std::string_view text,
                                                             std::size_t from = 0) {
  for (; from < text.size(); from += Block::kOctets) {
    if (const std::uint32_t found = Block(text.data() + from, text.size() - from).outside(set); found != 0)
      return std::min(from + static_cast<std::size_t>(std::countr_zero(found)), text.size());
  }
  return text.size();
}

// Copies octets that do not overlap. As a rule they are few, and a call of memcpy costs as much as they do.
inline void copy_octets(char* to, const char* from, std::size_t size) {
  const auto both_ends = [&]<typename Part>(Part) {  // two parts that overlap where there are fewer octets
    Part first, last;
    std::memcpy(&first, from, sizeof first);
    std::memcpy(&last, from + size - sizeof last, sizeof last);
    std::memcpy(to, &first, sizeof first);
    std::memcpy(to + size - sizeof last, &last, sizeof last);
  };
  struct Sixteen {
    std::uint64_t halves[2];
  };
  struct ThirtyTwo {
    std::uint64_t quarters[4];
  };
  if (size >= 32) {
    for (; size > 128; size -= 64, to += 64, from += 64) {
      std::memcpy(to, from, 32);
      std::memcpy(to + 32, from + 32, 32);
    }
    for (; size > 64; size -= 32, to += 32, from += 32) std::memcpy(to, from, 32);
    both_ends(ThirtyTwo{});
  } else if (size >= 16) {
    both_ends(Sixteen{});
  } else if (size >= 8) {
    both_ends(std::uint64_t{});
  } else if (size >= 4) {
    both_ends(std::uint32_t{});
  } else if (size >= 2) {
    both_ends(std::uint16_t{});
  } else if (size == 1) {
    *to = *from;
  }
}

}  // namespace ktrunk::sip
