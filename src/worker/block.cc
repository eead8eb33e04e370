#include "worker/block.h"

#include <algorithm>

namespace ktrunk::worker {

BlockPtr make_block(std::size_t bytes) {
  auto block = std::make_unique<Block>();
  block->capacity = std::max(bytes, ipc::kRecordBytes);
  block->data = std::make_unique_for_overwrite<char[]>(block->capacity);
  return block;
}

void BlockQueue::push_back(BlockPtr block) {
  Block* added = block.get();
  (last_ == nullptr ? first_ : last_->next) = std::move(block);
  last_ = added;
}

BlockPtr BlockQueue::pop_front() { return pop_after(nullptr); }

BlockPtr BlockQueue::pop_after(Block* block) {
  BlockPtr& place = block == nullptr ? first_ : block->next;
  if (place == nullptr) return nullptr;
  BlockPtr taken = std::move(place);
  place = std::move(taken->next);
  if (place == nullptr) last_ = block;
  return taken;
}

void BlockQueue::push_back_all(BlockQueue& others) {
  if (others.empty()) return;
  (last_ == nullptr ? first_ : last_->next) = std::move(others.first_);
  last_ = std::exchange(others.last_, nullptr);
}

BlockPtr BlockPool::take(std::size_t bytes) {
  if (bytes <= ipc::kRecordBytes && !idle_.empty()) {
    BlockPtr block = std::move(idle_.back());
    idle_.pop_back();
    return block;
  }
  return make_block(bytes);
}

void BlockPool::give_back(BlockPtr block) {
  if (block->capacity != ipc::kRecordBytes || idle_.size() == kept_) return;
  block->bytes = 0;
  block->messages = 0;
  idle_.push_back(std::move(block));
}

}  // namespace ktrunk::worker
