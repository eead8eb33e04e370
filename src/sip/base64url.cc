#include "sip/base64url.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace ktrunk::sip::base64url {

namespace {

#if defined(__AVX2__)

// After Wojciech Mula and Daniel Lemire, "Faster Base64 Encoding and Decoding Using AVX2 Instructions" (2018).
void encode_block(const unsigned char* octets, char* out) {
  // Each half of the register takes twelve octets; three of them become four numbers of six bits.
  const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(octets));
  std::uint64_t third = 0;
  std::uint32_t fourth = 0;
  std::memcpy(&third, octets + 12, sizeof third);
  std::memcpy(&fourth, octets + 20, sizeof fourth);
  const __m128i high = _mm_set_epi64x(fourth, static_cast<long long>(third));
  const __m256i order = _mm256_setr_epi8(1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10,  //
                                         1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10);
  const __m256i in = _mm256_shuffle_epi8(_mm256_set_m128i(high, low), order);
  const __m256i upper = _mm256_mulhi_epu16(_mm256_and_si256(in, _mm256_set1_epi32(0x0fc0fc00)),  //
                                           _mm256_set1_epi32(0x04000040));
  const __m256i lower = _mm256_mullo_epi16(_mm256_and_si256(in, _mm256_set1_epi32(0x003f03f0)),  //
                                           _mm256_set1_epi32(0x01000010));
  const __m256i digits = _mm256_or_si256(upper, lower);
  // What is to be added depends on the range: 0 for a to z, 1 to 10 the numerals, 11 '-', 12 '_', 13 A to Z.
  const __m256i is_capital = _mm256_cmpgt_epi8(_mm256_set1_epi8(26), digits);
  const __m256i range = _mm256_or_si256(_mm256_subs_epu8(digits, _mm256_set1_epi8(51)),
                                        _mm256_and_si256(is_capital, _mm256_set1_epi8(13)));
  const __m256i shift = _mm256_setr_epi8(71, -4, -4, -4, -4, -4, -4, -4, -4, -4, -4, -17, 32, 65, 0, 0,  //
                                         71, -4, -4, -4, -4, -4, -4, -4, -4, -4, -4, -17, 32, 65, 0, 0);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_add_epi8(digits, _mm256_shuffle_epi8(shift, range)));
}

bool decode_block(const char* chars, unsigned char* out) {
  const __m256i in = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(chars));
  const auto between = [in](char first, char last) {
    return _mm256_and_si256(_mm256_cmpgt_epi8(in, _mm256_set1_epi8(static_cast<char>(first - 1))),
                            _mm256_cmpgt_epi8(_mm256_set1_epi8(static_cast<char>(last + 1)), in));
  };
  const auto shift_if = [](__m256i range, char shift) { return _mm256_and_si256(range, _mm256_set1_epi8(shift)); };
  const __m256i capital = between('A', 'Z'), small = between('a', 'z'), numeral = between('0', '9');
  const __m256i hyphen = _mm256_cmpeq_epi8(in, _mm256_set1_epi8('-'));
  const __m256i underscore = _mm256_cmpeq_epi8(in, _mm256_set1_epi8('_'));
  const __m256i letters = _mm256_or_si256(shift_if(capital, -'A'), shift_if(small, 26 - 'a'));
  const __m256i others = _mm256_or_si256(shift_if(hyphen, 62 - '-'), shift_if(underscore, 63 - '_'));
  const __m256i shift = _mm256_or_si256(_mm256_or_si256(letters, others), shift_if(numeral, 52 - '0'));
  if (_mm256_movemask_epi8(_mm256_cmpeq_epi8(shift, _mm256_setzero_si256())) != 0) return false;  // none shifts by 0
  const __m256i digits = _mm256_add_epi8(in, shift);
  const __m256i pairs = _mm256_maddubs_epi16(digits, _mm256_set1_epi32(0x01400140));
  const __m256i threes = _mm256_madd_epi16(pairs, _mm256_set1_epi32(0x00011000));
  const __m256i order = _mm256_setr_epi8(2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1,  //
                                         2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1);
  const __m256i octets =
      _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(threes, order), _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 3, 7));
  alignas(32) unsigned char whole[32];
  _mm256_store_si256(reinterpret_cast<__m256i*>(whole), octets);
  std::memcpy(out, whole, kBlockOctets);
  return true;
}

#else

constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
constexpr auto kDigits = [] {
  std::array<unsigned char, 256> digits{};
  digits.fill(0xff);
  for (unsigned char i = 0; i < 64; ++i) digits[static_cast<unsigned char>(kAlphabet[i])] = i;
  return digits;
}();

void encode_block(const unsigned char* octets, char* out) {
  for (std::size_t i = 0; i < kBlockOctets; i += 3, out += 4) {
    const std::uint32_t three = std::uint32_t{octets[i]} << 16 | std::uint32_t{octets[i + 1]} << 8 | octets[i + 2];
    for (unsigned digit = 0; digit < 4; ++digit) out[digit] = kAlphabet[three >> (18 - 6 * digit) & 63];
  }
}

bool decode_block(const char* chars, unsigned char* out) {
  unsigned all = 0;  // a character that is none of the alphabet shows in the bits above six
  for (std::size_t i = 0; i < kBlockChars; i += 4, out += 3) {
    std::uint32_t three = 0;
    for (std::size_t digit = 0; digit < 4; ++digit) {
      const unsigned char value = kDigits[static_cast<unsigned char>(chars[i + digit])];
      all |= value;
      three = three << 6 | value;
    }
    for (unsigned octet = 0; octet < 3; ++octet) out[octet] = static_cast<unsigned char>(three >> (16 - 8 * octet));
  }
  return all <= 63;
}

#endif

}  // namespace

std::size_t encode(const unsigned char* octets, std::size_t size, char* out) {
  const std::size_t whole = size / kBlockOctets * kBlockOctets;
  for (std::size_t i = 0; i < whole; i += kBlockOctets, out += kBlockChars) encode_block(octets + i, out);
  if (whole < size) {
    std::array<unsigned char, kBlockOctets> last{};
    std::memcpy(last.data(), octets + whole, size - whole);
    encode_block(last.data(), out);
  }
  return chars_of(size);
}

std::size_t decode(std::string_view text, unsigned char* out) {
  const std::size_t size = text.size() * 3 / 4;
  if (size == 0 || chars_of(size) != text.size()) return 0;
  unsigned char* octets = out;
  std::size_t done = 0;
  for (; done + kBlockChars <= text.size(); done += kBlockChars, octets += kBlockOctets)
    if (!decode_block(text.data() + done, octets)) return 0;
  if (done == text.size()) return size;
  std::array<char, kBlockChars> last;
  last.fill('A');  // zeros
  std::memcpy(last.data(), text.data() + done, text.size() - done);
  if (!decode_block(last.data(), octets)) return 0;
  return text.size() % 4 == 0 || out[size] == 0 ? size : 0;  // the bits that are left over
}

}  // namespace ktrunk::sip::base64url
