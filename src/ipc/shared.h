// Shared<T>: an atomic in memory that several processes map, and that one of them may leave as it is at any moment by
// dying. It is std::atomic; in a build with KTRUNK_CRASH_POINTS every store to one is also a place where a test can
// make the process stop for ever, to be killed there (crash_point.h), so that each order of stores that is argued for
// in these headers is tried store by store.
#pragma once

#include <atomic>
#include <cstdint>

#include "ipc/crash_point.h"

namespace ktrunk::ipc {

#ifndef KTRUNK_CRASH_POINTS

template <typename T>
using Shared = std::atomic<T>;

#else

template <typename T>
class Shared : private std::atomic<T> {
  using Base = std::atomic<T>;

 public:
  using Base::Base;
  using Base::is_always_lock_free;
  using Base::load;
  void store(T value, std::memory_order order = std::memory_order_seq_cst) {
    Base::store(value, order);
    crash_point();
  }
  T exchange(T value, std::memory_order order = std::memory_order_seq_cst) {
    const T before = Base::exchange(value, order);
    crash_point();
    return before;
  }
  bool compare_exchange_strong(T& expected, T value, std::memory_order order = std::memory_order_seq_cst) {
    const bool stored = Base::compare_exchange_strong(expected, value, order);
    if (stored) crash_point();
    return stored;
  }
  bool compare_exchange_weak(T& expected, T value, std::memory_order order = std::memory_order_seq_cst) {
    const bool stored = Base::compare_exchange_weak(expected, value, order);
    if (stored) crash_point();
    return stored;
  }
  T fetch_add(T value, std::memory_order order = std::memory_order_seq_cst) {
    const T before = Base::fetch_add(value, order);
    crash_point();
    return before;
  }
  T fetch_sub(T value, std::memory_order order = std::memory_order_seq_cst) {
    const T before = Base::fetch_sub(value, order);
    crash_point();
    return before;
  }
};

#endif

static_assert(sizeof(Shared<std::uint64_t>) == 8 && sizeof(Shared<std::uint8_t>) == 1);

}  // namespace ktrunk::ipc
