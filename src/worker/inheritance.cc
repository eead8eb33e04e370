#include "worker/inheritance.h"

#include <algorithm>
#include <utility>

namespace ktrunk::worker {
namespace {

unsigned buffer_of(const ipc::Inherited& completion) { return completion.flags >> IORING_CQE_BUFFER_SHIFT; }

}  // namespace

Inheritance::Inheritance(const ipc::Estate& estate, ChunkStore& chunks, BlockPool& blocks, Sender& sender,
                         WaitingRoom& waiting)
    : chunks_(chunks) {
  for (const ChunkRef& chunk : chunks.take_inherited()) {
    // Begun, and nothing in it yet.
    if (chunk.head->extent().octets == 0) {
      chunks.give_back(chunk);
    } else if (chunk.head->use == ipc::ChunkUse::kPartial) {
      keep_partial(chunk);
    } else if (const TrunkId trunk = chunk.head->trunk(); trunk.valid()) {
      waiting.inherit(trunk, blocks.adopt(chunk));
    } else {
      sender.inherit(chunk.head->connection(), blocks.adopt(chunk));
    }
  }
  for (ipc::Inherited& completion : estate.inherited()) {
    if (completion.done.load(std::memory_order_relaxed) != 0) continue;
    const Operation operation = Operation::unpack(completion.user_data);
    const ConnectionId connection{SlotIndex{operation.index}, Generation{operation.generation}};
    const bool brought = completion.result >= 0 && (completion.flags & IORING_CQE_F_BUFFER) != 0;
    if (operation.kind == OperationKind::kReceive && brought) {
      receives_[connection].push_back(&completion);
    } else if (operation.kind == OperationKind::kDatagrams && brought) {
      datagrams_.push_back(&completion);
    } else {
      if (operation.kind == OperationKind::kSend)
        sender.inherited_completion(connection, completion.result, completion.number);
      completion.done.store(1, std::memory_order_release);
    }
  }
}

// The predecessor may have died while it moved a message to a larger chunk: the newer one has all, or nothing yet.
void Inheritance::keep_partial(ChunkRef chunk) {
  ChunkRef& kept = partials_[chunk.head->connection()];
  if (kept.valid()) chunks_.give_back(kept);
  kept = chunk;  // they come in the order of their taking
}

bool Inheritance::in_use(OperationKind kind, unsigned buffer) const {
  const auto lies_there = [&](const ipc::Inherited* completion) { return buffer_of(*completion) == buffer; };
  if (kind == OperationKind::kDatagrams) return std::ranges::any_of(datagrams_, lies_there);
  return std::ranges::any_of(receives_, [&](const auto& each) { return std::ranges::any_of(each.second, lies_there); });
}

std::vector<ipc::Inherited*> Inheritance::take_receives(ConnectionId connection) {
  const auto node = receives_.extract(connection);
  return node.empty() ? std::vector<ipc::Inherited*>() : std::move(node.mapped());
}

ChunkRef Inheritance::take_partial(ConnectionId connection) {
  const auto node = partials_.extract(connection);
  return node.empty() ? ChunkRef() : node.mapped();
}

std::vector<ipc::Inherited*> Inheritance::take_datagrams() { return std::exchange(datagrams_, {}); }

std::vector<ipc::Inherited*> Inheritance::take_orphans() {
  std::vector<ipc::Inherited*> all;
  for (const auto& [connection, completions] : receives_) all.insert(all.end(), completions.begin(), completions.end());
  receives_.clear();
  for (const auto& [connection, chunk] : partials_) chunks_.give_back(chunk);
  partials_.clear();
  return all;
}

}  // namespace ktrunk::worker
