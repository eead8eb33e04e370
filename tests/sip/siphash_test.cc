// SipHash against libsodium's, for every length that a token or a header field has.
#include "sip/siphash.h"

#include <gtest/gtest.h>
#include <sodium.h>

#include <array>
#include <cstring>
#include <random>
#include <string>

namespace ktrunk::sip {
namespace {

TEST(SipHashTest, AgreesWithLibsodium) {
  std::mt19937_64 random(7);
  std::array<unsigned char, SipHash::kKeyBytes> key;
  for (std::size_t size = 0; size < 300; ++size) {
    std::string octets(size, '\0');
    for (char& octet : octets) octet = static_cast<char>(random());
    for (unsigned char& octet : key) octet = static_cast<unsigned char>(random());
    const auto* input = reinterpret_cast<const unsigned char*>(octets.data());

    std::uint64_t narrow = 0;
    crypto_shorthash_siphash24(reinterpret_cast<unsigned char*>(&narrow), input, size, key.data());
    EXPECT_EQ(SipHash::hash64(octets, key), narrow) << size;

    std::array<std::uint64_t, 2> wide{};
    crypto_shorthash_siphashx24(reinterpret_cast<unsigned char*>(wide.data()), input, size, key.data());
    const auto value = SipHash::hash128(octets, key);
    EXPECT_EQ(value.low, wide[0]) << size;
    EXPECT_EQ(value.high, wide[1]) << size;
  }
}

TEST(SipHashTest, WordsAndTextsAreTheOctetsThatTheyStandFor) {
  const std::array<unsigned char, SipHash::kKeyBytes> key{1, 2, 3};
  std::string octets;
  SipHash hash(key);
  const auto word = [&](std::uint64_t number) { octets.append(reinterpret_cast<const char*>(&number), sizeof number); };
  hash.word(0x0102030405060708);
  word(0x0102030405060708);
  for (std::size_t size = 0; size < 40; ++size) {
    const std::string text(size, static_cast<char>('a' + size));
    hash.text(text);
    word(size);
    octets += text;
    octets.append((8 - size % 8) % 8, '\0');
  }
  EXPECT_EQ(hash.value64(), SipHash::hash64(octets, key));
}

TEST(SipHashTest, NoTextRunsOverIntoTheNext) {
  const std::array<unsigned char, SipHash::kKeyBytes> key{};
  const auto of = [&](std::string_view first, std::string_view second) {
    SipHash hash(key);
    hash.text(first);
    hash.text(second);
    return hash.value64();
  };
  EXPECT_NE(of("ab", "c"), of("a", "bc"));
  EXPECT_NE(of("abcdefgh", ""), of("", "abcdefgh"));
  EXPECT_NE(of(std::string_view("a\0", 2), ""), of("a", ""));
}

}  // namespace
}  // namespace ktrunk::sip
