#include "ipc/vault.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/log.h"

namespace ktrunk::ipc {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t page_aligned(std::size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }
constexpr std::size_t ring_offset(std::uint32_t max_connections) {
  return page_aligned(std::size_t{max_connections} * sizeof(VaultEntry));
}
constexpr std::size_t unanswered_offset(std::uint32_t max_connections) {
  return page_aligned(ring_offset(max_connections) + sizeof(TicketKeyRing));
}

void wipe_octets(std::span<std::byte> octets) { ::explicit_bzero(octets.data(), octets.size()); }

constexpr std::uint64_t kPresent = 1;
constexpr int kSizeSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

// None when the kernel has none (ENOSYS), or this process may not lock as much memory as it takes, which mmap is the
// first to tell: the trial mapping is empty, and gone before anything is in it.
Fd secret_memory(std::size_t bytes) {
#ifdef SYS_memfd_secret
  Fd memory(static_cast<int>(::syscall(SYS_memfd_secret, O_CLOEXEC)));
  if (!memory.valid() || ::ftruncate(memory.get(), static_cast<off_t>(bytes)) != 0) return Fd();
  void* trial = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  if (trial == MAP_FAILED) return Fd();
  ::munmap(trial, bytes);
  return memory;
#else
  (void)bytes;
  return Fd();
#endif
}

// Page by page, as they are used: locking them all at once would take them all.
int lock_on_use(void* base, std::size_t bytes) { return ::mlock2(base, bytes, MLOCK_ONFAULT) == 0 ? 0 : errno; }

}  // namespace

void VaultSecret::begin(std::span<const std::byte> secret) {
  wipe();
  std::copy_n(secret.begin(), std::min(secret.size(), kVaultSecretBytes), places_[0].begin());
  step_.store(0, std::memory_order_release);
}

void VaultSecret::prepare(std::span<const std::byte> next) {
  const std::size_t at = place();
  step_.store(static_cast<std::uint8_t>(at), std::memory_order_release);
  Octets& free = places_[1 - at];
  free.fill({});
  std::copy_n(next.begin(), std::min(next.size(), kVaultSecretBytes), free.begin());
  step_.store(static_cast<std::uint8_t>(at | kBegun), std::memory_order_release);
}

void VaultSecret::commit() {
  if (!begun()) return;
  const std::size_t old = place();
  step_.store(static_cast<std::uint8_t>(1 - old), std::memory_order_release);
  wipe_octets(places_[old]);
}

void VaultSecret::abandon() {
  const std::size_t at = place();
  step_.store(static_cast<std::uint8_t>(at), std::memory_order_release);
  wipe_octets(places_[1 - at]);
}

void VaultSecret::wipe() {
  for (Octets& octets : places_) wipe_octets(octets);
  step_.store(0, std::memory_order_release);
}

std::optional<VaultEntry::Holder> VaultEntry::holder() const {
  const std::uint64_t word = word_.load(std::memory_order_acquire);
  if ((word & kPresent) == 0) return std::nullopt;
  return Holder{{static_cast<std::uint32_t>(word >> 32)}, {static_cast<std::uint8_t>(word >> 8 & 0xff)}};
}

void VaultEntry::publish(Holder holder) {
  word_.store(std::uint64_t{holder.generation.value} << 32 | std::uint64_t{holder.owner.value} << 8 | kPresent,
              std::memory_order_release);
}

void VaultEntry::wipe() {
  word_.store(0, std::memory_order_release);
  transmit.wipe();
  receive.wipe();
  suite = {};
  set_stream(std::nullopt);
  streams_ = {};
}

void VaultEntry::take(const VaultEntry& other) {
  wipe();
  suite = other.suite;
  transmit.begin(other.transmit.current());
  receive.begin(other.receive.current());
}

std::optional<VaultStream> VaultEntry::stream() const {
  const std::uint8_t at = stream_at_.load(std::memory_order_acquire);
  if (at == 0 || at > streams_.size()) return std::nullopt;
  return streams_[at - 1];
}

