// WorkerPlace: what belongs to the place of a worker and not to the process that fills it: its estate, and the ring
// whose completions outlive it (ipc/estate.h, ipc/worker_ring.h).
#pragma once

#include <cstdint>
#include <optional>
#include <utility>

#include "base/fd.h"
#include "base/result.h"
#include "ipc/estate.h"
#include "ipc/worker_ring.h"
#include "supervisor/state.h"

namespace ktrunk::supervisor {

class WorkerPlace {
 public:
  [[nodiscard]] static Result<WorkerPlace> create();

  // For an upgrade.
  void save(StateWriter& state) const;
  [[nodiscard]] static Result<WorkerPlace> restore(StateReader& state);

  // Before a worker is started: a ring for it. max_connections: each may have a few completions at once.
  [[nodiscard]] Status make_ring(std::uint32_t max_connections);
  // The worker has died: what it left is made ready for its successor. The message that it had in hand, if any.
  // handovers: what passes between workers, this one being `self`.
  [[nodiscard]] std::optional<ipc::Estate::InHand> ended(const ipc::Handovers& handovers, WorkerIndex self);
  // What it left is given up.
  void clear(const ipc::Handovers& handovers, WorkerIndex self) {
    estate_.clear();
    handovers.clear(self);
  }
  // Workers of this place have received so many messages, ever. True: more than when it was asked last.
  [[nodiscard]] bool has_received(std::uint64_t messages) { return std::exchange(messages_, messages) != messages; }

  [[nodiscard]] int ring() const { return ring_.fd.get(); }
  [[nodiscard]] int estate() const { return estate_.descriptor(); }

 private:
  explicit WorkerPlace(ipc::Estate estate) : estate_(std::move(estate)) {}
  ipc::Estate estate_;
  ipc::WorkerRing ring_{.fd = {}, .parameters = {}};
  std::uint64_t messages_ = 0;
};

}  // namespace ktrunk::supervisor
