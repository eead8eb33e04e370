// Key step: one direction of a kernel connection goes over to its next keys (RFC 8446 7.2), in a way that may be broken
// off by the death of the process at any point and done again by its successor:
//
//   the next secret into the vault -> setsockopt TLS_TX or TLS_RX -> the vault's next secret becomes the current one
//
// What has come about is read off the socket: the key that is installed, and how many records it has carried.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "handshake/key_export.h"
#include "ipc/vault.h"
#include "ktls/crypto_info.h"
#include "ktls/kernel.h"

namespace ktrunk::handshake {

// Fills an entry, but does not publish it.
void store_secrets(ipc::VaultEntry& entry, const KernelSecrets& secrets);

[[nodiscard]] ktls::Version version_of(const ipc::VaultEntry& entry);
[[nodiscard]] ktls::Endpoint endpoint_of(const ipc::VaultEntry& entry);

enum class KeyStep : std::uint8_t {
  kInstalled,   // just now
  kDoneBefore,  // by a predecessor, who did not live to say so
};

// Call it when the KeyUpdate record of that direction has been sent, or received, and nothing after it: the key that it
// ends has then carried at least that record, and one that has carried none was installed for this very KeyUpdate.
// Error: the keys are as before, or not those of the vault; code is an errno value where the kernel refused.
template <ktls::Direction D>
[[nodiscard]] Result<KeyStep> install_next_keys(ipc::VaultEntry& entry, int fd, ktls::Kernel& kernel);

// The keys that are installed once more: the kernel stops receiving behind every record that begins like a KeyUpdate
// and goes on when keys are installed, so also behind one that holds but the beginning of one.
[[nodiscard]] Status reinstall_receive_keys(ipc::VaultEntry& entry, int fd, ktls::Kernel& kernel);

}  // namespace ktrunk::handshake
