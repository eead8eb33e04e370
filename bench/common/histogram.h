// Histogram: latencies in fixed memory, with a bounded relative error, in the manner of HdrHistogram: buckets that
// double, each divided into equal parts. Recording is an addition; two histograms of different processes can be merged.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace ktrunk::bench {

// Values are nanoseconds, 0 to 2^40 - 1 (18 minutes); longer ones count as the longest. What is read back is at most
// 1/128 (0.8 %) above what was recorded; below 256 ns, and for max(), exact.
class Histogram {
 public:
  Histogram() : counts_(kCounts) {}

  void record(std::uint64_t nanoseconds) {
    const std::uint64_t value = nanoseconds < kHighest ? nanoseconds : kHighest;
    ++counts_[place(value)];
    ++count_;
    sum_ += value;
    if (value > max_) max_ = value;
    if (value < min_) min_ = value;
  }
  void merge(const Histogram& other);
  void clear();

  [[nodiscard]] std::uint64_t count() const { return count_; }
  [[nodiscard]] std::uint64_t min() const { return count_ == 0 ? 0 : min_; }
  [[nodiscard]] std::uint64_t max() const { return max_; }
  [[nodiscard]] double mean() const {
    return count_ == 0 ? 0 : static_cast<double>(sum_) / static_cast<double>(count_);
  }
  // The value that `percent` of all recorded ones do not exceed (0 to 100); 0 when nothing was recorded.
  [[nodiscard]] std::uint64_t percentile(double percent) const;

  static constexpr unsigned kPartBits = 7;  // 128 parts of a bucket
  static constexpr unsigned kValueBits = 40;
  static constexpr std::uint64_t kHighest = (std::uint64_t{1} << kValueBits) - 1;

 private:
  static constexpr std::size_t kParts = std::size_t{1} << kPartBits;
  static constexpr std::size_t kCounts = kParts * (kValueBits - kPartBits + 1);

  // Values below 2 * kParts have a place of their own; above, the highest kPartBits + 1 bits tell the place.
  [[nodiscard]] static constexpr std::size_t place(std::uint64_t value) {
    const auto width = static_cast<unsigned>(std::bit_width(value | (kParts - 1)));
    const unsigned shift = width - kPartBits;
    const std::size_t bucket = shift == 0 ? 0 : shift - 1;
    return bucket * kParts + (value >> bucket);
  }
  // The highest value of a place.
  [[nodiscard]] static constexpr std::uint64_t highest_of(std::size_t place) {
    const std::size_t bucket = place < 2 * kParts ? 0 : place / kParts - 1;
    const std::uint64_t part = place - bucket * kParts;
    return ((part + 1) << bucket) - 1;
  }

  std::vector<std::uint64_t> counts_;
  std::uint64_t count_ = 0;
  std::uint64_t sum_ = 0;
  std::uint64_t min_ = kHighest;
  std::uint64_t max_ = 0;
};

}  // namespace ktrunk::bench
