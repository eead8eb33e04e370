// SharedRegion: the memory that all processes of one ktrunkd map, from a memfd that the supervisor makes.
//
// Every field has one writer, named beside it, and is published with one atomic store, so that a process may die at
// any instruction and leave nothing half-written that another relies on. A slot's constant part (ConnectionInfo) is
// written before the state word that makes it visible, and not again until the slot's next life.
//
//   RegionHeader | ConnectionSlot[max_connections] | TrunkEntry[trunks] | WorkerStats[workers] |
//   HandshakeStats[handshakes] | SentCounts[max_connections][workers] | INVITEs |
//   Handover[workers][workers]
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/address.h"
#include "base/fd.h"
#include "base/id.h"
#include "base/result.h"
#include "ipc/handover.h"
#include "ipc/limits.h"
#include "ipc/messages.h"
#include "ipc/send_gate.h"
#include "ipc/shared.h"
#include "ipc/trunk_health.h"
#include "ipc/trunk_limits.h"

namespace ktrunk::ipc {

enum class SlotState : std::uint8_t {
  kFree,     // no connection
  kOffered,  // its descriptor is being given to the workers
  kOpen,     // every worker holds it: send and receive
  kClosing,  // no new messages; waiting for every worker to let go
};

// The word of a slot that says what it holds: one atomic load tells generation, state and home worker together.
struct SlotWord {
  Generation generation{0};
  SlotState state = SlotState::kFree;
  WorkerIndex home;

  [[nodiscard]] std::uint64_t pack() const {
    return std::uint64_t{generation.value} << 32 | std::uint64_t{home.value} << 8 | static_cast<std::uint64_t>(state);
  }
  [[nodiscard]] static SlotWord unpack(std::uint64_t word) {
    return {Generation{static_cast<std::uint32_t>(word >> 32)}, static_cast<SlotState>(word & 0xff),
            WorkerIndex{static_cast<std::uint8_t>(word >> 8 & 0xff)}};
  }
};

struct alignas(64) ConnectionSlot {
  Shared<std::uint64_t> word{0};  // a SlotWord; writer: supervisor
  ConnectionInfo info;            // writer: supervisor, before the word leaves kFree
  // Who made the connection, and as which of its Established: by that a successor who was not told of the slot knows
  // it (vault.h). Writer: supervisor, as info.
  HandshakeIndex made_by;
  std::uint64_t reference = 0;
  // Records received, about (worker/receiver.cc says how), for key limits; writer: home worker (the supervisor clears
  // it between two lives).
  std::atomic<std::uint64_t> records_received{0};
  // The number of the last HandshakeOctets that the supervisor has: a home worker's successor does not pass it on
  // again. Writer: supervisor.
  Shared<std::uint64_t> octets_number{0};
  PeerHealth health;  // of a trunk's connection; asked by the home worker (the supervisor clears it between two lives)
  // Its messages are spread over all workers (worker/fan_out.h); a home worker's successor goes on so. Writer: home
  // worker (the supervisor clears it between two lives).
  Shared<std::uint8_t> spread{0};
  alignas(64) SendGate gate;

  [[nodiscard]] SlotWord state() const { return SlotWord::unpack(word.load(std::memory_order_acquire)); }
  // True when `id` is the connection in this slot and messages may be sent on it.
  [[nodiscard]] bool open_for(ConnectionId id) const {
    const SlotWord now = state();
    return now.state == SlotState::kOpen && now.generation == id.generation;
  }
};

// A trunk's UDP targets have so many places for addresses each, the first target's before the second's: what it
// resolves to, in the order in which it is to be tried.
[[nodiscard]] constexpr unsigned udp_places(std::size_t targets) {
  return static_cast<unsigned>(targets == 0 || targets > kMaxTargets ? 1 : kMaxTargets / targets);
}

// What the workers must know of a trunk; writer: supervisor.
struct alignas(64) TrunkEntry {
  // Open connections as slot << 32 | generation; kNoConnection where there is none. Read without a lock: an entry may
  // be stale by the time it is used, which the slot's own word then tells.
  static constexpr std::uint64_t kNoConnection = ~std::uint64_t{0};
  std::array<Shared<std::uint64_t>, kMaxTrunkConnections> connections;
  // Behind these places none has ever been used: nobody need look there. Stored before a place is.
  Shared<std::uint32_t> places{0};

  [[nodiscard]] static std::uint64_t pack(ConnectionId id) {
    return std::uint64_t{id.slot.value} << 32 | id.generation.value;
  }
  void list(unsigned place, ConnectionId id) {
    if (places.load(std::memory_order_relaxed) <= place) places.store(place + 1, std::memory_order_release);
    connections[place].store(pack(id), std::memory_order_release);
  }
  [[nodiscard]] ConnectionId connection(unsigned place) const {
    const std::uint64_t word = connections[place].load(std::memory_order_acquire);
    if (word == kNoConnection) return {};
    return {SlotIndex{static_cast<std::uint32_t>(word >> 32)}, Generation{static_cast<std::uint32_t>(word)}};
  }

