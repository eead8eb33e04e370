// The histogram's promise: what is read back is what was recorded, or at most 1/128 above it, whatever was recorded.
#include "bench/common/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace ktrunk::bench {
namespace {

constexpr double kPercents[] = {0, 0.1, 1, 10, 50, 90, 99, 99.9, 99.99, 100};

// The exact answer: the smallest recorded value that so many do not exceed.
std::uint64_t exact(const std::vector<std::uint64_t>& sorted, double percent) {
  const auto rank = static_cast<std::size_t>(std::ceil(percent / 100 * static_cast<double>(sorted.size())));
  return sorted[std::max<std::size_t>(rank, 1) - 1];
}

void expect_close(std::uint64_t found, std::uint64_t wanted) {
  EXPECT_GE(found, wanted);
  EXPECT_LE(found, wanted + wanted / 128 + (wanted < 256 ? 0 : 1));
}

TEST(Histogram, IsEmptyAtFirst) {
  const Histogram empty;
  EXPECT_EQ(empty.count(), 0u);
  EXPECT_EQ(empty.min(), 0u);
  EXPECT_EQ(empty.max(), 0u);
  EXPECT_EQ(empty.mean(), 0);
  for (const double percent : kPercents) EXPECT_EQ(empty.percentile(percent), 0u);
}

TEST(Histogram, KeepsEveryMagnitude) {
  for (unsigned bit = 0; bit < Histogram::kValueBits; ++bit) {
    for (const std::int64_t around : {-1, 0, 1}) {
      const std::uint64_t value = (std::uint64_t{1} << bit) + static_cast<std::uint64_t>(around);
      Histogram one;
      one.record(value);
      // The only value is the highest too, and that is exact.
      EXPECT_EQ(one.percentile(50), value);
      EXPECT_EQ(one.min(), value);
      EXPECT_EQ(one.max(), value);
      one.record(Histogram::kHighest);
      expect_close(one.percentile(50), value);
    }
  }
}

TEST(Histogram, SmallValuesAreExact) {
  Histogram all;
  for (std::uint64_t value = 0; value < 256; ++value) all.record(value);
  for (std::uint64_t value = 0; value < 256; ++value)
    EXPECT_EQ(all.percentile(100.0 * static_cast<double>(value + 1) / 256), value);
}

TEST(Histogram, TooLongCountsAsTheLongest) {
  Histogram one;
  one.record(~std::uint64_t{0});
  one.record(Histogram::kHighest + 1);
  EXPECT_EQ(one.max(), Histogram::kHighest);
  EXPECT_EQ(one.percentile(50), Histogram::kHighest);
  EXPECT_EQ(one.count(), 2u);
}

TEST(Histogram, AgreesWithSortedValues) {
  std::mt19937_64 random(20);
  for (const double spread : {3.0, 9.0, 18.0, 27.0}) {
    std::lognormal_distribution<double> latencies(spread / 2, spread / 6);
    Histogram histogram;
    std::vector<std::uint64_t> values;
    for (int i = 0; i < 20'000; ++i) {
      values.push_back(std::min(static_cast<std::uint64_t>(std::min(latencies(random), 1e12)), Histogram::kHighest));
      histogram.record(values.back());
    }
    std::ranges::sort(values);
    for (const double percent : kPercents) {
      SCOPED_TRACE(percent);
      expect_close(histogram.percentile(percent), exact(values, percent));
    }
    EXPECT_EQ(histogram.min(), values.front());
    EXPECT_EQ(histogram.max(), values.back());
  }
}

TEST(Histogram, MergedIsAsRecordedInOne) {
  std::mt19937_64 random(21);
  Histogram all;
  Histogram parts[3];
  for (int i = 0; i < 10'000; ++i) {
    const std::uint64_t value = random() >> (24 + random() % 40);
    all.record(value);
    parts[static_cast<std::size_t>(i) % 3].record(value);
  }
  Histogram merged;
  merged.merge(Histogram());
  for (const Histogram& part : parts) merged.merge(part);
  EXPECT_EQ(merged.count(), all.count());
  EXPECT_EQ(merged.mean(), all.mean());
  EXPECT_EQ(merged.min(), all.min());
  EXPECT_EQ(merged.max(), all.max());
  for (const double percent : kPercents) EXPECT_EQ(merged.percentile(percent), all.percentile(percent));
}

TEST(Histogram, ClearedIsNew) {
  Histogram used;
  for (std::uint64_t value = 1; value < 1'000'000; value *= 3) used.record(value);
  used.clear();
  EXPECT_EQ(used.count(), 0u);
  EXPECT_EQ(used.max(), 0u);
  EXPECT_EQ(used.percentile(100), 0u);
  used.record(7);
  EXPECT_EQ(used.min(), 7u);
  EXPECT_EQ(used.percentile(100), 7u);
}

}  // namespace
}  // namespace ktrunk::bench
