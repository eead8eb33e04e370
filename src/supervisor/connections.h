// Connections: every connection's life after its handshake, from Established to Gone, and its keys meanwhile
// (ipc/messages.h draws both). The supervisor alone changes a slot's state; it keeps a duplicate of each descriptor for
// workers that come later, and what a handshake process has not answered for its successor.
//
// Its parts: connections.cc (offer, open, deaths), connections_closing.cc (closing, retiring), connections_records.cc
// (handshake records and new keys), connections_keys.cc (key limits), connections_handover.cc (upgrades),
// connections_homes.cc (who receives from which).
#pragma once

#include <bitset>
#include <cstdint>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/id.h"
#include "base/spare_memory.h"
#include "config/config.h"
#include "ipc/messages.h"
#include "ipc/shared_region.h"
#include "supervisor/address_counts.h"
#include "supervisor/connection_record.h"
#include "supervisor/ending.h"
#include "supervisor/state.h"

namespace ktrunk::supervisor {

// Handshake processes that have left their places, for their relays to end in peace, are called by indices behind those
// of the places.
inline constexpr unsigned kMostFormerHandshakes = 16;
inline constexpr unsigned kMostHandshakeIndices = ipc::kMaxHandshakeProcesses + kMostFormerHandshakes;

// How Connections reaches the children. Sending to a child that is gone is a no-op: its end is reported separately.
class ChildMail {
 public:
  virtual ~ChildMail() = default;
  virtual void to_worker(WorkerIndex worker, const ipc::Offer& offer, Fd descriptor) = 0;
  virtual void to_worker(WorkerIndex worker, const ipc::Start& start) = 0;
  virtual void to_worker(WorkerIndex worker, const ipc::Serve& serve) = 0;
  virtual void to_worker(WorkerIndex worker, const ipc::Close& close) = 0;
  virtual void to_worker(WorkerIndex worker, const ipc::SendControl& control) = 0;
  virtual void to_worker(WorkerIndex worker, const ipc::Resume& resume) = 0;
  virtual void to_worker(WorkerIndex worker, const ipc::Move& move) = 0;
  virtual void to_handshake(HandshakeIndex process, const ipc::Admitted& admitted) = 0;
  virtual void to_handshake(HandshakeIndex process, const ipc::Refused& refused) = 0;
  virtual void to_handshake(HandshakeIndex process, const ipc::Gone& gone) = 0;
  virtual void to_handshake(HandshakeIndex process, const ipc::PostHandshake& record, Fd descriptor) = 0;
  virtual void to_handshake(HandshakeIndex process, const ipc::InstallTransmit& install, Fd descriptor) = 0;
  virtual void to_handshake(HandshakeIndex process, const ipc::Renew& renew) = 0;
  virtual void ring(ipc::WorkerMask workers) = 0;
};

// What `ktrunk status` tells of a connection beside what stands in its slot.
struct ConnectionView {
  HandshakeIndex owner;
  bool retired = false;
  std::uint32_t transmit_renewals = 0;
  std::uint32_t receive_renewals = 0;
};

class Connections {
 public:
  // All three outlive it. receivers: how many workers may receive at a time, at least one.
  Connections(const config::Config& config, const ipc::SharedRegion& region, ChildMail& mail, unsigned receivers);

  // From a handshake process. False: the message does not fit what that process owns or was told; end it.
  // Of a connection that is gone, or on its way out, any message is late and of no consequence.
  [[nodiscard]] bool established(HandshakeIndex process, const ipc::Established& message, Fd descriptor);
  // Of a relayed connection: its relay broke, which the process has logged; the end is what workers then report.
  [[nodiscard]] bool fault(HandshakeIndex process, const ipc::Fault& message);
  [[nodiscard]] bool send_control(HandshakeIndex process, const ipc::SendControl& message);
  [[nodiscard]] bool resume(HandshakeIndex process, const ipc::Resume& message);
  [[nodiscard]] bool retire(HandshakeIndex process, const ipc::Retire& message);

  // What a process died of: of what it did, or of somebody's SIGKILL, which no connection is to blame for.
  enum class Cause : std::uint8_t { kItself, kKilled };

  // A handshake process has been set up: it is told again what its predecessor did not answer.
  void handshake_ready(HandshakeIndex process);
  // A handshake process has died: its references mean nothing to its successor, who owns its connections now. A
  // connection whose owners die again and again of what it has for them is closed.
  void handshake_ended(HandshakeIndex process, Cause cause);

