#include "ipc/layout.h"

#include <fmt/format.h>

#include "ipc/channel.h"
#include "ipc/estate.h"
#include "ipc/shared_region.h"
#include "ipc/vault.h"

namespace ktrunk::ipc {
namespace {

constexpr std::uint64_t kPrime = 1'099'511'628'211;  // FNV-1a
constexpr std::uint64_t mixed(std::uint64_t hash, std::uint64_t value) { return (hash ^ value) * kPrime; }

// Of every message that there is.
std::uint64_t message_shapes() {
  std::uint64_t hash = 14'695'981'039'346'656'037U;
  for (std::uint16_t kind = 0; kind < 256; ++kind) {
    const Shape* shape = shape_of(static_cast<Kind>(kind));
    hash = mixed(hash, shape == nullptr ? 0 : shape->body_bytes * 2 + shape->descriptors + 1);
  }
  return hash;
}

}  // namespace

std::string layout() {
  return fmt::format("messages {}/{:016x}, region {}, estate {}, vault {}/{}", kProtocolVersion, message_shapes(),
                     SharedRegion::layout(), Estate::layout(), Vault::bytes(1), sizeof(VaultEntry));
}

}  // namespace ktrunk::ipc
