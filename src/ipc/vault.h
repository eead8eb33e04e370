// Vault: the secrets that must outlive a handshake process: per connection what its next keys are derived from
// (RFC 8446 7.2), and the keys of session tickets (RFC 5077 4). It is memory that the supervisor makes and never maps,
// and that handshake processes alone map: so a killed one's successor goes on with every connection.
//
//   VaultEntry[max_connections] | TicketKeyRing | Unanswered[kMaxHandshakeProcesses]
//
// The memory is a memfd_secret(2), which not even the kernel's own mappings show; where the kernel has none, a sealed
// memfd that is locked in memory. It is kept out of core dumps, out of forks, and a page is taken only when it is used:
// an idle connection costs its entry, kVaultEntryBytes.
//
// An entry has one writer, the handshake process whose index stands in it. Every change becomes visible with one store,
// so that a process may die at any instruction: what was not published does not count.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/fd.h"
#include "base/id.h"
#include "base/result.h"
#include "ipc/limits.h"
#include "ipc/shared.h"

namespace ktrunk::ipc {

inline constexpr std::size_t kVaultSecretBytes = 48;  // the longest traffic secret: SHA-384

// One direction's traffic secret, and while it is being replaced the next one too. Two places: `step` says which holds
// the secret in force, and whether the other holds one whose keys are about to be, or have just been, installed.
class VaultSecret {
 public:
  using Octets = std::array<std::byte, kVaultSecretBytes>;

  [[nodiscard]] const Octets& current() const { return places_[place()]; }
  // The next secret, when an installation was begun and its end is not recorded. Whether its keys are in, only the
  // socket can tell.
  [[nodiscard]] const Octets* pending() const { return begun() ? &places_[1 - place()] : nullptr; }

  // The secret at the start; nothing pending.
  void begin(std::span<const std::byte> secret);
  // Before the next keys are installed.
  void prepare(std::span<const std::byte> next);
  // They are in: the pending secret is the current one, and the old one is overwritten.
  void commit();
  // They are not, and will not be.
  void abandon();
  void wipe();

 private:
  static constexpr std::uint8_t kPlace = 1;
  static constexpr std::uint8_t kBegun = 2;
  [[nodiscard]] std::size_t place() const { return step_.load(std::memory_order_acquire) & kPlace; }
  [[nodiscard]] bool begun() const { return (step_.load(std::memory_order_acquire) & kBegun) != 0; }

  std::array<Octets, 2> places_;
  Shared<std::uint8_t> step_;
};

// What a connection is, as far as its keys go. Version, AEAD and hash are ktls::Version, ktls::Aead and ktls::Hash:
// this folder knows no cryptography.
struct VaultSuite {
  std::uint8_t version = 0;
  std::uint8_t aead = 0;
  std::uint8_t hash = 0;
  enum class Role : std::uint8_t { kServer, kClient } role = Role::kServer;
};

// Where the stream of handshake messages stands, when it does not stand between two messages and two records: octets of
// a message whose rest is to come, and the record that was looked at last, so that a successor knows it when it is told
// of it again.
struct VaultStream {
  std::array<std::byte, 4> header{};  // of the message that has begun: type and length, as far as they have come
  std::uint32_t have = 0;             // octets of it that have come, header included
  std::uint64_t last_record = 0;      // digest of the record
  friend bool operator==(const VaultStream&, const VaultStream&) = default;
};

class alignas(64) VaultEntry {
 public:
  // What the entry holds the keys of; nothing when it is empty.
  struct Holder {
    Generation generation;
    HandshakeIndex owner;
    friend bool operator==(Holder, Holder) = default;
  };
  [[nodiscard]] std::optional<Holder> holder() const;

  // The owner fills what follows, then publish() makes it an entry. wipe() ends it and overwrites every octet.
  void publish(Holder holder);
  void wipe();
  // Fills it with the current secrets of another one, which may be gone afterwards.
  void take(const VaultEntry& other);

