#include "handshake/ticket_keys.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>

#include "handshake/tls_failure.h"
#include "ipc/crash_point.h"

namespace ktrunk::handshake {
namespace {

// ThreadSanitizer knows no fences.
void fence([[maybe_unused]] std::memory_order order) {
#ifndef __SANITIZE_THREAD__
  std::atomic_thread_fence(order);
#endif
}

constexpr int kNotOurs = 0;
constexpr int kOpens = 1;
constexpr int kOpensAndRenews = 2;
constexpr int kFailed = -1;

unsigned char* octets(std::byte* bytes) { return reinterpret_cast<unsigned char*>(bytes); }
const unsigned char* octets(const std::byte* bytes) { return reinterpret_cast<const unsigned char*>(bytes); }

std::uint64_t seconds(TicketKeys::Clock::time_point time) {
  return static_cast<std::uint64_t>(
      std::max<std::int64_t>(0, std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count()));
}

Status make(ipc::TicketKey& key, TicketKeys::Clock::time_point now) {
  if (RAND_bytes(octets(key.name.data()), static_cast<int>(key.name.size())) != 1 ||
      RAND_priv_bytes(octets(key.aes.data()), static_cast<int>(key.aes.size())) != 1 ||
      RAND_priv_bytes(octets(key.mac.data()), static_cast<int>(key.mac.size())) != 1)
    return fail("no random octets for a session ticket key: {}", openssl_error());
  key.made_at = seconds(now);
  return {};
}

ipc::TicketKey& place(ipc::TicketKeyRing& ring, std::uint32_t number) {
  return ring.keys[(number - 1) % ipc::TicketKeyRing::kKeys];
}

bool set_mac_key(EVP_MAC_CTX* mac, const ipc::TicketKey& key) {
  // OpenSSL's parameters are not const; it does not write to them.
  char digest[] = "SHA256";
  std::array<std::byte, sizeof key.mac> secret = key.mac;
  const std::array<OSSL_PARAM, 3> parameters = {
      OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, secret.data(), secret.size()),
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0), OSSL_PARAM_construct_end()};
  const bool set = EVP_MAC_CTX_set_params(mac, parameters.data()) == 1;
  OPENSSL_cleanse(secret.data(), secret.size());
  return set;
}

// Where a context keeps the address of the keys. OpenSSL asks the context that the session was made from.
int keys_index() {
  static const int index = SSL_CTX_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  return index;
}

}  // namespace

TicketKeys::Copy::~Copy() { OPENSSL_cleanse(&key, sizeof key); }

TicketKeys::TicketKeys(TicketKeys&&) noexcept = default;
TicketKeys& TicketKeys::operator=(TicketKeys&&) noexcept = default;
TicketKeys::~TicketKeys() { OPENSSL_cleanse(&own_, sizeof own_); }

Result<TicketKeys> TicketKeys::on(ipc::TicketKeyRing& ring, HandshakeIndex self, std::chrono::milliseconds rotation) {
  TicketKeys made(ring, self, rotation);
  if (Status status = make(made.own_, Clock::now()); !status) return std::unexpected(std::move(status.error()));
  return made;
}

Status TicketKeys::rotate_if_due(Clock::time_point now) {
  if (self_.value != 0) return {};
  const std::uint32_t newest = ring_->current.load(std::memory_order_relaxed);  // this process alone writes it
  if (newest != 0) {
    const std::uint64_t made_at = place(*ring_, newest).made_at;
    const std::uint64_t age_s = seconds(now) - made_at;
    if (made_at <= seconds(now) && std::chrono::seconds(age_s) < lifetime()) return {};
  }
  ipc::TicketKey fresh;
  if (Status status = make(fresh, now); !status) return status;
  ipc::TicketKey& oldest = place(*ring_, newest + 1);
  oldest = fresh;
  OPENSSL_cleanse(&fresh, sizeof fresh);
  ipc::crash_point();
  ring_->current.store(newest + 1, std::memory_order_release);
  // The key before the last opens nothing from here on: a reader looks at `current` again after it has copied one.
  if (newest > 1) {
    fence(std::memory_order_seq_cst);
    OPENSSL_cleanse(&place(*ring_, newest - 1), sizeof(ipc::TicketKey));
  }
  return {};
}

std::chrono::seconds TicketKeys::lifetime() const {
  return std::max(std::chrono::seconds(1), std::chrono::duration_cast<std::chrono::seconds>(rotation_));
}

TicketKeys::Copy TicketKeys::copy(std::uint32_t number) const {
  Copy copy;
  copy.key = place(*ring_, number);
  fence(std::memory_order_acquire);
  // Its place may have been written over meanwhile, after two rotations more.
  if (ring_->current.load(std::memory_order_acquire) - number <= 1) copy.number = number;
  return copy;
}

TicketKeys::Copy TicketKeys::newest() const {
  const std::uint32_t number = ring_->current.load(std::memory_order_acquire);
  if (number != 0) {
    Copy found = copy(number);
    if (found.number != 0) return found;
  }
  Copy own;
  own.key = own_;
  return own;
}

TicketKeys::Copy TicketKeys::named(const unsigned char* name) const {
  const std::uint32_t newest = ring_->current.load(std::memory_order_acquire);
  for (std::uint32_t number = newest; number != 0 && newest - number <= 1; --number) {
    Copy found = copy(number);
    if (found.number != 0 && CRYPTO_memcmp(found.key.name.data(), name, found.key.name.size()) == 0) return found;
  }
  return {};
}

void TicketKeys::serve(SSL_CTX* context) {
  SSL_CTX_set_ex_data(context, keys_index(), this);
  SSL_CTX_set_tlsext_ticket_key_evp_cb(context, on_ticket);
  SSL_CTX_set_timeout(context, static_cast<long>(lifetime().count()));
}

int TicketKeys::on_ticket(SSL* session, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher,
                          EVP_MAC_CTX* mac, int seal) {
  const auto* keys = static_cast<const TicketKeys*>(SSL_CTX_get_ex_data(SSL_get_SSL_CTX(session), keys_index()));
  if (keys == nullptr) return kFailed;
  if (seal == 1) {
    const Copy key = keys->newest();
    std::memcpy(name, key.key.name.data(), key.key.name.size());
    if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) != 1 ||
        EVP_EncryptInit_ex2(cipher, EVP_aes_256_cbc(), octets(key.key.aes.data()), iv, nullptr) != 1 ||
        !set_mac_key(mac, key.key))
      return kFailed;
    return kOpens;
  }
  Copy key = keys->named(name);
  const bool own = key.number == 0;
  if (own) {
    if (CRYPTO_memcmp(keys->own_.name.data(), name, keys->own_.name.size()) != 0) return kNotOurs;
    key.key = keys->own_;
  }
  if (!set_mac_key(mac, key.key) ||
      EVP_DecryptInit_ex2(cipher, EVP_aes_256_cbc(), octets(key.key.aes.data()), iv, nullptr) != 1)
    return kFailed;
  // RFC 8446 C.4: a client uses a TLS 1.3 ticket once, so it needs another. A TLS 1.2 one is renewed when its key is on
  // the way out.
  const bool newest = !own && key.number == keys->ring_->current.load(std::memory_order_acquire);
  return newest && SSL_version(session) != TLS1_3_VERSION ? kOpens : kOpensAndRenews;
}

}  // namespace ktrunk::handshake
