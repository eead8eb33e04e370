#include "supervisor/worker_place.h"

#include <utility>

#include "base/log.h"

namespace ktrunk::supervisor {
namespace {

constexpr unsigned kSubmissions = 1024;

}  // namespace

Result<WorkerPlace> WorkerPlace::create() {
  auto memory = ipc::Estate::create();
  if (!memory) return std::unexpected(memory.error());
  auto estate = ipc::Estate::map(std::move(*memory));
  if (!estate) return std::unexpected(estate.error());
  return WorkerPlace(std::move(*estate));
}

void WorkerPlace::save(StateWriter& state) const {
  state.put_descriptor(estate_.descriptor());
  state.put(ring_.fd);
  state.put(ring_.parameters);
  state.put(messages_);
}

Result<WorkerPlace> WorkerPlace::restore(StateReader& state) {
  auto estate = ipc::Estate::map(state.descriptor());
  if (!estate) return std::unexpected(estate.error());
  WorkerPlace place(std::move(*estate));
  place.ring_.fd = state.descriptor();
  state.get(place.ring_.parameters);
  state.get(place.messages_);
  return place;
}

Status WorkerPlace::make_ring(std::uint32_t max_connections) {
  // A receive and a send of each connection may complete at once, and what has no connection.
  auto ring = ipc::make_worker_ring(kSubmissions, 2 * max_connections + 8 * kSubmissions);
  if (!ring) return std::unexpected(ring.error());
  ring_ = std::move(*ring);
  estate_.ring_parameters() = ring_.parameters;
  return {};
}

std::optional<ipc::Estate::InHand> WorkerPlace::ended(const ipc::Handovers& handovers, WorkerIndex self) {
  const auto ring = std::exchange(ring_, {.fd = {}, .parameters = {}});
  if (!ring.fd.valid()) return estate_.repair(nullptr, handovers, self);
  const auto unseen = ipc::UnseenCompletions::look(ring);
  if (!unseen) {
    log::error("what a worker had received and not seen is lost: {}", unseen.error().what);
    return estate_.repair(nullptr, handovers, self);
  }
  if (unseen->overflowed()) log::error("a part of what a worker had received and not seen is lost: its ring was full");
  return estate_.repair(&*unseen, handovers, self);
}

}  // namespace ktrunk::supervisor
