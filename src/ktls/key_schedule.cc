#include "ktls/key_schedule.h"

#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <string>

namespace ktrunk::ktls {
namespace {

struct Free {
  void operator()(EVP_KDF* kdf) const { EVP_KDF_free(kdf); }
  void operator()(EVP_KDF_CTX* context) const { EVP_KDF_CTX_free(context); }
};

// libcrypto's parameter lists take pointers to non-const and read only.
void* readable(std::span<const std::byte> bytes) {
  return const_cast<void*>(static_cast<const void*>(bytes.data()));  // NOLINT
}

OSSL_PARAM digest_param(Hash hash) {
  static char sha256[] = "SHA2-256";
  static char sha384[] = "SHA2-384";
  return OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, hash == Hash::kSha256 ? sha256 : sha384, 0);
}

Status derive(const char* algorithm, const OSSL_PARAM* parameters, std::span<std::byte> out) {
  const std::unique_ptr<EVP_KDF, Free> kdf(EVP_KDF_fetch(nullptr, algorithm, nullptr));
  if (!kdf) return fail("libcrypto has no {}", algorithm);
  const std::unique_ptr<EVP_KDF_CTX, Free> context(EVP_KDF_CTX_new(kdf.get()));
  if (!context ||
      EVP_KDF_derive(context.get(), reinterpret_cast<unsigned char*>(out.data()), out.size(), parameters) != 1)
    return fail("libcrypto could not run {}", algorithm);
  return {};
}

void append(std::byte*& out, std::span<const std::byte> bytes) { out = std::copy(bytes.begin(), bytes.end(), out); }

void put_u64(std::span<std::byte> out, std::uint64_t value) {
  for (std::size_t i = 0; i < 8; ++i) out[i] = static_cast<std::byte>(value >> (8 * (7 - i)));
}

}  // namespace

Status expand_label(Hash hash, std::span<const std::byte> secret, std::string_view label,
                    std::span<const std::byte> context, std::span<std::byte> out) {
  constexpr std::string_view kPrefix = "tls13 ";
  constexpr std::size_t kMaxLabel = 255 - kPrefix.size();
  if (secret.size() != hash_bytes(hash)) return fail("a traffic secret has {} octets", hash_bytes(hash));
  if (label.empty() || label.size() > kMaxLabel || context.size() > 255 || out.empty() || out.size() > 255 * 32)
    return fail("HKDF-Expand-Label: a length is out of range");

  // struct HkdfLabel { uint16 length; opaque label<7..255>; opaque context<0..255>; } (RFC 8446 7.1)
  std::array<std::byte, 2 + 1 + 255 + 1 + 255> info = {};
  std::byte* end = info.data();
  *end++ = static_cast<std::byte>(out.size() >> 8);
  *end++ = static_cast<std::byte>(out.size());
  *end++ = static_cast<std::byte>(kPrefix.size() + label.size());
  append(end, std::as_bytes(std::span(kPrefix)));
  append(end, std::as_bytes(std::span(label)));
  *end++ = static_cast<std::byte>(context.size());
  append(end, context);

  int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
  const std::array parameters = {
      OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode), digest_param(hash),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, readable(secret), secret.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info.data(), static_cast<std::size_t>(end - info.data())),
      OSSL_PARAM_construct_end()};
  return derive("HKDF", parameters.data(), out);
}

template <Direction D>
Result<Keys<D>> keys_from_secret(Aead aead, Hash hash, const TrafficSecret& secret, RecordSeq next) {
  Keys<D> keys;
  keys.version = Version::kTls13;
  keys.aead = aead;
  keys.next = next;
  keys.key.resize(key_bytes(aead));
  keys.nonce.resize(kNonceBytes);
  if (auto status = expand_label(hash, secret.bytes(), "key", {}, keys.key.writable()); !status)
    return std::unexpected(std::move(status.error()));
  if (auto status = expand_label(hash, secret.bytes(), "iv", {}, keys.nonce.writable()); !status)
    return std::unexpected(std::move(status.error()));
  return keys;
}
template Result<TransmitKeys> keys_from_secret(Aead, Hash, const TrafficSecret&, RecordSeq);
template Result<ReceiveKeys> keys_from_secret(Aead, Hash, const TrafficSecret&, RecordSeq);

Result<TrafficSecret> next_secret(Hash hash, const TrafficSecret& secret) {
  TrafficSecret next;
  next.resize(hash_bytes(hash));
  if (auto status = expand_label(hash, secret.bytes(), "traffic upd", {}, next.writable()); !status)
    return std::unexpected(std::move(status.error()));
  return next;
}

Status prf12(Hash hash, std::span<const std::byte> secret, std::string_view label, std::span<const std::byte> seed,
             std::span<std::byte> out) {
  if (out.empty()) return fail("TLS1-PRF: no output wanted");
  // libcrypto joins the seeds: PRF(secret, label, seed) = P_hash(secret, label + seed) (RFC 5246 5).
  const std::array parameters = {
      digest_param(hash), OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SECRET, readable(secret), secret.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, readable(std::as_bytes(std::span(label))), label.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, readable(seed), seed.size()), OSSL_PARAM_construct_end()};
  return derive("TLS1-PRF", parameters.data(), out);
}

Result<SessionKeys> keys_from_master_secret(Endpoint self, Aead aead, Hash hash, const Tls12Secrets& secrets,
                                            const Tls12Position& position) {
  constexpr std::size_t kRandomBytes = 32;
  if (secrets.master.size() != 48 || secrets.client_random.size() != kRandomBytes ||
      secrets.server_random.size() != kRandomBytes)
    return fail("TLS 1.2 key block: master secret or randoms of a wrong length");

  // key_block = PRF(master_secret, "key expansion", server_random + client_random), cut into the client's and the
  // server's write key, then their IVs; AEAD ciphers have no MAC keys (RFC 5246 6.3, RFC 5288 3, RFC 7905 2).
  std::array<std::byte, 2 * kRandomBytes> seed = {};
  std::copy(secrets.server_random.begin(), secrets.server_random.end(), seed.begin());
  std::copy(secrets.client_random.begin(), secrets.client_random.end(), seed.begin() + kRandomBytes);
  const bool explicit_nonce = aead != Aead::kChaCha20Poly1305;
  const std::size_t key = key_bytes(aead);
  const std::size_t iv = explicit_nonce ? 4 : kNonceBytes;
  Secret<2 * (kMaxKeyBytes + kNonceBytes)> block;
  block.resize(2 * (key + iv));
  if (auto status = prf12(hash, secrets.master, "key expansion", seed, block.writable()); !status)
    return std::unexpected(std::move(status.error()));

  const auto cut = [&](auto& keys, Endpoint writer, RecordSeq next, std::uint64_t nonce) {
    const std::size_t place = writer == Endpoint::kClient ? 0 : 1;
    keys.version = Version::kTls12;
    keys.aead = aead;
    keys.next = next;
    keys.key = Secret<kMaxKeyBytes>(block.bytes().subspan(place * key, key));
    keys.nonce = Secret<kNonceBytes>(block.bytes().subspan(2 * key + place * iv, iv));
    if (explicit_nonce) {
      keys.nonce.resize(kNonceBytes);
      put_u64(keys.nonce.writable().subspan(iv), nonce);
    }
  };
  SessionKeys keys;
  const Endpoint peer = self == Endpoint::kClient ? Endpoint::kServer : Endpoint::kClient;
  cut(keys.transmit, self, position.transmit, position.transmit_explicit_nonce);
  cut(keys.receive, peer, position.receive, 0);  // the peer's explicit nonces come with its records
  return keys;
}

}  // namespace ktrunk::ktls
