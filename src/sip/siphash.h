// SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF"), with 64 and 128 bits: the keyed hash behind
// flow tokens. SipHash-1-3, its authors' choice for hash tables: that behind transaction numbers. Here, and not a
// library's, because libraries take one run of octets: a message's fields lie apart, and go into one hash word by word.
// Takes the same time for all inputs of one length.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace ktrunk::sip {

static_assert(std::endian::native == std::endian::little, "words are read as they lie");

// kRounds: for each word; kLastRounds: at the end.
template <int kRounds, int kLastRounds>
class BasicSipHash {
 public:
  static constexpr std::size_t kKeyBytes = 16;
  using Key = std::span<const unsigned char, kKeyBytes>;
  enum class Width : std::uint8_t { k64, k128 };
  struct Value {
    std::uint64_t low, high;  // in the order of their octets; 64 bits: low alone
  };

  explicit BasicSipHash(Key key, Width width = Width::k64) {
    const std::uint64_t k0 = load(key.data());
    const std::uint64_t k1 = load(key.data() + 8);
    v0_ = k0 ^ 0x736f6d6570736575;
    v1_ = k1 ^ 0x646f72616e646f6d ^ (width == Width::k128 ? 0xee : 0);
    v2_ = k0 ^ 0x6c7967656e657261;
    v3_ = k1 ^ 0x7465646279746573;
  }

  // Eight octets of input, little-endian.
  void word(std::uint64_t word) {
    v3_ ^= word;
    for (int i = 0; i < kRounds; ++i) round();
    v0_ ^= word;
    words_ += 1;
  }
  // A text with its length before it and zeros up to a whole word behind it, so that none runs over into the next.
  void text(std::string_view text) {
    word(text.size());
    padded(text);
  }
  // The same without the length, for who has put that into the hash already.
  void padded(std::string_view text) {
    whole_words(text);
    if (text.size() % 8 != 0) word(last_octets(text));
  }

  // The hash of the words so far.
  [[nodiscard]] std::uint64_t value64() {
    end(0);
    v2_ ^= 0xff;
    return squeeze();
  }

  // The hash of octets as they are: what others call SipHash and SipHash-128.
  [[nodiscard]] static std::uint64_t hash64(std::string_view octets, Key key) {
    BasicSipHash hash(key);
    hash.octets(octets);
    hash.v2_ ^= 0xff;
    return hash.squeeze();
  }
  [[nodiscard]] static Value hash128(std::string_view octets, Key key) {
    BasicSipHash hash(key, Width::k128);
    hash.octets(octets);
    hash.v2_ ^= 0xee;
    const std::uint64_t low = hash.squeeze();
    hash.v1_ ^= 0xdd;
    return {low, hash.squeeze()};
  }

 private:
  static std::uint64_t load(const void* octets) {
    std::uint64_t word = 0;
    std::memcpy(&word, octets, sizeof word);
    return word;
  }
  // The size % 8 octets at the end, in the low places of a word.
  static std::uint64_t last_octets(std::string_view text) {
    const std::size_t count = text.size() % 8;
    if (text.size() >= 8) return load(text.data() + text.size() - 8) >> (8 * (8 - count));
    std::uint64_t word = 0;
    for (std::size_t i = text.size(); i-- > 0;) word = word << 8 | static_cast<unsigned char>(text[i]);
    return word;
  }
  void whole_words(std::string_view text) {
    for (std::size_t i = 0; i + 8 <= text.size(); i += 8) word(load(text.data() + i));
  }
  void octets(std::string_view octets) {
    whole_words(octets);
    end(octets.size() % 8 != 0 ? last_octets(octets) : 0, octets.size());
  }
  void end(std::uint64_t last, std::size_t size) { word(last | static_cast<std::uint64_t>(size) << 56); }
  void end(std::uint64_t last) { end(last, 8 * words_); }
  std::uint64_t squeeze() {
    for (int i = 0; i < kLastRounds; ++i) round();
    return v0_ ^ v1_ ^ v2_ ^ v3_;
  }
  void round() {
    v0_ += v1_;
    v1_ = std::rotl(v1_, 13) ^ v0_;
    v0_ = std::rotl(v0_, 32);
    v2_ += v3_;
    v3_ = std::rotl(v3_, 16) ^ v2_;
    v0_ += v3_;
    v3_ = std::rotl(v3_, 21) ^ v0_;
    v2_ += v1_;
    v1_ = std::rotl(v1_, 17) ^ v2_;
    v2_ = std::rotl(v2_, 32);
  }

  std::uint64_t v0_, v1_, v2_, v3_;
  std::size_t words_ = 0;
};

using SipHash = BasicSipHash<2, 4>;
using SipHash13 = BasicSipHash<1, 3>;

}  // namespace ktrunk::sip
