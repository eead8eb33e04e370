// Trunk limits: what all workers together may send to one trunk, counted in shared memory without a lock. Every change
// is one atomic store, so that a worker may die at any instruction.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>

#include "ipc/shared.h"

namespace ktrunk::ipc {

// A token bucket (as GCRA: one word, the time at which the bucket will be full again) of a second's worth. Writers: all
// workers, by compare and exchange.
class RateLimit {
 public:
  // Takes one, if there is one. per_second: at least 1.
  [[nodiscard]] bool take(std::uint32_t per_second, std::chrono::steady_clock::time_point now) {
    constexpr std::uint64_t kSecond = 1'000'000'000;
    const auto at = static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(now.time_since_epoch()).count());
    const std::uint64_t each = kSecond / per_second;
    std::uint64_t full_at = full_at_.load(std::memory_order_relaxed);
    for (;;) {  // until no other worker took one at this instant
      const std::uint64_t next = std::max(full_at, at) + each;
      if (next - at > kSecond) return false;
      if (full_at_.compare_exchange_weak(full_at, next, std::memory_order_relaxed)) return true;
    }
  }

 private:
  Shared<std::uint64_t> full_at_{0};  // nanoseconds
};

// The INVITE transactions that are under way, by transaction_hash(): put in when the INVITE is sent on, taken out by
// its final response, or by Timer C (RFC 3261 16.6 step 11) if none comes. A retransmission, of either, finds or does
// not find the same entry, and changes nothing. A hash of 40 bits stands for the transaction, in one of kWays places:
// two transactions that share both count once.
//
// `words` is four times as long as the limit (words_for()), so that a place is found; where none is, the INVITE counts
// as one too many. `count` follows the words, and is set anew by recount(): it may be wrong by the workers that died
// between the two, for a second.
class InviteTable {
 public:
  static constexpr std::chrono::seconds kTimerC{180};

  [[nodiscard]] static std::uint32_t words_for(std::uint32_t most) {
    return most == 0 ? 0 : std::max<std::uint32_t>(64, 4 * most);
  }
  // lifetime: of an INVITE that nothing ends.
  InviteTable(std::span<Shared<std::uint64_t>> words, Shared<std::uint32_t>& count,
              std::chrono::seconds lifetime = kTimerC)
      : words_(words), count_(count), lifetime_(lifetime) {}

  enum class Begun : std::uint8_t { kNew, kKnown, kTooMany };
  [[nodiscard]] Begun begin(std::uint64_t transaction, std::uint32_t most, std::chrono::steady_clock::time_point now) {
    const std::uint64_t word = tag_of(transaction) | expiry(now, lifetime_);
    Shared<std::uint64_t>* free = nullptr;
    for (unsigned way = 0; way < kWays; ++way) {
      Shared<std::uint64_t>& place = place_of(transaction, way);
      const std::uint64_t there = place.load(std::memory_order_relaxed);
      if (there != 0 && (there & kTag) == (word & kTag) && !is_over(there, now)) return Begun::kKnown;
      if (free == nullptr && there == 0) free = &place;
    }
    if (free == nullptr) return Begun::kTooMany;
    if (count_.fetch_add(1, std::memory_order_relaxed) < most) {
      std::uint64_t nothing = 0;
      if (free->compare_exchange_strong(nothing, word, std::memory_order_relaxed)) return Begun::kNew;
    }
    count_.fetch_sub(1, std::memory_order_relaxed);
    return Begun::kTooMany;
  }
  [[nodiscard]] bool holds(std::uint64_t transaction, std::chrono::steady_clock::time_point now) const {
    for (unsigned way = 0; way < kWays; ++way) {
      const std::uint64_t there = place_of(transaction, way).load(std::memory_order_relaxed);
      if (there != 0 && (there & kTag) == tag_of(transaction) && !is_over(there, now)) return true;
    }
    return false;
  }
  // It ends when so much time has passed; at most the table's lifetime.
  void end_after(std::uint64_t transaction, std::chrono::seconds time, std::chrono::steady_clock::time_point now) {
    const std::uint64_t tag = tag_of(transaction);
    for (unsigned way = 0; way < kWays; ++way) {
      Shared<std::uint64_t>& place = place_of(transaction, way);
      std::uint64_t there = place.load(std::memory_order_relaxed);
      if (there != 0 && (there & kTag) == tag && !is_over(there, now))
        place.compare_exchange_strong(there, tag | expiry(now, time), std::memory_order_relaxed);
    }
  }
  void end(std::uint64_t transaction) {
    const std::uint64_t tag = tag_of(transaction);
    for (unsigned way = 0; way < kWays; ++way) {
      Shared<std::uint64_t>& place = place_of(transaction, way);
      std::uint64_t there = place.load(std::memory_order_relaxed);
      if (there == 0 || (there & kTag) != tag) continue;
      if (place.compare_exchange_strong(there, 0, std::memory_order_relaxed))
        count_.fetch_sub(1, std::memory_order_relaxed);
    }
  }
  // Takes out those whose time is over, and counts the others. By one worker, about once a second.
  void recount(std::chrono::steady_clock::time_point now) {
    std::uint32_t count = 0;
    for (Shared<std::uint64_t>& place : words_) {
      std::uint64_t there = place.load(std::memory_order_relaxed);
      if (there != 0 && is_over(there, now)) place.compare_exchange_strong(there, 0, std::memory_order_relaxed);
      if (place.load(std::memory_order_relaxed) != 0) ++count;
    }
    count_.store(count, std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint32_t count() const { return count_.load(std::memory_order_relaxed); }

 private:
  static constexpr unsigned kWays = 16;
  static constexpr std::uint64_t kSeconds = (1u << 24) - 1;  // enough for half a year of the clock, then round again
  static constexpr std::uint64_t kTag = ~kSeconds;

  [[nodiscard]] static std::uint64_t tag_of(std::uint64_t transaction) { return (transaction << 24) | (1u << 24); }
  [[nodiscard]] static std::uint64_t seconds(std::chrono::steady_clock::time_point now) {
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(now.time_since_epoch()).count());
  }
  [[nodiscard]] static std::uint64_t expiry(std::chrono::steady_clock::time_point now, std::chrono::seconds time) {
    return (seconds(now) + static_cast<std::uint64_t>(time.count())) & kSeconds;
  }
  [[nodiscard]] bool is_over(std::uint64_t word, std::chrono::steady_clock::time_point now) const {
    const std::uint64_t left = ((word & kSeconds) - seconds(now)) & kSeconds;
    return left == 0 || left > static_cast<std::uint64_t>(lifetime_.count());
  }
  [[nodiscard]] Shared<std::uint64_t>& place_of(std::uint64_t transaction, unsigned way) const {
    return words_[(static_cast<std::size_t>(transaction >> 24) + way) % words_.size()];
  }

  std::span<Shared<std::uint64_t>> words_;
  Shared<std::uint32_t>& count_;
  std::chrono::seconds lifetime_;
};

// INVITEs to UDP targets that went by TCP (trunk.large_requests): so many of one trunk are known at once, and so long
// while they are not answered; longer than a phone rings.
inline constexpr std::uint32_t kMostLargeInvites = 2048;
inline constexpr std::chrono::seconds kLargeInviteLifetime{600};

}  // namespace ktrunk::ipc
