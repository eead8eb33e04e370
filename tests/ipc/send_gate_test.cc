// The gate: never two owners, never a record beside an owner's sends, no lost wake-up, and repair after a death at any
// point. The races run in threads, so that the thread sanitizer can watch them.
#include "ipc/send_gate.h"

#include <gtest/gtest.h>

#include <atomic>
#include <bit>
#include <semaphore>
#include <thread>
#include <vector>

namespace ktrunk::ipc {
namespace {

constexpr WorkerIndex kAnn{0}, kBob{1}, kCyd{2};

TEST(SendGate, RecordsOfSeveralWorkersGoAtOnce) {
  SendGate gate;
  EXPECT_TRUE(gate.begin_record(kAnn).granted);
  EXPECT_TRUE(gate.begin_record(kBob).granted);
  EXPECT_EQ(gate.end_record(kAnn), 0U);
  EXPECT_EQ(gate.end_record(kBob), 0U);
}

TEST(SendGate, AnOwnerWaitsForRecordsInFlightAndIsRung) {
  SendGate gate;
  ASSERT_TRUE(gate.begin_record(kBob).granted);
  ASSERT_TRUE(gate.acquire(kAnn));
  EXPECT_FALSE(gate.quiescent(kAnn));
  EXPECT_FALSE(gate.begin_record(kCyd).granted) << "no new record while the gate is owned";
  EXPECT_EQ(gate.end_record(kBob), mask_of(kAnn));
  EXPECT_TRUE(gate.quiescent(kAnn));
  gate.start_writing(kAnn);
  EXPECT_EQ(gate.release(kAnn), mask_of(kCyd));
  EXPECT_TRUE(gate.begin_record(kCyd).granted);
  EXPECT_TRUE(gate.acquire(kAnn));
  EXPECT_EQ(gate.release(kAnn), 0U) << "who has got through waits no more";
}

// While it asked, its flag was up for a moment; an owner that looked just then waits for a record that never comes.
TEST(SendGate, ASenderThatIsRefusedRingsTheOwnerThatMayHaveSeenIt) {
  SendGate gate;
  ASSERT_TRUE(gate.acquire(kAnn));
  const auto refused = gate.begin_record(kBob);
  EXPECT_FALSE(refused.granted);
  EXPECT_EQ(refused.ring, mask_of(kAnn));
  EXPECT_TRUE(gate.quiescent(kAnn));
}

TEST(SendGate, OneOwnerAtATime) {
  SendGate gate;
  ASSERT_TRUE(gate.acquire(kAnn));
  EXPECT_TRUE(gate.acquire(kAnn)) << "it has it already";
  EXPECT_FALSE(gate.acquire(kBob));
  EXPECT_EQ(gate.release(kAnn), mask_of(kBob));
  EXPECT_TRUE(gate.acquire(kBob));
}

TEST(SendGate, TheOwnersOwnRecordsPass) {
  SendGate gate;
  ASSERT_TRUE(gate.acquire(kAnn));
  EXPECT_TRUE(gate.begin_record(kAnn).granted);
  EXPECT_EQ(gate.end_record(kAnn), 0U);
}

TEST(SendGate, RepairTellsABrokenStreamFromASoundOne) {
  SendGate gate;
  ASSERT_TRUE(gate.acquire(kAnn));
  EXPECT_FALSE(gate.begin_record(kBob).granted);
  auto repair = gate.repair(kAnn);
  EXPECT_EQ(repair.damage, SendGate::Damage::kNone) << "it had not begun to write";
  EXPECT_EQ(repair.ring, mask_of(kBob));

  ASSERT_TRUE(gate.acquire(kAnn));
  gate.start_writing(kAnn);
  repair = gate.repair(kAnn);
  EXPECT_EQ(repair.damage, SendGate::Damage::kStreamBroken);
  EXPECT_TRUE(gate.begin_record(kCyd).granted);
}

TEST(SendGate, RepairOfADeadSenderWakesTheOwnerThatWaitsForIt) {
  SendGate gate;
  ASSERT_TRUE(gate.begin_record(kBob).granted);
  ASSERT_TRUE(gate.acquire(kAnn));
  ASSERT_FALSE(gate.quiescent(kAnn));
  const auto repair = gate.repair(kBob);
  EXPECT_EQ(repair.damage, SendGate::Damage::kNone);
  EXPECT_EQ(repair.ring, mask_of(kAnn));
  EXPECT_TRUE(gate.quiescent(kAnn));
}

// Each thread is a worker that sends records and long messages at random, waiting on its doorbell when told to. An
// owner checks that nobody else is sending; a lost wake-up would leave a thread waiting for ever.
TEST(SendGate, HoldsUnderContention) {
  constexpr unsigned kWorkers = 4;
  constexpr int kSends = 20'000;
  SendGate gate;
  std::atomic<int> records{0};
  std::atomic<int> owners{0};
  std::atomic<bool> violated{false};
  std::vector<std::unique_ptr<std::counting_semaphore<>>> bells;
  for (unsigned w = 0; w < kWorkers; ++w) bells.push_back(std::make_unique<std::counting_semaphore<>>(0));
  const auto ring = [&](WorkerMask mask) {
    for (; mask != 0; mask &= mask - 1) bells[static_cast<std::size_t>(std::countr_zero(mask))]->release();
  };
  std::vector<std::jthread> threads;
  for (unsigned w = 0; w < kWorkers; ++w) {
    threads.emplace_back([&, w] {
      const WorkerIndex self{static_cast<std::uint8_t>(w)};
      unsigned random = w + 1;
      for (int i = 0; i < kSends; ++i) {
        random = random * 1664525 + 1013904223;
        if (random % 8 == 0) {
          while (!gate.acquire(self)) bells[w]->acquire();
          while (!gate.quiescent(self)) bells[w]->acquire();
          gate.start_writing(self);
          if (owners.fetch_add(1) != 0 || records.load() != 0) violated = true;
          owners.fetch_sub(1);
          ring(gate.release(self));
        } else {
          for (;;) {
            const auto [granted, rings] = gate.begin_record(self);
            ring(rings);
            if (granted) break;
            bells[w]->acquire();
          }
          records.fetch_add(1);
          if (owners.load() != 0) violated = true;
          records.fetch_sub(1);
          ring(gate.end_record(self));
        }
      }
    });
  }
  threads.clear();
  EXPECT_FALSE(violated);
}

}  // namespace
}  // namespace ktrunk::ipc