  // A connection that we made has ended for a reason that a new one does away with, and that one is being made. Until
  // it is there, or the time is over, messages for the trunk wait in the workers.
  struct Awaited {
    config::Transport transport = config::Transport::kTls;  // as the one before
    std::chrono::steady_clock::time_point until;            // one clock for all processes
  };
  Shared<std::uint64_t> awaited{0};  // milliseconds << 8 | transport; 0: none is awaited
  void await(const Awaited& next) {
    const auto until = std::chrono::duration_cast<std::chrono::milliseconds>(next.until.time_since_epoch()).count();
    awaited.store(static_cast<std::uint64_t>(until) << 8 | static_cast<std::uint64_t>(next.transport),
                  std::memory_order_release);
  }
  [[nodiscard]] std::optional<Awaited> awaits(std::chrono::steady_clock::time_point now) const {
    const std::uint64_t word = awaited.load(std::memory_order_acquire);
    const std::chrono::steady_clock::time_point until{std::chrono::milliseconds(word >> 8)};
    if (now >= until) return std::nullopt;
    return Awaited{.transport = static_cast<config::Transport>(word & 0xff), .until = until};
  }

  // Addresses of UDP targets. The writer fills the copy that `current` does not name, then flips it (0: none yet, else
  // copy number + 1); a change comes at most once per name resolution, so that a reader's copy stays still.
  struct UdpTarget {
    std::array<Address, 2> copies;
    Shared<std::uint32_t> current{0};
    std::atomic<std::uint16_t> path_mtu{0};  // 0: not known
    PeerHealth health;                       // asked by worker watcher_of()
  };
  std::array<UdpTarget, kMaxTargets> udp;  // by place, see udp_places()
  [[nodiscard]] Address udp_address(unsigned target) const {
    const std::uint32_t now = udp[target].current.load(std::memory_order_acquire);
    return now == 0 ? Address() : udp[target].copies[now - 1];
  }