  VaultSuite suite;
  VaultSecret transmit;  // empty under TLS 1.2, which has no key updates
  VaultSecret receive;

  [[nodiscard]] std::optional<VaultStream> stream() const;
  void set_stream(const std::optional<VaultStream>& stream);

 private:
  // One word: generation, owner and "is there"; 0 is empty, as fresh memory is.
  Shared<std::uint64_t> word_;
  std::array<VaultStream, 2> streams_;
  Shared<std::uint8_t> stream_at_;  // 0: none, else place + 1
};
inline constexpr std::size_t kVaultEntryBytes = 256;

// Keys of session tickets: the newest four. Writer: handshake process 0; all of them read.
struct TicketKey {
  std::array<std::byte, 16> name;
  std::array<std::byte, 32> aes;
  std::array<std::byte, 32> mac;
  std::uint64_t made_at;  // seconds since the epoch
};
struct TicketKeyRing {
  static constexpr std::uint32_t kKeys = 4;
  std::array<TicketKey, kKeys> keys;
  // How many keys have ever been made: key number n (from 1) is in place (n - 1) % kKeys, and the current one is number
  // `current`; 0: none yet. The writer fills the next place, which holds the oldest key or none, then stores its
  // number.
  Shared<std::uint32_t> current;
};

// The secrets of connections that a handshake process has told the supervisor of, and not heard the slot of yet. If it
// dies before it does, its successor finds the slot by the reference, which stands in it (shared_region.h). Writer:
// that process; a place is in use while its reference is not 0, which is stored last, before Established goes.
struct Unanswered {
  struct Place {
    Shared<std::uint64_t> reference;
    VaultEntry secrets;  // without a holder
  };
  Shared<std::uint64_t> last_reference;  // that any life of the process has given out: none is given out twice
  std::array<Place, kMaxDescriptorsInFlight> places;
};

class Vault {
 public:
  enum class Kind : std::uint8_t {
    kBest,   // memfd_secret where the kernel has it, else memfd
    kMemfd,  // for tests
  };
  // Supervisor: makes the memory, sized for good, close-on-exec. Nothing is left mapped.
  [[nodiscard]] static Result<Fd> create(std::uint32_t max_connections, Kind kind = Kind::kBest);
  // Handshake process: maps it and closes the descriptor. Error: it has not the size that max_connections asks for, or
  // the process may not lock so much memory (RLIMIT_MEMLOCK; a memfd is used unlocked then, with one warning).
  [[nodiscard]] static Result<Vault> map(Fd memory, std::uint32_t max_connections);

  Vault(Vault&& other) noexcept;
  Vault& operator=(Vault&& other) noexcept;
  ~Vault();

  // slot.value < max_connections().
  [[nodiscard]] VaultEntry& entry(SlotIndex slot) const { return entries_[slot.value]; }
  [[nodiscard]] TicketKeyRing& ticket_keys() const { return *ticket_keys_; }
  [[nodiscard]] Unanswered& unanswered(HandshakeIndex process) const { return unanswered_[process.value]; }
  [[nodiscard]] std::uint32_t max_connections() const { return max_connections_; }

  // The size of the memory for so many connections.
  [[nodiscard]] static std::size_t bytes(std::uint32_t max_connections);

 private:
  Vault() = default;

  std::byte* base_ = nullptr;
  std::uint32_t max_connections_ = 0;
  VaultEntry* entries_ = nullptr;
  TicketKeyRing* ticket_keys_ = nullptr;
  Unanswered* unanswered_ = nullptr;
};

static_assert(Shared<std::uint64_t>::is_always_lock_free && Shared<std::uint8_t>::is_always_lock_free);
static_assert(sizeof(VaultEntry) == kVaultEntryBytes && alignof(VaultEntry) == 64);
static_assert(sizeof(TicketKey) == 88 && offsetof(TicketKeyRing, current) == TicketKeyRing::kKeys * sizeof(TicketKey));

}  // namespace ktrunk::ipc
