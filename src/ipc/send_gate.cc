#include "ipc/send_gate.h"

namespace ktrunk::ipc {

// The owner as a set of one, or nobody when it is free or self's.
WorkerMask SendGate::owner_other_than(WorkerIndex self) const {
  const std::uint32_t owner = owner_.load() & ~kWriting;
  if (owner == 0 || owner == owned_by(self)) return 0;
  return mask_of(WorkerIndex{static_cast<std::uint8_t>(owner - 1)});
}

SendGate::Begin SendGate::begin_record(WorkerIndex self) {
  for (;;) {
    in_flight_[self.value].store(1);
    if (owner_other_than(self) == 0) [[likely]] {
      if (waiting_[self.value].load(std::memory_order_relaxed) != 0) waiting_[self.value].store(0);
      return {true, 0};
    }
    in_flight_[self.value].store(0);
    waiting_[self.value].store(1);
    // The owner may have seen the flag while it was set, and wait for the ring of its end. Or it may have released
    // before it could see that we wait: then nobody will ring us, so try once more.
    if (const WorkerMask owner = owner_other_than(self); owner != 0) return {false, owner};
  }
}

WorkerMask SendGate::end_record(WorkerIndex self) {
  in_flight_[self.value].store(0);
  return owner_other_than(self);
}

bool SendGate::acquire(WorkerIndex self) {
  for (;;) {
    std::uint32_t expected = 0;
    if (owner_.compare_exchange_strong(expected, owned_by(self)) || (expected & ~kWriting) == owned_by(self)) {
      waiting_[self.value].store(0);
      return true;
    }
    waiting_[self.value].store(1);
    if (owner_.load() != 0) return false;
  }
}

bool SendGate::quiescent(WorkerIndex self) const {
  for (unsigned worker = 0; worker < kMaxWorkers; ++worker) {
    if (worker != self.value && in_flight_[worker].load() != 0) return false;
  }
  return true;
}

void SendGate::start_writing(WorkerIndex self) { owner_.store(owned_by(self) | kWriting); }

bool SendGate::owned_by_worker(WorkerIndex self) const { return (owner_.load() & ~kWriting) == owned_by(self); }

WorkerMask SendGate::release(WorkerIndex self) {
  owner_.store(0);
  return waiters() & ~mask_of(self);
}

WorkerMask SendGate::waiters() const {
  WorkerMask mask = 0;
  for (unsigned worker = 0; worker < kMaxWorkers; ++worker) {
    if (waiting_[worker].load() != 0) mask |= WorkerMask{1} << worker;
  }
  return mask;
}

void SendGate::reset() {
  owner_.store(0);
  for (auto& flag : in_flight_) flag.store(0);
  for (auto& flag : waiting_) flag.store(0);
}

SendGate::Repair SendGate::repair(WorkerIndex dead) {
  in_flight_[dead.value].store(0);
  waiting_[dead.value].store(0);
  const std::uint32_t owner = owner_.load();
  if (owner == 0) return {Damage::kNone, 0};
  if ((owner & ~kWriting) != owned_by(dead)) {
    // The owner may have been waiting for the dead worker's record.
    return {Damage::kNone, mask_of(WorkerIndex{static_cast<std::uint8_t>((owner & ~kWriting) - 1)})};
  }
  owner_.store(0);
  return {(owner & kWriting) != 0 ? Damage::kStreamBroken : Damage::kNone, waiters()};
}

}  // namespace ktrunk::ipc