  // max_requests_per_second and max_invites (trunk_limits.h); writers: all workers.
  RateLimit rate;
  Shared<std::uint32_t> invites{0};
  // Where the trunk's part of the table of INVITEs begins, and its length; written before any child is there.
  std::uint32_t invites_begin = 0;
  std::uint32_t invites_size = 0;
  // The same for INVITEs to UDP targets that went by TCP, being large: their ACKs and CANCELs follow them.
  Shared<std::uint32_t> large_invites{0};
  std::uint32_t large_invites_begin = 0;
  std::uint32_t large_invites_size = 0;
};

// The worker that asks the UDP targets of a trunk, and looks after its table of INVITEs.
[[nodiscard]] constexpr WorkerIndex watcher_of(TrunkId trunk, unsigned workers) {
  return WorkerIndex{static_cast<std::uint8_t>(trunk.value % workers)};
}

// A count with one writer; others may read it at any time.
class Counter {
 public:
  void add(std::uint64_t n = 1) { value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed); }
  void subtract() { value_.store(value_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed); }
  void set(std::uint64_t n) { value_.store(n, std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t read() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

// Writer: that worker. The counts go on when a worker is restarted.
struct alignas(64) WorkerStats {
  Counter messages_received;
  Counter requests_forwarded;
  Counter responses_forwarded;
  Counter replies;     // made here: errors, OPTIONS
  Counter dropped;     // messages that have no way on: late responses, ACKs
  Counter queue_full;  // requests answered 503 because the next hop's queue was full
  Counter keepalives;  // CRLF pings answered
  Counter messages_sent;
  Counter kernel_records_sent;  // sends on kTLS sockets, one record each (16384 octets at most)
  Counter relay_packets_sent;
  Counter bytes_sent;
  Counter control_records;   // received: alerts, tickets, KeyUpdate
  Counter submits;           // io_uring_enter calls
  Counter key_updates_sent;  // records of our own KeyUpdates that went out
  Counter handed_over;       // messages received here and given to other workers to handle
  Counter hep_sent;          // messages for hep.collector that the kernel took
  Counter hep_dropped;       // it did not, or a datagram does not hold them
  Counter traced;            // messages for `ktrunk trace`
  Counter trace_dropped;     // those that it was too slow for, or that were too long
};

// Writer: that handshake process. The counts go on when it is restarted.
struct alignas(64) HandshakeStats {
  Counter accepted;  // connections handed over, by origin
  Counter connected;
  Counter failed;  // handshakes that came to nothing
  Counter resumed;
  Counter kernel;  // handed over with the kernel's record layer
  Counter relayed;
  Counter tickets;           // session tickets of peers, kept for our next connection
  Counter receive_rekeyed;   // KeyUpdates of peers that were followed
  Counter transmit_rekeyed;  // our own
  Counter replaced;          // connections made to take another's place because its keys were used up
  Counter refused;           // by admission: address or process had too many in progress, or came too fast
  Counter in_progress;       // handshakes at this moment
};

// Messages and records that one worker has sent on one connection; writer: that worker (the supervisor clears it
// between two lives of the slot).
struct SentCounts {
  std::atomic<std::uint64_t> messages{0};
  std::atomic<std::uint64_t> records{0};
  std::atomic<std::uint64_t> queued{0};  // octets that wait to be sent, as at the end of a turn of its loop
};

// 32 octets that nobody can guess, which all workers sign flow tokens with.
struct TokenSecret {
  std::array<unsigned char, 32> bytes{};
};

// What makes tokens good beyond the life of this region: a secret that is there at its next life, and the number that
// slots' generations begin behind, by chance: a connection of one life has not the id of another one's.
struct TokenSeed {
  TokenSecret secret;
  Generation first_generation{0};
};

struct RegionSizes {
  std::uint32_t workers = 1;
  std::uint32_t handshakes = 1;
  std::uint32_t max_connections = 0;
  std::uint32_t trunks = 0;
  std::uint32_t invites = 0;  // words of all trunks' tables of INVITEs, large ones too
};

class SharedRegion {
 public:
  // Supervisor: makes the memory and initialises it. Without a seed the secret is fresh from the kernel's random
  // generator.
  [[nodiscard]] static Result<SharedRegion> create(const RegionSizes& sizes,
                                                   const std::optional<TokenSeed>& seed = std::nullopt);
  // Child: maps what it has been sent. Checks magic, version and size.
  [[nodiscard]] static Result<SharedRegion> map(Fd memory);

  SharedRegion(SharedRegion&& other) noexcept;
  SharedRegion& operator=(SharedRegion&& other) noexcept;
  ~SharedRegion();

  [[nodiscard]] const RegionSizes& sizes() const { return sizes_; }
  [[nodiscard]] const TokenSecret& secret() const;
  // Of the next connection in this slot.
  [[nodiscard]] Generation next_generation(SlotIndex index) const;
  [[nodiscard]] ConnectionSlot& slot(SlotIndex index) const { return slots_[index.value]; }
  [[nodiscard]] TrunkEntry& trunk(TrunkId trunk) const { return trunks_[trunk.value]; }
  // Of a trunk with max_invites.
  [[nodiscard]] InviteTable invites(TrunkId id) const {
    TrunkEntry& entry = trunk(id);
    return {std::span(invites_ + entry.invites_begin, entry.invites_size), entry.invites};
  }
  // Of a trunk with large_requests = "tcp".
  [[nodiscard]] InviteTable large_invites(TrunkId id) const {
    TrunkEntry& entry = trunk(id);
    return {std::span(invites_ + entry.large_invites_begin, entry.large_invites_size), entry.large_invites,
            kLargeInviteLifetime};
  }
  [[nodiscard]] WorkerStats& worker(WorkerIndex worker) const { return workers_[worker.value]; }
  [[nodiscard]] HandshakeStats& handshake(HandshakeIndex process = HandshakeIndex{0}) const {
    return handshakes_[process.value];
  }
  [[nodiscard]] SentCounts& sent(SlotIndex slot, WorkerIndex worker) const {
    return sent_[std::size_t{slot.value} * sizes_.workers + worker.value];
  }
  [[nodiscard]] Handovers handovers() const { return {handovers_, sizes_.workers}; }
  [[nodiscard]] int descriptor() const { return memory_.get(); }

  // Version and sizes, for layout.h.
  [[nodiscard]] static std::string layout();

 private:
  SharedRegion() = default;
  void lay_out();

  Fd memory_;
  std::byte* base_ = nullptr;
  std::size_t bytes_ = 0;
  RegionSizes sizes_;
  ConnectionSlot* slots_ = nullptr;
  TrunkEntry* trunks_ = nullptr;
  WorkerStats* workers_ = nullptr;
  HandshakeStats* handshakes_ = nullptr;
  Shared<std::uint64_t>* invites_ = nullptr;
  SentCounts* sent_ = nullptr;
  Handover* handovers_ = nullptr;
};

static_assert(Shared<std::uint64_t>::is_always_lock_free);
static_assert(sizeof(ConnectionSlot) % 64 == 0);

}  // namespace ktrunk::ipc
