// Key schedule: from the secrets that a TLS library gives out to the keys of the records.
// TLS 1.3: RFC 8446 7.1 to 7.3. TLS 1.2: RFC 5246 5 and 6.3, RFC 5288, RFC 7905.
// The handshake process alone runs it; it is the one part of ktls that needs libcrypto, and a program that does not
// call it does not map libcrypto.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/result.h"
#include "ktls/crypto_info.h"

namespace ktrunk::ktls {

enum class Hash : std::uint8_t { kSha256, kSha384 };
[[nodiscard]] constexpr std::size_t hash_bytes(Hash hash) { return hash == Hash::kSha256 ? 32 : 48; }

// A TLS 1.3 application traffic secret of either direction. Whoever keeps it can follow key updates.
using TrafficSecret = Secret<48>;

// HKDF-Expand-Label(secret, label, context, out.size()), label without "tls13 ".
[[nodiscard]] Status expand_label(Hash hash, std::span<const std::byte> secret, std::string_view label,
                                  std::span<const std::byte> context, std::span<std::byte> out);

// The keys of one direction. An error means that libcrypto refused, or that a length is wrong.
template <Direction D>
[[nodiscard]] Result<Keys<D>> keys_from_secret(Aead aead, Hash hash, const TrafficSecret& secret, RecordSeq next);

// application_traffic_secret_N+1 (RFC 8446 7.2). The new keys' first record has number 0.
[[nodiscard]] Result<TrafficSecret> next_secret(Hash hash, const TrafficSecret& secret);

// PRF(secret, label, seed) of TLS 1.2.
[[nodiscard]] Status prf12(Hash hash, std::span<const std::byte> secret, std::string_view label,
                           std::span<const std::byte> seed, std::span<std::byte> out);

enum class Endpoint : std::uint8_t { kClient, kServer };

struct Tls12Secrets {
  std::span<const std::byte> master;         // 48 octets
  std::span<const std::byte> client_random;  // 32 octets
  std::span<const std::byte> server_random;  // 32 octets
};
struct Tls12Position {
  RecordSeq transmit;
  RecordSeq receive;
  std::uint64_t transmit_explicit_nonce = 0;  // AES-GCM: first explicit nonce that was never sent under this key
};
// Both directions' keys as the endpoint `self` uses them.
[[nodiscard]] Result<SessionKeys> keys_from_master_secret(Endpoint self, Aead aead, Hash hash,
                                                          const Tls12Secrets& secrets, const Tls12Position& position);

}  // namespace ktrunk::ktls
