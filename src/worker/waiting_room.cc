#include "worker/waiting_room.h"

#include <memory>
#include <utility>

namespace ktrunk::worker {

char* WaitingRoom::append(TrunkId trunk, std::size_t bytes) {
  Trunk& waiting = trunks_[trunk.value];
  if (waiting.queue.empty() || waiting.queue.back()->room() < bytes) waiting.queue.push_back(make_block(bytes));
  Block& block = *waiting.queue.back();
  char* place = block.data.get() + block.bytes;
  block.bytes += bytes;
  ++block.messages;
  waiting.bytes += bytes;
  bytes_ += bytes;
  return place;
}

void WaitingRoom::put_in_front(TrunkId trunk, BlockQueue& unsent) {
  Trunk& waiting = trunks_[trunk.value];
  std::size_t bytes = 0;
  for (const Block* block = unsent.front(); block != nullptr; block = block->next.get()) bytes += block->bytes;
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
