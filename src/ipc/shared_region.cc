#include "ipc/shared_region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

namespace ktrunk::ipc {
namespace {

constexpr std::uint64_t kMagic = 0x6b7472756e6b0007;  // "ktrunk", layout 7

struct alignas(64) RegionHeader {
  std::uint64_t magic;
  std::uint64_t bytes;
  RegionSizes sizes;
  TokenSeed seed;
};

constexpr std::size_t kPage = 4096;
constexpr std::size_t page_aligned(std::size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

// Where each part begins. Parts are page-aligned, so that what is never used never costs memory.
struct Offsets {
  std::size_t slots, trunks, workers, handshakes, sent, invites, handovers, end;
};
Offsets offsets_of(const RegionSizes& sizes) {
  Offsets at{};
  at.slots = page_aligned(sizeof(RegionHeader));
  at.trunks = page_aligned(at.slots + sizeof(ConnectionSlot) * sizes.max_connections);
  at.workers = page_aligned(at.trunks + sizeof(TrunkEntry) * sizes.trunks);
  at.handshakes = page_aligned(at.workers + sizeof(WorkerStats) * sizes.workers);
  at.sent = page_aligned(at.handshakes + sizeof(HandshakeStats) * sizes.handshakes);
  at.invites = page_aligned(at.sent + sizeof(SentCounts) * sizes.max_connections * sizes.workers);
  at.handovers = page_aligned(at.invites + sizeof(std::atomic<std::uint64_t>) * sizes.invites);
  at.end = page_aligned(at.handovers + sizeof(Handover) * sizes.workers * sizes.workers);
  return at;
}

Result<std::byte*> map_shared(int memory, std::size_t bytes) {
  void* base = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
  if (base == MAP_FAILED) return fail_errno(errno, "map the shared region");
  return static_cast<std::byte*>(base);
}

}  // namespace

Result<SharedRegion> SharedRegion::create(const RegionSizes& sizes, const std::optional<TokenSeed>& seed) {
  SharedRegion region;
  region.sizes_ = sizes;
  region.bytes_ = offsets_of(sizes).end;
  region.memory_ = Fd(::memfd_create("ktrunk-region", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!region.memory_.valid()) return fail_errno(errno, "create the shared region");
  if (::ftruncate(region.memory_.get(), static_cast<off_t>(region.bytes_)) != 0)
    return fail_errno(errno, fmt::format("size the shared region to {} octets", region.bytes_));
  // No process can shrink it under another one's feet.
  if (::fcntl(region.memory_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return fail_errno(errno, "seal the size of the shared region");
  auto base = map_shared(region.memory_.get(), region.bytes_);
  if (!base) return std::unexpected(base.error());
  region.base_ = *base;

  auto* header = new (region.base_) RegionHeader{kMagic, region.bytes_, sizes, seed.value_or(TokenSeed{})};
  std::array<unsigned char, 32>& secret = header->seed.secret.bytes;
  if (!seed && ::getrandom(secret.data(), secret.size(), 0) != static_cast<ssize_t>(secret.size()))
    return fail_errno(errno, "random octets for the flow token key");
  region.lay_out();
  // Zeroed memory is a valid start for all else; it stays untouched, so that an unused slot costs nothing.
  for (std::uint32_t t = 0; t < sizes.trunks; ++t) {
    for (auto& connection : region.trunks_[t].connections) connection.store(TrunkEntry::kNoConnection);
  }
  return region;
}

Result<SharedRegion> SharedRegion::map(Fd memory) {
  SharedRegion region;
  struct stat status{};
  if (::fstat(memory.get(), &status) != 0) return fail_errno(errno, "look at the shared region");
  region.bytes_ = static_cast<std::size_t>(status.st_size);
  if (region.bytes_ < sizeof(RegionHeader)) return fail("the shared region has only {} octets", region.bytes_);
  region.memory_ = std::move(memory);
  auto base = map_shared(region.memory_.get(), region.bytes_);
  if (!base) return std::unexpected(base.error());
  region.base_ = *base;
  const auto* header = reinterpret_cast<const RegionHeader*>(region.base_);
  if (header->magic != kMagic) return fail("the shared region has another layout: programs of different versions?");
  region.sizes_ = header->sizes;
  if (region.sizes_.workers == 0 || region.sizes_.workers > kMaxWorkers || region.sizes_.handshakes == 0 ||
      region.sizes_.handshakes > kMaxHandshakeProcesses || header->bytes != region.bytes_ ||
      offsets_of(region.sizes_).end != region.bytes_)
    return fail("the shared region's sizes do not fit its {} octets", region.bytes_);
  region.lay_out();
  return region;
}

std::string SharedRegion::layout() {
  return fmt::format("{:x}/{}+{}+{}+{}+{}+{}", kMagic & 0xffff, sizeof(ConnectionSlot), sizeof(TrunkEntry),
                     sizeof(WorkerStats), sizeof(HandshakeStats), sizeof(SentCounts), sizeof(Handover));
}

void SharedRegion::lay_out() {
  const Offsets at = offsets_of(sizes_);
  slots_ = reinterpret_cast<ConnectionSlot*>(base_ + at.slots);
  trunks_ = reinterpret_cast<TrunkEntry*>(base_ + at.trunks);
  workers_ = reinterpret_cast<WorkerStats*>(base_ + at.workers);
  handshakes_ = reinterpret_cast<HandshakeStats*>(base_ + at.handshakes);
  sent_ = reinterpret_cast<SentCounts*>(base_ + at.sent);
  invites_ = reinterpret_cast<Shared<std::uint64_t>*>(base_ + at.invites);
  handovers_ = reinterpret_cast<Handover*>(base_ + at.handovers);
}

const TokenSecret& SharedRegion::secret() const { return reinterpret_cast<const RegionHeader*>(base_)->seed.secret; }

Generation SharedRegion::next_generation(SlotIndex index) const {
  const std::uint64_t word = slot(index).word.load(std::memory_order_acquire);
  const Generation last = word != 0 ? SlotWord::unpack(word).generation
                                    : reinterpret_cast<const RegionHeader*>(base_)->seed.first_generation;
  return {last.value + 1};
}

SharedRegion::SharedRegion(SharedRegion&& other) noexcept { *this = std::move(other); }

SharedRegion& SharedRegion::operator=(SharedRegion&& other) noexcept {
  if (this == &other) return *this;
  if (base_ != nullptr) ::munmap(base_, bytes_);
  memory_ = std::move(other.memory_);
  base_ = std::exchange(other.base_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  sizes_ = other.sizes_;
  if (base_ != nullptr) lay_out();
  return *this;
}

SharedRegion::~SharedRegion() {
  if (base_ != nullptr) ::munmap(base_, bytes_);
}

}  // namespace ktrunk::ipc
