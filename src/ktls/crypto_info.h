// Crypto info: the keys of one TLS connection's record protection, typed by version, cipher and direction, and their
// form as the kernel takes them (Documentation/networking/tls.rst, struct tls12_crypto_info_*).
// The handshake process makes and installs them; no other process ever holds one. Every object here that holds key
// bytes overwrites them when it goes, and cannot be copied.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/result.h"

namespace ktrunk::ktls {

enum class Version : std::uint8_t { kTls12, kTls13 };
enum class Aead : std::uint8_t { kAes128Gcm, kAes256Gcm, kChaCha20Poly1305 };
enum class Direction : std::uint8_t { kTransmit, kReceive };

inline constexpr std::array kVersions = {Version::kTls12, Version::kTls13};
inline constexpr std::array kAeads = {Aead::kAes128Gcm, Aead::kAes256Gcm, Aead::kChaCha20Poly1305};

[[nodiscard]] std::string_view version_name(Version version);  // "TLS 1.2", "TLS 1.3"
[[nodiscard]] std::string_view aead_name(Aead aead);           // "AES-128-GCM", "AES-256-GCM", "CHACHA20-POLY1305"

inline constexpr std::size_t kMaxKeyBytes = 32;
inline constexpr std::size_t kNonceBytes = 12;
inline constexpr std::size_t kTagBytes = 16;
inline constexpr std::size_t kMaxCryptoInfoBytes = 64;  // of a struct tls12_crypto_info_*
inline constexpr std::size_t kMaxRecordBytes = 16384;   // plaintext octets of one record (RFC 8446 5.1)

[[nodiscard]] constexpr std::size_t key_bytes(Aead aead) { return aead == Aead::kAes128Gcm ? 16 : 32; }
[[nodiscard]] std::size_t crypto_info_bytes(Aead aead);  // of the cipher's struct tls12_crypto_info_*

// The number of the next record under a key (RFC 8446 5.3, RFC 5246 6.1).
struct RecordSeq {
  std::uint64_t value = 0;
  friend constexpr auto operator<=>(RecordSeq, RecordSeq) = default;
};

// Overwrites memory in a way that no optimiser removes.
void wipe(std::span<std::byte> bytes);

// Up to Capacity secret bytes, inline. Moving empties the source.
template <std::size_t Capacity>
class Secret {
 public:
  Secret() = default;
  // bytes.size() <= Capacity; what is beyond is cut off.
  explicit Secret(std::span<const std::byte> bytes) {
    resize(bytes.size());
    for (std::size_t i = 0; i < size_; ++i) bytes_[i] = bytes[i];
  }
  Secret(Secret&& other) noexcept { take(other); }
  Secret& operator=(Secret&& other) noexcept {
    if (this != &other) {
      wipe(bytes_);
      take(other);
    }
    return *this;
  }
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  ~Secret() { wipe(bytes_); }

  void resize(std::size_t size) { size_ = size < Capacity ? size : Capacity; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  // Views live as long as this object and until it is moved from.
  [[nodiscard]] std::span<const std::byte> bytes() const { return {bytes_.data(), size_}; }
  [[nodiscard]] std::span<std::byte> writable() { return {bytes_.data(), size_}; }

 private:
  void take(Secret& other) {
    bytes_ = other.bytes_;
    size_ = other.size_;
    wipe(other.bytes_);
    other.size_ = 0;
  }
  std::array<std::byte, Capacity> bytes_ = {};
  std::size_t size_ = 0;
};

// What protects the records of one direction. The nonce is twelve octets whatever the cipher:
//   TLS 1.3, and ChaCha20 in TLS 1.2: the static IV, which the record number is xored into;
//   TLS 1.2 AES-GCM: the four octets of salt and the explicit nonce of the next record (RFC 5288 3). The explicit nonce
//   must not have been used under this key: the kernel counts up from it.
template <Direction D>
struct Keys {
  Version version = Version::kTls13;
  Aead aead = Aead::kAes128Gcm;
  Secret<kMaxKeyBytes> key;   // key_bytes(aead) octets
  Secret<kNonceBytes> nonce;  // kNonceBytes octets
  RecordSeq next;             // number of the first record that this direction will carry
};
using TransmitKeys = Keys<Direction::kTransmit>;
using ReceiveKeys = Keys<Direction::kReceive>;

// Both directions of one connection, seen from our end.
struct SessionKeys {
  TransmitKeys transmit;
  ReceiveKeys receive;
};

// The key and the number of the next record that the kernel has for one direction of a socket. The nonce stays there.
struct InstalledKey {
  Secret<kMaxKeyBytes> key;
  RecordSeq next;
};

// One direction's keys as the kernel takes them: the bytes of a struct tls12_crypto_info_*.
class CryptoInfo {
 public:
  template <Direction D>
  explicit CryptoInfo(const Keys<D>& keys)
      : CryptoInfo(keys.version, keys.aead, keys.key.bytes(), keys.nonce.bytes(), keys.next) {}
  CryptoInfo(const CryptoInfo&) = delete;
  CryptoInfo& operator=(const CryptoInfo&) = delete;
  ~CryptoInfo() { wipe(storage_); }

  // Empty when the key or the nonce has not the length that the cipher wants.
  [[nodiscard]] std::span<const std::byte> bytes() const { return {storage_.data(), size_}; }

 private:
  CryptoInfo(Version version, Aead aead, std::span<const std::byte> key, std::span<const std::byte> nonce,
             RecordSeq next);
  alignas(8) std::array<std::byte, kMaxCryptoInfoBytes> storage_ = {};
  std::size_t size_ = 0;
};

// What getsockopt wrote, the same structure. Error: it is of another version or cipher.
[[nodiscard]] Result<InstalledKey> parse_crypto_info(std::span<const std::byte> info, Version version, Aead aead);

}  // namespace ktrunk::ktls
