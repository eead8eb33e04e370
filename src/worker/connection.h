// Connection: what one worker knows of one connection. Every worker holds every connection and may send on it; its home
// worker receives from it too. Facts common to all workers are in the slot of the shared region. An idle connection
// costs its own size and no other memory.
#pragma once

#include <chrono>
#include <memory>
#include <utility>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/id.h"
#include "ipc/messages.h"
#include "ipc/shared_region.h"
#include "ktls/control_record.h"
#include "sip/framer.h"
#include "worker/block.h"
#include "worker/control_records.h"
#include "worker/spread.h"

namespace ktrunk::worker {

struct Connection {
  // What the supervisor has asked for; each phase is left only for a later one.
  enum class Phase : std::uint8_t {
    kServing,    // messages are sent (and received, at home)
    kFlushing,   // no new messages; what is queued goes out, then the descriptor is closed
    kFinishing,  // the same, and then the stream is ended: close_notify, FIN
    kReleasing,  // nothing is sent any more; waiting for the last completion
  };
  enum class Sending : std::uint8_t {
    kIdle,      // no send in flight
    kInFlight,  // the head block's send is in flight
    kWaiting,   // for the gate: another worker has it, or records of others must go first
    kHolding,   // our KeyUpdate has gone; the gate stays ours until the new keys are in (Resume)
  };

  Connection(ConnectionId its_id, Fd its_fd, ipc::ConnectionSlot& its_slot, std::size_t max_message_bytes)
      : id(its_id), fd(std::move(its_fd)), slot(&its_slot), framer(max_message_bytes) {}

  ConnectionId id;
  Fd fd;
  ipc::ConnectionSlot* slot;
  Phase phase = Phase::kServing;
  std::uint32_t operations = 0;  // submitted and not completed: the descriptor stays open until it is 0
  Clock::time_point phase_since{};

  // Receiving; at home only.
  bool receiving = false;     // a receive is armed
  bool faulted = false;       // the supervisor has been told; said once
  bool started = false;       // it has been received from
  bool inheriting = false;    // what comes, a predecessor may have passed on already
  bool pong_awaited = false;  // the next CRLF between messages answers our keepalive (RFC 5626 3.5.1)
  sip::Framer framer;
  ChunkRef partial;  // octets of a message that has not wholly arrived; not valid when there are none
  Clock::time_point partial_since{};
  ControlRecords control;
  Heat heat;
  std::unique_ptr<Spread> spread;  // fan_out.h; most have none

  // Sending.
  Sending sending = Sending::kIdle;
  BlockQueue queue;  // the first is the one in flight
  std::size_t queued_bytes = 0;
  std::size_t sent_of_head = 0;  // octets of the first block that are gone
  Clock::time_point sending_since{};
  std::unique_ptr<ktls::AlertMessage> alert;  // what ends the stream, while in flight
  bool dirty = false;                         // on the list of those with something new to send
  bool gate_held = false;
  bool has_key_update = false;           // from a predecessor: the supervisor, who does not know, orders it again
  std::uint8_t errors_of_receiving = 0;  // that sends have met in a row
  bool keeps_unsent = false;             // for the trunk's next connection (ipc::Close::Unsent)
  bool overflowed = false;               // responses for it pile up beyond all bounds: it is to be closed as stalled
  std::uint8_t last_alert = 0;           // what ends the stream: 0 is close_notify

  [[nodiscard]] const ipc::ConnectionInfo& info() const { return slot->info; }
  // The block at the head of the queue is the kernel's.
  [[nodiscard]] bool head_in_flight() const { return sending == Sending::kInFlight; }
  // What has been received waits, and no more is received.
  [[nodiscard]] bool held() const { return spread != nullptr && spread->held; }
  // Another worker is to receive from it.
  [[nodiscard]] bool moving() const { return spread != nullptr && spread->mode == Spread::Mode::kMoving; }
  // Its stream has ended; that is told when what came before has been handled.
  [[nodiscard]] bool at_end() const { return spread != nullptr && spread->end.has_value(); }
  [[nodiscard]] bool accepts_messages() const { return phase == Phase::kServing && slot->open_for(id); }
};

}  // namespace ktrunk::worker
