// Base64url (RFC 4648 5, no padding) for the short texts that tokens are, twenty-four octets at a time.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string_view>

namespace ktrunk::sip::base64url {

inline constexpr std::size_t kBlockOctets = 24;
inline constexpr std::size_t kBlockChars = 32;

// Characters for so many octets, and the room that encode() and decode() write to: whole blocks.
[[nodiscard]] constexpr std::size_t chars_of(std::size_t octets) { return (octets * 4 + 2) / 3; }
[[nodiscard]] constexpr std::size_t char_room(std::size_t octets) {
  return (octets + kBlockOctets - 1) / kBlockOctets * kBlockChars;
}
[[nodiscard]] constexpr std::size_t octet_room(std::size_t octets) { return char_room(octets) / 4 * 3; }

// out: room for char_room(size). Returns chars_of(size); what is written behind those says nothing.
std::size_t encode(const unsigned char* octets, std::size_t size, char* out);

// out: room for octet_room() of the octets that the text stands for. Returns how many these are; 0: none, or it is not
// such a text. Every text has one spelling: bits that stand for no octet are zero.
[[nodiscard]] std::size_t decode(std::string_view text, unsigned char* out);

}  // namespace ktrunk::sip::base64url
