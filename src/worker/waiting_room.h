// WaitingRoom: messages for trunks whose connection has ended while the next one is being made
// (ipc::TrunkEntry::awaits): those that the ended connection had not begun to send, and those that have come since.
// They go out, in that order, on whichever connection of the trunk is open first; or the time is over, and they are
// given back.
//
// A worker has one. It makes no system call, and a trunk without waiting messages has no memory in it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/id.h"
#include "worker/block.h"

namespace ktrunk::worker {

class WaitingRoom {
 public:
  WaitingRoom(BlockPool& pool, std::size_t trunks, std::size_t max_queue_bytes)
      : pool_(pool), trunks_(trunks), max_bytes_(max_queue_bytes) {}

  // True when `bytes` more may wait for the trunk; the bounds are those of a connection's queue (sender.h).
  [[nodiscard]] bool has_room(TrunkId trunk, std::size_t bytes) const {
    return trunks_[trunk.value].bytes + bytes <= max_bytes_ && pool_.has_room(bytes);
  }
  [[nodiscard]] bool has_room_for_response(TrunkId trunk, std::size_t bytes) const {
    return trunks_[trunk.value].bytes + bytes <= 2 * max_bytes_ && pool_.has_room(bytes);
  }
  // Where to write the next message of exactly `bytes` octets, for which there is room, behind all others; then commit
  // it.
  [[nodiscard]] char* reserve(TrunkId trunk, std::size_t bytes);
  void commit(TrunkId trunk, std::size_t bytes);
  // What a predecessor had waiting, in its order.
  void inherit(TrunkId trunk, BlockPtr block);
  // What a connection had not sent: older than anything that is here.
  void put_in_front(TrunkId trunk, BlockQueue& unsent);
  // All that waits for the trunk, behind what is in `to`.
  void take(TrunkId trunk, BlockQueue& to);

  // What has been taken and is of no use any more.
  void dispose(BlockPtr block) { pool_.give_back(std::move(block)); }

  [[nodiscard]] bool empty() const { return bytes_ == 0; }
  [[nodiscard]] bool holds(TrunkId trunk) const { return trunks_[trunk.value].bytes != 0; }
  // Calls act(trunk) for every trunk that messages wait for; it may take them.
  template <typename Act>
  void for_each(Act&& act) {
    for (std::size_t i = 0; i < trunks_.size(); ++i) {
      const TrunkId trunk{static_cast<decltype(TrunkId::value)>(i)};
      if (holds(trunk)) act(trunk);
    }
  }

 private:
  struct Trunk {
    BlockQueue queue;
    std::size_t bytes = 0;
  };

  BlockPool& pool_;
  std::vector<Trunk> trunks_;
  std::size_t max_bytes_;
  std::size_t bytes_ = 0;  // of all trunks
};

}  // namespace ktrunk::worker
