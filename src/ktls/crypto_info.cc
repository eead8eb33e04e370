#include "ktls/crypto_info.h"

#include <linux/tls.h>
#include <string.h>

#include <algorithm>
#include <cstring>

namespace ktrunk::ktls {
namespace {

// The kernel's structures differ in the lengths of their parts alone: header, iv, key, salt, record number.
struct Layout {
  std::uint16_t cipher_type;
  std::size_t iv;
  std::size_t salt;
};

constexpr Layout layout(Aead aead) {
  switch (aead) {
    case Aead::kAes128Gcm:
      return {TLS_CIPHER_AES_GCM_128, TLS_CIPHER_AES_GCM_128_IV_SIZE, TLS_CIPHER_AES_GCM_128_SALT_SIZE};
    case Aead::kAes256Gcm:
      return {TLS_CIPHER_AES_GCM_256, TLS_CIPHER_AES_GCM_256_IV_SIZE, TLS_CIPHER_AES_GCM_256_SALT_SIZE};
    case Aead::kChaCha20Poly1305:
      break;
  }
  return {TLS_CIPHER_CHACHA20_POLY1305, TLS_CIPHER_CHACHA20_POLY1305_IV_SIZE, TLS_CIPHER_CHACHA20_POLY1305_SALT_SIZE};
}

constexpr std::size_t kSeqBytes = TLS_CIPHER_AES_GCM_128_REC_SEQ_SIZE;

constexpr std::size_t info_bytes(Aead aead) {
  return sizeof(tls_crypto_info) + layout(aead).iv + key_bytes(aead) + layout(aead).salt + kSeqBytes;
}
static_assert(info_bytes(Aead::kAes128Gcm) == sizeof(tls12_crypto_info_aes_gcm_128));
static_assert(info_bytes(Aead::kAes256Gcm) == sizeof(tls12_crypto_info_aes_gcm_256));
static_assert(info_bytes(Aead::kChaCha20Poly1305) == sizeof(tls12_crypto_info_chacha20_poly1305));
static_assert(offsetof(tls12_crypto_info_aes_gcm_256, iv) == 4 && offsetof(tls12_crypto_info_aes_gcm_256, key) == 12);
static_assert(offsetof(tls12_crypto_info_aes_gcm_256, salt) == 44);
static_assert(offsetof(tls12_crypto_info_chacha20_poly1305, key) == 16);

}  // namespace

std::string_view version_name(Version version) { return version == Version::kTls12 ? "TLS 1.2" : "TLS 1.3"; }

std::string_view aead_name(Aead aead) {
  switch (aead) {
    case Aead::kAes128Gcm:
      return "AES-128-GCM";
    case Aead::kAes256Gcm:
      return "AES-256-GCM";
    case Aead::kChaCha20Poly1305:
      break;
  }
  return "CHACHA20-POLY1305";
}

std::size_t crypto_info_bytes(Aead aead) { return info_bytes(aead); }

void wipe(std::span<std::byte> bytes) { ::explicit_bzero(bytes.data(), bytes.size()); }

CryptoInfo::CryptoInfo(Version version, Aead aead, std::span<const std::byte> key, std::span<const std::byte> nonce,
                       RecordSeq next) {
  if (key.size() != key_bytes(aead) || nonce.size() != kNonceBytes) return;
  const Layout parts = layout(aead);
  tls_crypto_info header = {};
  header.version = version == Version::kTls12 ? TLS_1_2_VERSION : TLS_1_3_VERSION;
  header.cipher_type = parts.cipher_type;

  std::byte* out = storage_.data();
  const auto append = [&out](const void* from, std::size_t count) {
    std::memcpy(out, from, count);
    out += count;
  };
  append(&header, sizeof header);
  append(nonce.data() + parts.salt, parts.iv);
  append(key.data(), key.size());
  append(nonce.data(), parts.salt);
  for (std::size_t i = 0; i < kSeqBytes; ++i) *out++ = static_cast<std::byte>(next.value >> (8 * (kSeqBytes - 1 - i)));
  size_ = static_cast<std::size_t>(out - storage_.data());
}

Result<InstalledKey> parse_crypto_info(std::span<const std::byte> info, Version version, Aead aead) {
  const Layout parts = layout(aead);
  tls_crypto_info header = {};
  if (info.size() != info_bytes(aead)) return fail("crypto info of {} octets", info.size());
  std::memcpy(&header, info.data(), sizeof header);
  if (header.version != (version == Version::kTls12 ? TLS_1_2_VERSION : TLS_1_3_VERSION) ||
      header.cipher_type != parts.cipher_type)
    return fail("the socket's keys are not for {} with {}", version_name(version), aead_name(aead));
  InstalledKey installed;
  installed.key = Secret<kMaxKeyBytes>(info.subspan(sizeof header + parts.iv, key_bytes(aead)));
  for (const std::byte octet : info.last(kSeqBytes))
    installed.next.value = installed.next.value << 8 | std::to_integer<std::uint64_t>(octet);
  return installed;
}

}  // namespace ktrunk::ktls
