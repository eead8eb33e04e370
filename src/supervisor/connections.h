// Connections: every connection's life after its handshake, from Established to Gone (ipc/messages.h draws it). The
// supervisor alone changes a slot's state; it keeps a duplicate of each descriptor for workers that come later.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <vector>

#include "base/fd.h"
#include "base/id.h"
#include "ipc/messages.h"
#include "ipc/shared_region.h"

namespace ktrunk::supervisor {

// How Connections reaches the children. Sending to a child that is gone is a no-op: its end is reported separately.
class ChildMail {
 public:
  virtual ~ChildMail() = default;
  virtual void to_worker(WorkerIndex worker, const ipc::Offer& offer, Fd descriptor) = 0;
  virtual void to_worker(WorkerIndex worker, const ipc::Start& start) = 0;
  virtual void to_worker(WorkerIndex worker, const ipc::Close& close) = 0;
  virtual void to_handshake(HandshakeIndex process, const ipc::Admitted& admitted) = 0;
  virtual void to_handshake(HandshakeIndex process, const ipc::Refused& refused) = 0;
  virtual void to_handshake(HandshakeIndex process, const ipc::Gone& gone) = 0;
  virtual void ring(ipc::WorkerMask workers) = 0;
};

class Connections {
 public:
  Connections(const ipc::SharedRegion& region, ChildMail& mail);

  // From a handshake process, which is the connection's owner from now on.
  void established(HandshakeIndex process, const ipc::Established& message, Fd descriptor);
  // A handshake process has died: its references mean nothing to its successor, who owns its connections now.
  void handshake_ended(HandshakeIndex process);

  // From a worker. False: the message does not fit what that worker was told; end it.
  [[nodiscard]] bool held(WorkerIndex worker, ConnectionId id);
  [[nodiscard]] bool fault(WorkerIndex worker, const ipc::Fault& message);
  [[nodiscard]] bool released(WorkerIndex worker, ConnectionId id);

  // A worker has been set up: it is offered every connection there is.
  void worker_ready(WorkerIndex worker);
  // A worker has died: what it held is repaired; connections that it received from are closed, as octets that it had
  // read and not passed on are lost with it.
  void worker_ended(WorkerIndex worker);

  // Closes everything, in order: what is queued goes out, then close_notify.
  void close_all();
  [[nodiscard]] std::size_t count() const { return in_use_; }

  // The home of the next connection: the worker that receives from the fewest.
  [[nodiscard]] WorkerIndex least_loaded() const;

 private:
  enum class Stage : std::uint8_t {
    kFree,
    kOffered,  // awaiting Held from the workers in `awaited`
    kOpen,
    kFlushing,   // awaiting Released from every worker but the last, which will end the stream
    kFinishing,  // awaiting Released from the last one
  };
  struct Record {
    Stage stage = Stage::kFree;
    HandshakeIndex owner;
    Fd descriptor;
    std::uint64_t reference = 0;  // the owner's number; 0: an earlier life of it made the connection
    ipc::WorkerMask awaited = 0;
    ipc::WorkerMask holders = 0;  // workers that have been offered it and have not released it
    std::uint8_t alert = 0;       // the alert that ends the stream
    bool abort = false;           // no flush, no alert: the stream is broken
  };
  struct WorkerState {
    bool ready = false;
    unsigned homes = 0;             // connections that it receives from
    unsigned offers_in_flight = 0;  // sent and not Held
    std::deque<ConnectionId> offers_waiting;
  };

  [[nodiscard]] ConnectionId id_of(std::uint32_t slot) const;
  [[nodiscard]] Record* find(ConnectionId id);
  void set_state(ConnectionId id, ipc::SlotState state, WorkerIndex home);
  [[nodiscard]] WorkerIndex home_of(ConnectionId id) const;
  void set_home(ConnectionId id, ipc::SlotState state, WorkerIndex home);

  void offer(WorkerIndex worker, ConnectionId id);
  void send_waiting_offers(WorkerIndex worker);
  void open_if_held(ConnectionId id, Record& record);
  void begin_close(ConnectionId id, Record& record);
  void advance_close(ConnectionId id, Record& record);
  void free_slot(ConnectionId id, Record& record);
  void list_on_trunk(ConnectionId id);
  void unlist_from_trunk(ConnectionId id);
  void tell_close(ipc::WorkerMask workers, ConnectionId id, const Record& record, ipc::Close::How how);

  const ipc::SharedRegion& region_;
  ChildMail& mail_;
  std::vector<Record> records_;  // by slot
  std::vector<std::uint32_t> free_;
  std::vector<WorkerState> workers_;
  std::size_t in_use_ = 0;
};

}  // namespace ktrunk::supervisor
