#include "ktls/crypto_info.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

namespace ktrunk::ktls {
namespace {

std::vector<std::byte> counting(std::size_t size, unsigned from) {
  std::vector<std::byte> out(size);
  for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<std::byte>(from + i);
  return out;
}

TransmitKeys some_keys(Version version, Aead aead) {
  TransmitKeys keys;
  keys.version = version;
  keys.aead = aead;
  keys.key = Secret<kMaxKeyBytes>(counting(key_bytes(aead), 0x40));
  keys.nonce = Secret<kNonceBytes>(counting(kNonceBytes, 1));
  keys.next = {0x0102030405060708};
  return keys;
}

// The kernel's own order: version, cipher, iv, key, salt, record number (linux/tls.h).
TEST(CryptoInfo, AesGcmSplitsTheNonceIntoSaltAndIv) {
  for (const Aead aead : {Aead::kAes128Gcm, Aead::kAes256Gcm}) {
    const auto keys = some_keys(Version::kTls13, aead);
    const CryptoInfo info(keys);
    const auto bytes = info.bytes();
    ASSERT_EQ(bytes.size(), 4 + 8 + key_bytes(aead) + 4 + 8);
    EXPECT_EQ(bytes[0], std::byte{0x04});  // 0x0304 in little endian
    EXPECT_EQ(bytes[1], std::byte{0x03});
    EXPECT_EQ(bytes[2], static_cast<std::byte>(aead == Aead::kAes128Gcm ? 51 : 52));
    EXPECT_EQ(bytes[3], std::byte{0});
    EXPECT_EQ(bytes[4], std::byte{5});  // nonce[4]
    EXPECT_EQ(bytes[11], std::byte{12});
    EXPECT_EQ(bytes[12], std::byte{0x40});
    const std::size_t salt = 12 + key_bytes(aead);
    EXPECT_EQ(bytes[salt], std::byte{1});
    EXPECT_EQ(bytes[salt + 3], std::byte{4});
    EXPECT_EQ(bytes[salt + 4], std::byte{1});  // big endian
    EXPECT_EQ(bytes[salt + 11], std::byte{8});
  }
}

TEST(CryptoInfo, ChaChaTakesTheWholeNonceAsIv) {
  const auto keys = some_keys(Version::kTls12, Aead::kChaCha20Poly1305);
  const CryptoInfo info(keys);
  const auto bytes = info.bytes();
  ASSERT_EQ(bytes.size(), 4u + 12 + 32 + 8);
  EXPECT_EQ(bytes[0], std::byte{0x03});
  EXPECT_EQ(bytes[2], std::byte{54});
  EXPECT_EQ(bytes[4], std::byte{1});
  EXPECT_EQ(bytes[15], std::byte{12});
  EXPECT_EQ(bytes[16], std::byte{0x40});
  EXPECT_EQ(bytes[55], std::byte{8});
}

TEST(CryptoInfo, IsEmptyForLengthsThatDoNotFit) {
  for (const Aead aead : kAeads) {
    auto keys = some_keys(Version::kTls13, aead);
    keys.key.resize(key_bytes(aead) - 1);
    EXPECT_TRUE(CryptoInfo(keys).bytes().empty());
    keys = some_keys(Version::kTls13, aead);
    keys.nonce.resize(4);
    EXPECT_TRUE(CryptoInfo(keys).bytes().empty());
  }
  EXPECT_TRUE(CryptoInfo(TransmitKeys()).bytes().empty());
}

static_assert(!std::is_copy_constructible_v<TransmitKeys> && std::is_nothrow_move_constructible_v<TransmitKeys>);
static_assert(!std::is_same_v<TransmitKeys, ReceiveKeys> && !std::is_convertible_v<TransmitKeys, ReceiveKeys>);

TEST(Secret, MovingEmptiesTheSource) {
  Secret<8> first(counting(8, 1));
  const Secret<8> second(std::move(first));
  EXPECT_TRUE(first.empty());  // NOLINT(bugprone-use-after-move): that is the point
  first.resize(8);
  for (const std::byte byte : first.bytes()) EXPECT_EQ(byte, std::byte{0});
  EXPECT_EQ(second.bytes()[7], std::byte{8});
}

TEST(Secret, WipesItselfWhenItGoes) {
  alignas(Secret<16>) std::array<std::byte, sizeof(Secret<16>)> memory = {};
  std::byte* place = memory.data();
  auto* secret = new (place) Secret<16>(counting(16, 0xa0));
  std::destroy_at(secret);
  asm volatile("" : "+r"(place) : : "memory");  // look at the memory, not at what the compiler thinks of it
  for (std::size_t i = 0; i < 16; ++i) EXPECT_EQ(place[i], std::byte{0});
}

TEST(Secret, TakesNoMoreThanItHolds) {
  const Secret<4> secret(counting(9, 1));
  EXPECT_EQ(secret.size(), 4u);
}

}  // namespace
}  // namespace ktrunk::ktls
