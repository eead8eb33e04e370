// Admission: which connections that peers open are let in, by limits.handshakes, handshakes_per_address, handshake_rate
// and connections_per_address; counted per address block (base/address_block.h). A handshake process has one, with its
// share of the limits. Pure: the time is passed in, and nothing is closed here.
//
// A process that is full still lets new peers in: the address with the most handshakes in progress loses its oldest, so
// that a crowd that never finishes keeps nobody out. Memory is bounded: an address that has nothing open is forgotten
// once its rate allows a full burst again, or earlier when there are more than kMostAddresses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "base/address_block.h"
#include "base/event_loop.h"
#include "config/config.h"
#include "handshake/token_bucket.h"

namespace ktrunk::handshake {

// The limits of one process.
struct AdmissionLimits {
  std::uint32_t handshakes = 4096;
  std::uint32_t handshakes_per_address = 64;
  std::uint32_t handshake_rate = 100;
  std::uint32_t connections_per_address = 4096;

  // One of `processes`: handshakes and rate are shared, rounded up; the other two hold in each.
  [[nodiscard]] static AdmissionLimits share(const config::Limits& limits, unsigned processes);
};

class Admission {
 public:
  static constexpr std::size_t kMostAddresses = 65536;

  enum class Verdict : std::uint8_t {
    kAdmitted,
    kAddressConnections,  // the address has as many connections as it may
    kAddressHandshakes,   // ... handshakes in progress
    kAddressRate,         // ... begun too many of them of late
  };
  // The configuration's key that says so, "limits.handshake_rate"; empty when admitted.
  [[nodiscard]] static std::string_view limit_of(Verdict verdict);

  struct Answer {
    Verdict verdict = Verdict::kAdmitted;
    // Admitted, but the process was full: the handshake that must go. It counts no longer.
    std::optional<std::uint64_t> give_up;
  };

  explicit Admission(const AdmissionLimits& limits) : limits_(limits) {}
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;

  // A peer has connected and wants a handshake, which is called `key` if it is admitted. Keys only ever grow.
  [[nodiscard]] Answer handshake(std::uint64_t key, const Address& peer, Clock::time_point now);
  // The same where no handshake is to be done: plain TCP.
  [[nodiscard]] Verdict plain(const Address& peer, Clock::time_point now);
  // The handshake has ended, well or not. Nothing happens when it was given up before.
  void ended(std::uint64_t key);
  // Takes out and returns the one that would go next; none when nothing is in progress.
  [[nodiscard]] std::optional<std::uint64_t> take_victim();

  // A connection that a peer made has been handed over, and one is gone: in pairs.
  void opened(const Address& peer, Clock::time_point now);
  void closed(const Address& peer);

  [[nodiscard]] std::size_t in_progress() const { return by_key_.size(); }
  [[nodiscard]] std::size_t addresses() const { return entries_.size(); }

 private:
  struct Entry {
    explicit Entry(const TokenBucket& full) : begins(full) {}

    std::set<std::uint64_t> handshakes;      // in progress; the first is the oldest
    std::uint32_t connections = 0;           // open
    TokenBucket begins;                      // handshakes that may begin
    std::list<AddressBlock>::iterator idle;  // its place there, when it has nothing open
    bool is_idle = false;
  };
  using Entries = std::map<AddressBlock, Entry>;
  // Addresses with handshakes in progress: the one with the most comes first, of several the one with the oldest.
  struct Rank {
    std::size_t handshakes;
    std::uint64_t oldest;
    AddressBlock address;
    bool operator<(const Rank& other) const {
      return handshakes != other.handshakes ? handshakes > other.handshakes : oldest < other.oldest;
    }
  };

  [[nodiscard]] Entries::iterator entry_of(const Address& peer, Clock::time_point now);
  [[nodiscard]] TokenBucket::Limits rate() const;
  void set_idle(Entries::iterator at);
  void set_busy(Entry& entry);
  void forget_idle(Clock::time_point now);
  void rank(const Entries::value_type& item);
  void unrank(const Entries::value_type& item);
  void remove(std::uint64_t key, Entries::iterator at);

  AdmissionLimits limits_;
  Entries entries_;
  std::list<AddressBlock> idle_;  // without anything open; the one not heard of for longest first
  std::set<Rank> ranks_;
  std::map<std::uint64_t, Entries::iterator> by_key_;
};

}  // namespace ktrunk::handshake
