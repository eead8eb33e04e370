#include "handshake/key_step.h"

#include <openssl/crypto.h>

#include <cerrno>
#include <span>
#include <utility>

#include "ipc/crash_point.h"
#include "ktls/install.h"

namespace ktrunk::handshake {
namespace {

ktls::Aead aead_of(const ipc::VaultEntry& entry) { return static_cast<ktls::Aead>(entry.suite.aead); }
ktls::Hash hash_of(const ipc::VaultEntry& entry) { return static_cast<ktls::Hash>(entry.suite.hash); }

template <ktls::Direction D>
ipc::VaultSecret& secret_of(ipc::VaultEntry& entry) {
  return D == ktls::Direction::kTransmit ? entry.transmit : entry.receive;
}

ktls::TrafficSecret secret(const ipc::VaultEntry& entry, const ipc::VaultSecret::Octets& octets) {
  return ktls::TrafficSecret(std::span<const std::byte>(octets).first(ktls::hash_bytes(hash_of(entry))));
}

template <ktls::Direction D>
Result<ktls::Keys<D>> keys(const ipc::VaultEntry& entry, const ktls::TrafficSecret& from, ktls::RecordSeq next) {
  return ktls::keys_from_secret<D>(aead_of(entry), hash_of(entry), from, next);
}

template <ktls::Direction D>
bool is_installed(const ktls::InstalledKey& installed, const ktls::Keys<D>& keys) {
  return installed.key.size() == keys.key.size() &&
         CRYPTO_memcmp(installed.key.bytes().data(), keys.key.bytes().data(), keys.key.size()) == 0;
}

std::unexpected<Error> strange() {
  return std::unexpected(Error{"the socket has keys that the vault knows nothing of", EKEYREJECTED});
}

Status check(const ipc::VaultEntry& entry) {
  if (version_of(entry) == ktls::Version::kTls13) return {};
  return std::unexpected(Error{"only TLS 1.3 has key updates", EOPNOTSUPP});
}

}  // namespace

void store_secrets(ipc::VaultEntry& entry, const KernelSecrets& secrets) {
  entry.suite = {.version = static_cast<std::uint8_t>(secrets.version),
                 .aead = static_cast<std::uint8_t>(secrets.aead),
                 .hash = static_cast<std::uint8_t>(secrets.hash),
                 .role = secrets.self == ktls::Endpoint::kClient ? ipc::VaultSuite::Role::kClient
                                                                 : ipc::VaultSuite::Role::kServer};
  entry.transmit.begin(secrets.transmit.bytes());
  entry.receive.begin(secrets.receive.bytes());
}

ktls::Version version_of(const ipc::VaultEntry& entry) { return static_cast<ktls::Version>(entry.suite.version); }

ktls::Endpoint endpoint_of(const ipc::VaultEntry& entry) {
  return entry.suite.role == ipc::VaultSuite::Role::kClient ? ktls::Endpoint::kClient : ktls::Endpoint::kServer;
}

template <ktls::Direction D>
Result<KeyStep> install_next_keys(ipc::VaultEntry& entry, int fd, ktls::Kernel& kernel) {
  if (auto status = check(entry); !status) return std::unexpected(std::move(status.error()));
  ipc::VaultSecret& held = secret_of<D>(entry);
  const auto installed = ktls::installed_key(fd, D, version_of(entry), aead_of(entry), kernel);
  if (!installed) return std::unexpected(installed.error());

  if (const auto* pending = held.pending(); pending != nullptr) {
    const auto begun = keys<D>(entry, secret(entry, *pending), {0});
    if (!begun) return std::unexpected(begun.error());
    if (is_installed(*installed, *begun)) {
      held.commit();
      return KeyStep::kDoneBefore;
    }
  }
  const ktls::TrafficSecret current = secret(entry, held.current());
  const auto in_force = keys<D>(entry, current, installed->next);
  if (!in_force) return std::unexpected(in_force.error());
  if (!is_installed(*installed, *in_force)) return strange();
  if (installed->next.value == 0) return KeyStep::kDoneBefore;

  const auto next = ktls::next_secret(hash_of(entry), current);
  if (!next) return std::unexpected(next.error());
  const auto next_keys = keys<D>(entry, *next, {0});
  if (!next_keys) return std::unexpected(next_keys.error());
  held.prepare(next->bytes());
  if (auto status = ktls::rekey(fd, *next_keys, kernel); !status) {
    held.abandon();
    return std::unexpected(std::move(status.error()));
  }
  ipc::crash_point();
  held.commit();
  return KeyStep::kInstalled;
}
template Result<KeyStep> install_next_keys<ktls::Direction::kTransmit>(ipc::VaultEntry&, int, ktls::Kernel&);
template Result<KeyStep> install_next_keys<ktls::Direction::kReceive>(ipc::VaultEntry&, int, ktls::Kernel&);

Status reinstall_receive_keys(ipc::VaultEntry& entry, int fd, ktls::Kernel& kernel) {
  if (auto status = check(entry); !status) return status;
  const auto installed = ktls::installed_key(fd, ktls::Direction::kReceive, version_of(entry), aead_of(entry), kernel);
  if (!installed) return std::unexpected(installed.error());
  const auto in_force = keys<ktls::Direction::kReceive>(entry, secret(entry, entry.receive.current()), installed->next);
  if (!in_force) return std::unexpected(in_force.error());
  if (!is_installed(*installed, *in_force)) return strange();
  return ktls::rekey(fd, *in_force, kernel);
}

}  // namespace ktrunk::handshake
