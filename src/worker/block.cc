#include "worker/block.h"

#include <algorithm>
#include <utility>

namespace ktrunk::worker {

BlockPtr BlockPool::take(std::size_t bytes) {
  if (bytes <= ipc::kRecordBytes && !idle_.empty()) {
    BlockPtr block = std::move(idle_.back());
    idle_.pop_back();
    return block;
  }
  auto block = std::make_unique<Block>();
  block->capacity = std::max(bytes, ipc::kRecordBytes);
  block->data = std::make_unique_for_overwrite<char[]>(block->capacity);
  return block;
}

void BlockPool::give_back(BlockPtr block) {
  if (block->capacity != ipc::kRecordBytes || idle_.size() == kept_) return;
  block->bytes = 0;
  block->messages = 0;
  idle_.push_back(std::move(block));
}

}  // namespace ktrunk::worker