  // A handshake process leaves its place in order. Its relays, and only these, are from now on those of `keeps_relays`,
  // as which it goes on; not valid: it has none that are to last. All else is its successor's.
  void handshake_left(HandshakeIndex process, HandshakeIndex keeps_relays);
  [[nodiscard]] std::size_t relays_of(HandshakeIndex process) const;
  // Retires them all.
  void retire_relays(HandshakeIndex process);
  // Who relays a connection; not valid: nobody does.
  [[nodiscard]] HandshakeIndex relaying(ConnectionId id) const;

  // For an upgrade: all that is known beside what stands in the region. restore: right after the construction.
  void save(StateWriter& state) const;
  void restore(StateReader& state);

  // From a worker. False: the message does not fit what that worker was told; end it.
  [[nodiscard]] bool held(WorkerIndex worker, ConnectionId id);
  [[nodiscard]] bool fault(WorkerIndex worker, const ipc::Fault& message);
  [[nodiscard]] bool released(WorkerIndex worker, ConnectionId id);
  [[nodiscard]] bool handshake_octets(WorkerIndex worker, const ipc::HandshakeOctets& message);
  [[nodiscard]] bool control_sent(WorkerIndex worker, const ipc::ControlSent& message);
  [[nodiscard]] bool moved(WorkerIndex worker, const ipc::Moved& message);

  // A worker has been set up: it is offered every connection there is, goes on with those whose home it is, and serves.
  void worker_ready(WorkerIndex worker);
  // ... and has been told to serve.
  [[nodiscard]] bool serves(WorkerIndex worker) const { return workers_[worker.value].serving; }
  // A worker has died. kEstate: its successor goes on with all that it left. kNothing: that is given up; connections
  // that it received from, or was in the middle of writing to, are closed.
  enum class Left : std::uint8_t { kEstate, kNothing };
  void worker_ended(WorkerIndex worker, Left left);
  // Whose a message of that connection is, for the log.
  [[nodiscard]] std::string sender_of(ConnectionId id) const;
  // A worker died of a message of that connection. One that this happens to again and again is closed.
  void blame(ConnectionId id);

  // Now and then: has keys renewed that have done their limits.key_records, closes retired connections that have
  // become quiet, and moves a connection from a worker that has far more to do than another. kLookAgain is how often;
  // kLookSoon where limits are low, or it did not get through all of them.
  static constexpr std::chrono::milliseconds kLookAgain{1000};
  static constexpr std::chrono::milliseconds kLookSoon{100};
  void look(Clock::time_point now);
  [[nodiscard]] std::chrono::milliseconds look_interval() const;

  // Closes everything, in order: what is queued goes out, then close_notify.
  void close_all();
  [[nodiscard]] std::size_t count() const { return in_use_; }
  [[nodiscard]] ConnectionView view(SlotIndex slot) const;

  // The home of the next connection: the worker with the least to do of those that may receive, which are the first
  // that are there.
  [[nodiscard]] WorkerIndex least_loaded() const;

 private:
  using Record = ConnectionRecord;
  using Stage = ConnectionRecord::Stage;
  struct WorkerState {
    bool ready = false;
    unsigned homes = 0;             // connections that it receives from
    unsigned offers_in_flight = 0;  // sent and not Held
    std::size_t first_offers = 0;   // of what there was when it was set up: not Held yet
    bool serving = false;           // it has been told Serve
    std::uint64_t handled = 0;      // messages, when that was looked at last
    double rate = 0;                // messages a second, between the last two looks
    std::deque<ConnectionId> offers_waiting;
  };

  [[nodiscard]] ConnectionId id_of(std::uint32_t slot) const;
  [[nodiscard]] const Record* find(ConnectionId id) const;
  [[nodiscard]] Record* find(ConnectionId id) { return const_cast<Record*>(std::as_const(*this).find(id)); }
  [[nodiscard]] const ipc::ConnectionInfo& info_of(ConnectionId id) const { return region_.slot(id.slot).info; }
  [[nodiscard]] std::string name_of(ConnectionId id) const { return connection_name(config_, info_of(id)); }
  void set_state(ConnectionId id, ipc::SlotState state, WorkerIndex home);
  [[nodiscard]] WorkerIndex home_of(ConnectionId id) const;
  void set_home(ConnectionId id, ipc::SlotState state, WorkerIndex home);

