// Flow tokens (RFC 5626 5.2): a Flow as text inside a message, under a key that only this ktrunkd's workers have. What
// comes back in a response's Via or a request's Route is believed because of the MAC, and for nothing else.
//
// Layout, before base64url (RFC 4648 5, no padding); numbers are big-endian:
//   kind 1 | flow | transaction 8 | loop 4 | destination 4 | mac 12     in a Via branch
//   kind 1 | flow A | flow B | mac 12                                   in the user part of a Record-Route
//   flow = tag 1 | listener 2 | trunk 2 | slot 4, generation 4       stream
//                                       | port 2, address 4 or 16    UDP
//        | tag 1 | trunk 2                                           any connection of the trunk; in a Via branch alone
// kind holds the version and the purpose, so a token made for one place is worthless in the other.
//
// A trunk's connection is not in the branch, so that a CANCEL or ACK gets its INVITE's whichever connection it comes by
// (RFC 3261 16.10, 17.2.3). It stands beside the branch in a Via parameter of ours, which needs no MAC: all it can do
// is to name another connection of the same trunk (flow_hint).
//
// The MAC is SipHash-2-4 with 128 bits, cut to 96 (siphash.h): a keyed MAC made for short inputs. For the 22 octets of
// a Via token it takes about 25 ns, HMAC-SHA-256 about 900 ns (libsodium 1.0.18, x86-64 at 2.6 GHz; bench_sip,
// token_mac_*), and a message needs up to four of them. A forger has one chance in 2^96 for each message sent, with
// either. The comparison takes constant time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "sip/base64url.h"
#include "sip/flow.h"

namespace ktrunk::sip {

// Random, from the kernel, one for the life of a ktrunkd (longer if dialogs are to survive its restart). The first 16
// octets make MACs, the others transaction hashes.
struct TokenKey {
  std::array<unsigned char, 32> bytes;
};

// In a Via: where the response goes, and what must hold for it.
struct ViaToken {
  Flow source;                    // decoded for a trunk's stream: the trunk alone, any transport and listener
  std::uint64_t transaction = 0;  // transaction_hash()
  std::uint32_t loop = 0;         // loop_hash()
  std::uint32_t destination = 0;  // peer_hash() of where the request goes: the response comes from there
};

// In a Record-Route: the two sides of the dialog.
struct RouteToken {
  enum class Lines : std::uint8_t { kOne, kTwo };  // kTwo: two Record-Route lines with this token (RFC 5658)
  Flow a;                                          // where the dialog-forming request came from
  Flow b;                                          // where it went
  Lines lines = Lines::kOne;
};

inline constexpr std::size_t kMacBytes = 12;
inline constexpr std::size_t kMaxFlowBytes = 1 + 2 + 2 + 2 + 16;
inline constexpr std::size_t kMaxTokenBytes = 1 + 2 * kMaxFlowBytes + kMacBytes;
inline constexpr std::size_t kMaxTokenChars = base64url::chars_of(kMaxTokenBytes);
// The shortest has two flows over UDP whose peers are not known.
inline constexpr std::size_t kMinTokenChars = base64url::chars_of(1 + 2 * 5 + kMacBytes);

// A token's characters, all of them allowed in a branch and in a URI's user part.
class TokenText {
 public:
  [[nodiscard]] std::string_view view() const { return {data_.data(), size_}; }

 private:
  friend class TokenWriter;
  std::array<char, base64url::char_room(kMaxTokenBytes)> data_;
  std::size_t size_ = 0;
};

// Remote addresses are kept for UDP flows only. An IPv6 scope is not kept: no link-local UDP peers.
[[nodiscard]] TokenText encode_token(const ViaToken& token, const TokenKey& key);
[[nodiscard]] TokenText encode_token(const RouteToken& token, const TokenKey& key);

// SLOT-GENERATION in hexadecimal: the value of the Via parameter "flow". Empty for a flow whose token says it all.
inline constexpr std::size_t kMaxHintChars = 8 + 1 + 8;
class FlowHint {
 public:
  explicit FlowHint(const Flow& flow);
  [[nodiscard]] std::string_view view() const { return {data_.data(), size_}; }

 private:
  std::array<char, kMaxHintChars> data_;
  std::size_t size_ = 0;
};
// Invalid for anything else.
[[nodiscard]] ConnectionId parse_flow_hint(std::string_view text);

// None for anything that was not made by encode_token for this purpose with this key.
[[nodiscard]] std::optional<ViaToken> decode_via_token(std::string_view text, const TokenKey& key);
[[nodiscard]] std::optional<RouteToken> decode_route_token(std::string_view text, const TokenKey& key);

}  // namespace ktrunk::sip