void VaultEntry::set_stream(const std::optional<VaultStream>& stream) {
  if (!stream) return stream_at_.store(0, std::memory_order_release);
  // In the place that nobody would read now.
  const std::uint8_t next = stream_at_.load(std::memory_order_relaxed) == 1 ? 2 : 1;
  streams_[next - 1] = *stream;
  stream_at_.store(next, std::memory_order_release);
}

std::size_t Vault::bytes(std::uint32_t max_connections) {
  return page_aligned(unanswered_offset(max_connections) + kMaxHandshakeProcesses * sizeof(Unanswered));
}

Result<Fd> Vault::create(std::uint32_t max_connections, Kind kind) {
  const std::size_t size = bytes(max_connections);
  if (kind == Kind::kBest) {
    if (Fd memory = secret_memory(size); memory.valid()) return memory;
  }
  Fd memory(::memfd_create("ktrunk-vault", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory.valid()) return fail_errno(errno, "create the vault");
  if (::ftruncate(memory.get(), static_cast<off_t>(size)) != 0)
    return fail_errno(errno, fmt::format("size the vault to {} octets", size));
  if (::fcntl(memory.get(), F_ADD_SEALS, kSizeSeals) != 0) return fail_errno(errno, "seal the size of the vault");
  return memory;
}

Result<Vault> Vault::map(Fd memory, std::uint32_t max_connections) {
  const std::size_t size = bytes(max_connections);
  struct stat status{};
  if (::fstat(memory.get(), &status) != 0) return fail_errno(errno, "look at the vault");
  if (status.st_size < 0 || static_cast<std::size_t>(status.st_size) != size)
    return fail("the vault has {} octets and not {}: of another configuration?", status.st_size, size);
  // Secret memory knows no seals, and cannot be resized anyway.
  const int seals = ::fcntl(memory.get(), F_GET_SEALS);
  const bool secret = seals < 0;
  if (!secret && (seals & kSizeSeals) != kSizeSeals) return fail("the vault's size is not sealed");

  void* base = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  if (base == MAP_FAILED)
    return fail_errno(errno, fmt::format("map the vault ({} octets of locked memory: RLIMIT_MEMLOCK)", size));
  Vault vault;
  vault.base_ = static_cast<std::byte*>(base);
  vault.max_connections_ = max_connections;
  vault.entries_ = reinterpret_cast<VaultEntry*>(vault.base_);
  vault.ticket_keys_ = reinterpret_cast<TicketKeyRing*>(vault.base_ + ring_offset(max_connections));
  vault.unanswered_ = reinterpret_cast<Unanswered*>(vault.base_ + unanswered_offset(max_connections));
  if (::madvise(base, size, MADV_DONTDUMP) != 0) return fail_errno(errno, "keep the vault out of core dumps");
  if (::madvise(base, size, MADV_DONTFORK) != 0) return fail_errno(errno, "keep the vault out of forks");
  if (!secret) {
    if (const int code = lock_on_use(base, size); code != 0)
      log::warn("traffic secrets may be swapped out: locking {} octets of memory: {}; raise RLIMIT_MEMLOCK", size,
                errno_text(code));
  }
  return vault;
}

Vault::Vault(Vault&& other) noexcept { *this = std::move(other); }

Vault& Vault::operator=(Vault&& other) noexcept {
  if (this == &other) return *this;
  if (base_ != nullptr) ::munmap(base_, bytes(max_connections_));
  base_ = std::exchange(other.base_, nullptr);
  max_connections_ = std::exchange(other.max_connections_, 0);
  entries_ = std::exchange(other.entries_, nullptr);
  ticket_keys_ = std::exchange(other.ticket_keys_, nullptr);
  unanswered_ = std::exchange(other.unanswered_, nullptr);
  return *this;
}

Vault::~Vault() {
  if (base_ != nullptr) ::munmap(base_, bytes(max_connections_));
}

}  // namespace ktrunk::ipc
