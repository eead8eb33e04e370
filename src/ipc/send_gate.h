// SendGate: who may send on a connection, without a lock (one per connection, in the shared region).
//
// A send of at most one record is atomic in the kernel, so senders of records need no exclusion among themselves. A
// message longer than a record, and every send on plain TCP, needs the connection to itself for several sends: its
// sender takes the gate, waits until the records of others that are in flight have gone, sends, and gives it back.
// A KeyUpdate (RFC 8446 4.6.3) takes it too, and gives it back only when the new keys are in: whatever is sent after it
// must be under those. Until then its owner counts as writing: if it dies, nobody knows which keys the next record
// needs.
//
//   record sender   begin_record: in_flight[w] = 1, then look at owner; owned by another -> take it back, wait
//                   end_record:   take it back
//                   taking back:  in_flight[w] = 0, then look at owner; owned by another -> ring that owner's doorbell,
//                                 for it may have seen the 1 and be waiting, also when no record was sent
//   gate owner      acquire:      owner 0 -> w + 1;  quiescent: every other in_flight is 0;  start_writing;  release
//
// All of these are sequentially consistent: of a record sender's (store in_flight, load owner) and an owner's (store
// owner, load in_flight) at least one sees the other. A waiter does (store waiting, load owner), a release (store
// owner, load waiting): likewise, so no wake-up is lost.
//
// A process may die between any two of these. Each byte of in_flight and waiting has one writer, its worker; owner is
// changed by compare-and-swap from 0 and only by its owner after that. The supervisor repairs after a death: repair().
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "base/id.h"
#include "ipc/limits.h"
#include "ipc/shared.h"

namespace ktrunk::ipc {

// A set of workers, for ringing their doorbells.
using WorkerMask = std::uint32_t;
static_assert(kMaxWorkers <= 32);
[[nodiscard]] constexpr WorkerMask mask_of(WorkerIndex worker) { return WorkerMask{1} << worker.value; }

class SendGate {
 public:
  struct Begin {
    bool granted;     // false: the gate is owned by another; the worker's doorbell will ring on its release
    WorkerMask ring;  // whom to ring
  };
  // Before sending a record.
  [[nodiscard]] Begin begin_record(WorkerIndex self);
  // After that send has completed, however it went. Returns whom to ring: the owner that may be waiting, or nobody.
  [[nodiscard]] WorkerMask end_record(WorkerIndex self);

  // Takes the gate, or asks for a ring on its release and returns false. True also when it is held already.
  [[nodiscard]] bool acquire(WorkerIndex self);
  // No other worker has a record in flight. Until it is so, wait for the doorbell and ask again.
  [[nodiscard]] bool quiescent(WorkerIndex self) const;
  // From here to release the stream is broken if the owner dies.
  void start_writing(WorkerIndex self);
  // Gives the gate back. Returns whom to ring.
  [[nodiscard]] WorkerMask release(WorkerIndex self);

  // The successor of a worker that died, for what its predecessor left: the gate is this place's.
  [[nodiscard]] bool owned_by_worker(WorkerIndex self) const;
  // The same: nothing is in flight, and the gate is wanted no more. Returns whom to ring.
  [[nodiscard]] WorkerMask let_go(WorkerIndex self) { return repair(self).ring; }

  // Supervisor: the slot gets a new life.
  void reset();
  enum class Damage { kNone, kStreamBroken };
  struct Repair {
    Damage damage;
    WorkerMask ring;
  };
  // Supervisor: worker `dead` has died. Clears what it left; says whether the stream was cut in the middle of a send.
  [[nodiscard]] Repair repair(WorkerIndex dead);

 private:
  static constexpr std::uint32_t kWriting = 0x100;
  static constexpr std::uint32_t owned_by(WorkerIndex worker) { return worker.value + 1u; }
  [[nodiscard]] WorkerMask waiters() const;
  [[nodiscard]] WorkerMask owner_other_than(WorkerIndex self) const;

  Shared<std::uint32_t> owner_{0};  // 0: free; worker + 1, with kWriting once its first octet may have gone
  std::array<Shared<std::uint8_t>, kMaxWorkers> in_flight_{};
  std::array<Shared<std::uint8_t>, kMaxWorkers> waiting_{};
};

static_assert(Shared<std::uint32_t>::is_always_lock_free && Shared<std::uint8_t>::is_always_lock_free);
static_assert(sizeof(SendGate) == 4 + 2 * kMaxWorkers, "shared between processes: fixed layout");

}  // namespace ktrunk::ipc
