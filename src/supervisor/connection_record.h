// ConnectionRecord: what the supervisor remembers of one connection, beside what stands in the shared region. Ten
// thousand idle ones must stay small: what few connections have at a time lies behind a pointer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/id.h"
#include "ipc/messages.h"
#include "ipc/shared_region.h"

namespace ktrunk::supervisor {

// The keys of one direction, as far as they wear out.
struct KeyAge {
  std::uint64_t renewed_at = 0;            // the direction's count of records when its keys were last renewed
  std::uint32_t renewals = 0;              // how often they were
  std::optional<Clock::time_point> asked;  // Renew has gone to the owner last, and nothing has come of it yet
  Clock::time_point first_asked{};
};

// Octets of a handshake record that the owner has been told of and has not answered.
struct UnansweredOctets {
  std::vector<std::byte> octets;
  ipc::HandshakeOctets::Place place = ipc::HandshakeOctets::Place::kEndOfRecord;
};

// A connection that gets no new traffic and is closed once it is quiet. Nothing is filled in before it is first looked
// at.
struct Retirement {
  std::optional<Clock::time_point> since;
  Clock::time_point quiet_since{};
  std::uint64_t activity = 0;  // messages sent and records received
};

struct ConnectionExtras {
  std::vector<UnansweredOctets> unanswered;  // oldest first
  std::size_t unanswered_bytes = 0;
  // Our own KeyUpdate: being sent by the home worker, then waiting for the owner to install what follows it.
  enum class KeyUpdate : std::uint8_t { kNone, kSending, kInstalling } key_update = KeyUpdate::kNone;
  ipc::SendControl key_update_order;  // kSending: what the home worker was told
  KeyAge transmit;
  KeyAge receive;
  // Owners that died while they had something to answer: what kills one may kill the next.
  unsigned deaths = 0;
  unsigned worker_deaths = 0;  // over messages from it
  ConnectionId replaces;       // until it is open
  std::optional<Retirement> retirement;

  [[nodiscard]] KeyAge& age(ipc::Renew::Which which) {
    return which == ipc::Renew::Which::kTransmit ? transmit : receive;
  }
  // The owner has been told of something that it has not answered.
  [[nodiscard]] bool awaits_owner() const { return !unanswered.empty() || key_update == KeyUpdate::kInstalling; }
  // Nothing in it differs from none at all.
  [[nodiscard]] bool idle() const {
    return unanswered.empty() && key_update == KeyUpdate::kNone && unused(transmit) && unused(receive) &&
           worker_deaths == 0 && !replaces.valid() && !retirement;
  }

 private:
  [[nodiscard]] static bool unused(const KeyAge& age) { return age.renewals == 0 && !age.asked; }
};

struct ConnectionRecord {
  enum class Stage : std::uint8_t {
    kFree,
    kOffered,  // awaiting Held from the workers in `awaited`
    kOpen,
    kFlushing,   // awaiting Released from every worker but the last, which will end the stream
    kFinishing,  // awaiting Released from the last one
  };

  Stage stage = Stage::kFree;
  HandshakeIndex owner;
  std::uint8_t alert = 0;         // the alert that ends the stream
  bool abort : 1 = false;         // no flush, no alert: the stream is broken
  bool tls : 1 = false;           // it has keys that wear out
  bool at_once : 1 = false;       // Gone.again
  bool elsewhere : 1 = false;     // the same
  bool relay_broken : 1 = false;  // its handshake process has said so, and logged why
  Fd descriptor;
  std::uint64_t reference = 0;  // the owner's number; 0: an earlier life of it made the connection
  ipc::WorkerMask awaited = 0;
  ipc::WorkerMask holders = 0;  // workers that have been offered it and have not released it
  std::unique_ptr<ConnectionExtras> extras;

  [[nodiscard]] ConnectionExtras& more() {
    if (extras == nullptr) extras = std::make_unique<ConnectionExtras>();
    return *extras;
  }
  void shed() {
    if (extras != nullptr && extras->idle()) extras.reset();
  }
};
static_assert(sizeof(ConnectionRecord) <= 32);

}  // namespace ktrunk::supervisor
