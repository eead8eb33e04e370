#include "worker/block.h"

#include <algorithm>

namespace ktrunk::worker {

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

BlockPtr BlockPool::around(ChunkRef chunk) {
  BlockPtr block;
  if (idle_.empty()) {
    block = std::make_unique<Block>();
  } else {
    block = std::move(idle_.back());
    idle_.pop_back();
  }
  block->chunk = chunk;
  return block;
}

BlockPtr BlockPool::take(std::uint64_t owner, std::size_t bytes) {
  const ChunkRef chunk = chunks_.take(owner, ipc::ChunkUse::kMessages, std::max(bytes, ipc::kRecordBytes));
  return chunk.valid() ? around(chunk) : nullptr;
}

BlockPtr BlockPool::take(const ipc::SendControl& order) {
  const ChunkRef chunk = chunks_.take(ipc::Chunk::pack(order.connection), ipc::ChunkUse::kControl, order.bytes);
  if (!chunk.valid()) return nullptr;
  ipc::Chunk& head = *chunk.head;
  head.record_type = order.record_type;
  head.after = static_cast<std::uint8_t>(order.after);
  head.record = order.octets;
  head.set(ipc::Chunk::Extent{.octets = order.bytes, .count = 0});
  return adopt(chunk);
}

BlockPtr BlockPool::adopt(ChunkRef chunk) {
  BlockPtr block = around(chunk);
  const ipc::Chunk::Extent extent = chunk.head->extent();
  block->bytes = extent.octets;
  block->messages = extent.count;
  if (chunk.head->use == ipc::ChunkUse::kControl)
    block->control = std::make_unique<ktls::ControlMessage>(
        static_cast<ktls::RecordType>(chunk.head->record_type),
        std::span(chunk.head->record).first(std::min<std::size_t>(extent.octets, chunk.head->record.size())));
  return block;
}

void BlockPool::give_back(BlockPtr block) {
  chunks_.give_back(block->chunk);
  if (idle_.size() == kept_) return;
  block->chunk = {};
  block->bytes = 0;
  block->messages = 0;
  block->control.reset();
  idle_.push_back(std::move(block));
}

}  // namespace ktrunk::worker
