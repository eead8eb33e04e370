// Block: what waits to be sent on one connection: a chunk of the estate with whole SIP messages, or one control record.
// An ordinary block holds at most one record's worth, so that sending it is atomic; a larger message gets a block of
// its own, and so does a control record. A block that a worker dies over goes to its successor (ipc/estate.h); what is
// beside the chunk can be made again from it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "ipc/limits.h"
#include "ipc/messages.h"
#include "ktls/control_record.h"
#include "worker/chunk_store.h"

namespace ktrunk::worker {

struct Block {
  ChunkRef chunk;
  std::size_t bytes = 0;                          // written
  std::uint32_t messages = 0;                     // whole messages in it
  std::unique_ptr<ktls::ControlMessage> control;  // instead of messages; there is no room beside it
  std::unique_ptr<Block> next;                    // in a BlockQueue

  // For one message more. What is to be sent as one record stays one.
  [[nodiscard]] std::size_t room() const {
    return control != nullptr || bytes >= ipc::kRecordBytes ? 0 : ipc::kRecordBytes - bytes;
  }
  // A record after which nobody sends until there are new keys.
  [[nodiscard]] bool holds_sends() const {
    return control != nullptr && chunk.head->after == static_cast<std::uint8_t>(ipc::SendControl::After::kHoldSends);
  }
  // One message more is in it, of `octets`.
  void grow(std::size_t octets) {
    bytes += octets;
    ++messages;
    chunk.head->set(ipc::Chunk::Extent{.octets = static_cast<std::uint32_t>(bytes), .count = messages});
  }
};

using BlockPtr = std::unique_ptr<Block>;

// Blocks in the order of sending. Two words when empty, for most connections are idle.
class BlockQueue {
 public:
  BlockQueue() = default;
  BlockQueue(const BlockQueue&) = delete;
  BlockQueue& operator=(const BlockQueue&) = delete;
  ~BlockQueue() {
    while (!empty()) (void)pop_front();  // not by recursion along `next`
  }

  [[nodiscard]] bool empty() const { return first_ == nullptr; }
  [[nodiscard]] Block* front() const { return first_.get(); }
  [[nodiscard]] Block* back() const { return last_; }
  void push_back(BlockPtr block);
  BlockPtr pop_front();
  // Takes out what follows `block`, or the first one when there is no `block`; nothing when there is none.
  BlockPtr pop_after(Block* block);
  // Takes over all blocks of another, behind its own.
  void push_back_all(BlockQueue& others);

 private:
  BlockPtr first_;
  Block* last_ = nullptr;
};

// Makes blocks, and keeps what is beside their chunks for use again, so that the forward path does not allocate in the
// steady state.
class BlockPool {
 public:
  // kept: how many idle blocks are held on to at most.
  BlockPool(ChunkStore& chunks, std::size_t kept) : chunks_(chunks), kept_(kept) { idle_.reserve(kept); }

  // take() of a message of so many octets would succeed.
  [[nodiscard]] bool has_room(std::size_t bytes) { return chunks_.has_room(bytes); }
  // An empty block with room for at least `bytes`; null when the estate is full. owner: as in ipc::Chunk.
  [[nodiscard]] BlockPtr take(std::uint64_t owner, std::size_t bytes);
  [[nodiscard]] BlockPtr take(const ipc::SendControl& order);
  // One that a predecessor left.
  [[nodiscard]] BlockPtr adopt(ChunkRef chunk);
  void give_back(BlockPtr block);

 private:
  [[nodiscard]] BlockPtr around(ChunkRef chunk);

  ChunkStore& chunks_;
  std::size_t kept_;
  std::vector<BlockPtr> idle_;
};

}  // namespace ktrunk::worker
