// Block: a stretch of memory with whole SIP messages waiting to be sent on one connection. An ordinary block holds at
// most one record's worth, so that sending it is atomic; a larger message gets a block of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "ipc/limits.h"

namespace ktrunk::worker {

struct Block {
  std::size_t capacity = 0;
  std::size_t bytes = 0;       // written
  std::uint32_t messages = 0;  // whole messages in it
  std::unique_ptr<char[]> data;

  [[nodiscard]] std::size_t room() const { return capacity - bytes; }
};

using BlockPtr = std::unique_ptr<Block>;

// Keeps blocks of one record for use again, so that the forward path does not allocate in the steady state.
class BlockPool {
 public:
  // kept: how many idle blocks are held on to at most.
  explicit BlockPool(std::size_t kept) : kept_(kept) { idle_.reserve(kept); }

  // An empty block with room for at least `bytes`.
  [[nodiscard]] BlockPtr take(std::size_t bytes);
  void give_back(BlockPtr block);

 private:
  std::size_t kept_;
  std::vector<BlockPtr> idle_;
};

}  // namespace ktrunk::worker
