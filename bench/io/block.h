// Block: messages that leave a measuring program in one send: at most a record's worth, as in the daemon, but in memory
// of the program's own.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "ipc/limits.h"

namespace ktrunk::bench {

struct Block {
  std::unique_ptr<char[]> data;
  std::size_t capacity = 0;
  std::size_t bytes = 0;  // written

  [[nodiscard]] std::size_t room() const { return capacity - bytes; }
};

using BlockPtr = std::unique_ptr<Block>;

// Keeps blocks of one record for use again, so that nothing is allocated in the steady state.
class BlockPool {
 public:
  // An empty block with room for at least `bytes`.
  [[nodiscard]] BlockPtr take(std::size_t bytes) {
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
  void give_back(BlockPtr block) {
    if (block->capacity != ipc::kRecordBytes || idle_.size() == kKept) return;
    block->bytes = 0;
    idle_.push_back(std::move(block));
  }

 private:
  static constexpr std::size_t kKept = 1024;
  std::vector<BlockPtr> idle_;
};

}  // namespace ktrunk::bench
