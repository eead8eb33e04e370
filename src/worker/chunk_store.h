// ChunkStore: the chunks of a worker's estate (ipc/estate.h), taken and given back. What a predecessor left in them is
// there from the start.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/id.h"
#include "ipc/estate.h"

namespace ktrunk::worker {

// A chunk in use. It is the holder's to give back.
struct ChunkRef {
  ipc::Chunk* head = nullptr;
  char* octets = nullptr;
  std::size_t capacity = 0;
  std::uint32_t number = 0;  // over both areas, small ones first

  [[nodiscard]] bool valid() const { return head != nullptr; }
};

class ChunkStore {
 public:
  explicit ChunkStore(const ipc::Estate& estate);

  // A chunk for at least `bytes` octets, empty; owner as in ipc::Chunk; not valid when there is none left.
  [[nodiscard]] ChunkRef take(std::uint64_t owner, ipc::ChunkUse use, std::size_t bytes);
  void give_back(ChunkRef chunk);
  // take() of a message of so many octets would succeed.
  [[nodiscard]] bool has_room(std::size_t bytes);

  // The number of the chunk that was taken last.
  [[nodiscard]] std::uint64_t newest() const { return order_ - 1; }
  // Of the messages queued in chunks up to that one, none is here any more. Looks through all chunks.
  [[nodiscard]] bool gone(std::uint64_t order) const;

  // What predecessors left, in the order of its taking. Once.
  [[nodiscard]] std::vector<ChunkRef> take_inherited() { return std::move(inherited_); }

 private:
  struct Area {
    ipc::ChunkArea chunks;
    std::uint32_t first = 0;  // number of its first chunk
    std::vector<std::uint32_t> free;
    std::vector<bool> taken;
  };
  void look_through(Area& area);
  [[nodiscard]] bool find_run(Area& area, std::uint32_t run, std::uint32_t& at);
  [[nodiscard]] bool find(Area& area, std::uint32_t run, std::uint32_t& at);
  [[nodiscard]] static ChunkRef reference(const Area& area, std::uint32_t at);

  std::array<Area, 2> areas_;  // small, records
  std::uint64_t order_ = 1;
  std::vector<ChunkRef> inherited_;
};

}  // namespace ktrunk::worker
