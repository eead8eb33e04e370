#include "worker/waiting_room.h"

#include <memory>
#include <utility>

namespace ktrunk::worker {

char* WaitingRoom::reserve(TrunkId trunk, std::size_t bytes) {
  Trunk& waiting = trunks_[trunk.value];
  if (waiting.queue.empty() || waiting.queue.back()->room() < bytes)
    waiting.queue.push_back(pool_.take(ipc::Chunk::pack(trunk), bytes));
  Block& block = *waiting.queue.back();
  return block.chunk.octets + block.bytes;
}

void WaitingRoom::commit(TrunkId trunk, std::size_t bytes) {
  Trunk& waiting = trunks_[trunk.value];
  waiting.queue.back()->grow(bytes);
  waiting.bytes += bytes;
  bytes_ += bytes;
}

void WaitingRoom::inherit(TrunkId trunk, BlockPtr block) {
  if (trunk.value >= trunks_.size()) return pool_.give_back(std::move(block));
  Trunk& waiting = trunks_[trunk.value];
  waiting.bytes += block->bytes;
  bytes_ += block->bytes;
  waiting.queue.push_back(std::move(block));
}

void WaitingRoom::put_in_front(TrunkId trunk, BlockQueue& unsent) {
  Trunk& waiting = trunks_[trunk.value];
  std::size_t bytes = 0;
  for (const Block* block = unsent.front(); block != nullptr; block = block->next.get()) {
    block->chunk.head->owner.store(ipc::Chunk::pack(trunk), std::memory_order_release);
    bytes += block->bytes;
  }
  unsent.push_back_all(waiting.queue);
  waiting.queue.push_back_all(unsent);
  waiting.bytes += bytes;
  bytes_ += bytes;
}

void WaitingRoom::take(TrunkId trunk, BlockQueue& to) {
  Trunk& waiting = trunks_[trunk.value];
  bytes_ -= std::exchange(waiting.bytes, 0);
  to.push_back_all(waiting.queue);
}

}  // namespace ktrunk::worker
