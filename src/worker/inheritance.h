// Inheritance: what a worker finds in its estate when it starts (ipc/estate.h), sorted by connection, until each is
// there to have it. Empty where there was no predecessor.
#pragma once

#include <deque>
#include <map>
#include <vector>

#include "base/id.h"
#include "ipc/estate.h"
#include "worker/chunk_store.h"
#include "worker/operation.h"
#include "worker/sender.h"
#include "worker/waiting_room.h"

namespace ktrunk::worker {

class Inheritance {
 public:
  // Gives sender and waiting room what is queued. All must outlive it.
  Inheritance(const ipc::Estate& estate, ChunkStore& chunks, BlockPool& blocks, Sender& sender, WaitingRoom& waiting);

  // A completion that is not dealt with yet lies in that buffer.
  [[nodiscard]] bool in_use(OperationKind kind, unsigned buffer) const;

  // What was received for a connection, in order. Each is to be marked as done when all it leads to has happened.
  [[nodiscard]] std::vector<ipc::Inherited*> take_receives(ConnectionId connection);
  // What there is of a message of it; not valid when there is nothing.
  [[nodiscard]] ChunkRef take_partial(ConnectionId connection);
  [[nodiscard]] std::vector<ipc::Inherited*> take_datagrams();
  // All that is left: its connections are gone.
  [[nodiscard]] std::vector<ipc::Inherited*> take_orphans();

 private:
  void keep_partial(ChunkRef chunk);

  ChunkStore& chunks_;
  std::map<ConnectionId, std::vector<ipc::Inherited*>> receives_;
  std::vector<ipc::Inherited*> datagrams_;
  std::map<ConnectionId, ChunkRef> partials_;
};

}  // namespace ktrunk::worker
