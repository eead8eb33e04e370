// Block: what waits to be sent on one connection: a stretch of memory with whole SIP messages, or one control record.
// An ordinary block holds at most one record's worth, so that sending it is atomic; a larger message gets a block of
// its own, and so does a control record.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "ipc/limits.h"
#include "ipc/messages.h"
#include "ktls/control_record.h"

namespace ktrunk::worker {

// A record of another type than data.
struct ControlRecord {
  explicit ControlRecord(const ipc::SendControl& order)
      : message(static_cast<ktls::RecordType>(order.record_type),
                std::as_bytes(std::span(order.octets)).first(order.bytes)),
        after(order.after) {}
  ktls::ControlMessage message;
  ipc::SendControl::After after;
};

struct Block {
  std::size_t capacity = 0;
  std::size_t bytes = 0;       // written
  std::uint32_t messages = 0;  // whole messages in it
  std::unique_ptr<char[]> data;
  std::unique_ptr<ControlRecord> control;  // instead of data; there is no room beside it
  std::unique_ptr<Block> next;             // in a BlockQueue

  [[nodiscard]] std::size_t room() const { return capacity - bytes; }
  [[nodiscard]] bool holds_sends() const {
    return control != nullptr && control->after == ipc::SendControl::After::kHoldSends;
  }
};

using BlockPtr = std::unique_ptr<Block>;

// An empty block with room for one record, or for `bytes` if that is more.
[[nodiscard]] BlockPtr make_block(std::size_t bytes);

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
