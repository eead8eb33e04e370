#include "worker/chunk_store.h"

#include <algorithm>

namespace ktrunk::worker {
namespace {

constexpr std::size_t kSmall = 0;
constexpr std::size_t kRecords = 1;

}  // namespace

ChunkStore::ChunkStore(const ipc::Estate& estate) {
  areas_[kSmall].chunks = estate.small();
  areas_[kRecords].chunks = estate.records();
  areas_[kRecords].first = static_cast<std::uint32_t>(estate.small().heads.size());
  for (Area& area : areas_) look_through(area);
  std::ranges::sort(inherited_, {}, [](const ChunkRef& chunk) { return chunk.head->order; });
  if (!inherited_.empty()) order_ = inherited_.back().head->order + 1;
}

void ChunkStore::look_through(Area& area) {
  const std::uint32_t used = area.chunks.used->load(std::memory_order_acquire);
  area.taken.resize(area.chunks.heads.size());
  for (std::uint32_t at = 0; at < used;) {
    ipc::Chunk& head = area.chunks.heads[at];
    if (head.owner.load(std::memory_order_acquire) == 0) {
      area.free.push_back(at++);
      continue;
    }
    const std::uint32_t run = std::clamp<std::uint32_t>(head.run, 1, used - at);
    std::fill_n(area.taken.begin() + at, run, true);
    inherited_.push_back(reference(area, at));
    at += run;
  }
}

ChunkRef ChunkStore::reference(const Area& area, std::uint32_t at) {
  ipc::Chunk& head = area.chunks.heads[at];
  return {.head = &head,
          .octets = area.chunks.octets(at),
          .capacity = area.chunks.unit * head.run,
          .number = area.first + at};
}

bool ChunkStore::find_run(Area& area, std::uint32_t run, std::uint32_t& at) {
  std::uint32_t length = 0;
  for (std::uint32_t i = 0; i < area.taken.size(); ++i) {
    length = area.taken[i] ? 0 : length + 1;
    if (length == run) {
      at = i + 1 - run;
      return true;
    }
  }
  return false;
}

// Those that were given back last come first. What is on the list may have become part of a run since.
bool ChunkStore::find(Area& area, std::uint32_t run, std::uint32_t& at) {
  if (run != 1) return find_run(area, run, at);
  while (!area.free.empty()) {
    at = area.free.back();
    if (!area.taken[at]) return true;
    area.free.pop_back();
  }
  at = area.chunks.used->load(std::memory_order_relaxed);
  return at < area.taken.size();
}

bool ChunkStore::has_room(std::size_t bytes) {
  Area& area = areas_[kRecords];
  std::uint32_t at = 0;
  return find(area, static_cast<std::uint32_t>((bytes + area.chunks.unit - 1) / area.chunks.unit), at);
}

ChunkRef ChunkStore::take(std::uint64_t owner, ipc::ChunkUse use, std::size_t bytes) {
  const bool small = use != ipc::ChunkUse::kMessages && bytes <= areas_[kSmall].chunks.unit;
  Area& area = areas_[small ? kSmall : kRecords];
  const auto run =
      static_cast<std::uint32_t>(std::max<std::size_t>(1, (bytes + area.chunks.unit - 1) / area.chunks.unit));
  std::uint32_t at = 0;
  if (!find(area, run, at)) return {};
  if (run == 1 && !area.free.empty() && area.free.back() == at) area.free.pop_back();
  std::fill_n(area.taken.begin() + at, run, true);
  // Before the owner: whoever looks through the area must find it.
  if (at + run > area.chunks.used->load(std::memory_order_relaxed)) {
    for (std::uint32_t i = area.chunks.used->load(std::memory_order_relaxed); i < at; ++i) area.free.push_back(i);
    area.chunks.used->store(at + run, std::memory_order_release);
  }
  ipc::Chunk& head = area.chunks.heads[at];
  head.order = order_++;
  head.use = use;
  head.run = static_cast<std::uint16_t>(run);
  head.submitted.store(0, std::memory_order_relaxed);
  head.set(ipc::Chunk::Extent{});
  head.set(ipc::Chunk::Progress{});
  head.owner.store(owner, std::memory_order_release);
  return reference(area, at);
}

void ChunkStore::give_back(ChunkRef chunk) {
  Area& area = areas_[chunk.number < areas_[kRecords].first ? kSmall : kRecords];
  const std::uint32_t at = chunk.number - area.first;
  const std::uint32_t run = chunk.head->run;
  chunk.head->owner.store(0, std::memory_order_release);
  std::fill_n(area.taken.begin() + at, run, false);
  for (std::uint32_t i = 0; i < run; ++i) area.free.push_back(at + i);
  if (area.free.size() <= area.taken.size()) return;
  // Runs have come and gone, and left their numbers here more than once.
  area.free.clear();
  for (std::uint32_t i = area.chunks.used->load(std::memory_order_relaxed); i-- > 0;) {
    if (!area.taken[i]) area.free.push_back(i);
  }
}

bool ChunkStore::gone(std::uint64_t order) const {
  for (const Area& area : areas_) {
    const std::uint32_t used = area.chunks.used->load(std::memory_order_relaxed);
    for (std::uint32_t at = 0; at < used; ++at) {
      if (!area.taken[at]) continue;
      const ipc::Chunk& head = area.chunks.heads[at];
      const bool queued = head.owner.load(std::memory_order_relaxed) != 0 && head.use == ipc::ChunkUse::kMessages;
      if (queued && head.order <= order) return false;
      if (head.run > 1) at += head.run - 1;
    }
  }
  return true;
}

}  // namespace ktrunk::worker