  [[nodiscard]] bool refuse(HandshakeIndex process, const ipc::Established& message);
  void clear_slot(SlotIndex slot, HandshakeIndex made_by, const ipc::Established& message);
  void offer(WorkerIndex worker, ConnectionId id);
  void send_waiting_offers(WorkerIndex worker);
  void begin_service(WorkerIndex worker);
  void start(WorkerIndex home, ConnectionId id, const Record& record);
  void repair_gate(ConnectionId id, Record& record);
  void open_if_held(ConnectionId id, Record& record);
  void list_on_trunk(ConnectionId id, Record& record);
  void unlist_from_trunk(ConnectionId id);
  // We make the connection again at once: what is queued for its trunk, and what comes, waits for the next one.
  [[nodiscard]] bool is_made_again(ConnectionId id, const Record& record) const;

  [[nodiscard]] bool is_relay_of(HandshakeIndex process, std::uint32_t slot) const;
  void end(const ipc::Fault& fault, Record& record);
  void begin_close(ConnectionId id, Record& record);
  void advance_close(ConnectionId id, Record& record);
  void free_slot(ConnectionId id, Record& record);
  void let_linger(ConnectionId id, Record& record);
  void tell_close(ipc::WorkerMask workers, ConnectionId id, const Record& record, ipc::Close::How how);
  [[nodiscard]] static bool is_retired(const Record& record) { return record.extras && record.extras->retirement; }
  void retire(ConnectionId id, Record& record);
  void look_at_retired(Clock::time_point now);
  void look_at_lingering(Clock::time_point now);
  [[nodiscard]] std::uint64_t activity_of(ConnectionId id) const;

  // A duplicate of the connection's socket; without one the connection is closed, and nothing comes back.
  [[nodiscard]] std::optional<Fd> duplicate(ConnectionId id, Record& record);
  void pass_on(ConnectionId id, Record& record, const UnansweredOctets& unanswered);
  void ask_to_install(ConnectionId id, Record& record);
  void renewed(ConnectionId id, Record& record, ipc::Renew::Which which);

  [[nodiscard]] std::uint64_t records_of(SlotIndex slot, ipc::Renew::Which which) const;
  void look_at_keys(std::uint32_t slot, Clock::time_point now);
  [[nodiscard]] bool look_at_key(ConnectionId id, Record& record, ipc::Renew::Which which, std::uint64_t records,
                                 Clock::time_point now);

  // Moves of connections to another home; one at a time.
  struct Counted {
    ConnectionId connection;
    std::uint64_t records = 0;
  };
  struct Move {
    ConnectionId connection;  // that has been asked for; not valid: none
    WorkerIndex to;
    Clock::time_point not_before{};
    WorkerIndex from;             // has far more to do than another
    std::vector<Counted> counts;  // what its connections had received then
  };
  void look_at_homes(Clock::time_point now);
  void plan_move(Clock::time_point now);
  [[nodiscard]] bool may_move(ConnectionId id);
  void begin_move(Clock::time_point now, WorkerIndex from, WorkerIndex to, double more,
                  const std::vector<Counted>& before);

  const config::Config& config_;
  const ipc::SharedRegion& region_;
  ChildMail& mail_;
  std::vector<Record> records_;  // by slot
  std::vector<std::uint32_t> free_;
  std::vector<WorkerState> workers_;
  const unsigned receivers_;
  std::vector<ConnectionId> retired_;
  // Sockets of connections that have ended in order, whose peers have not taken all yet: were they closed now, the
  // kernel could throw the rest away.
  struct Lingering {
    Fd socket;
    Clock::time_point until;
    enum class Stream : std::uint8_t { kOpen, kHasRoom, kEnded } stream = Stream::kOpen;
  };
  [[nodiscard]] static bool is_done(Lingering& socket);
  std::deque<Lingering> lingering_;
  AddressCounts accepted_;
  SpareMemory spare_;
  std::bitset<kMostHandshakeIndices> handshakes_ready_;
  std::size_t in_use_ = 0;
  Clock::time_point measured_at_{};
  Move move_;
  std::uint32_t look_at_ = 0;  // the slot to begin the next look with
};

}  // namespace ktrunk::supervisor
