#include "sip/options_ping.h"

#include <fmt/format.h>

#include <charconv>

#include "sip/siphash.h"
#include "sip/via.h"

namespace ktrunk::sip {
namespace {

constexpr std::string_view kMark = "ping.";  // behind the magic cookie; no flow token has a "."

// 96 bits of it.
std::string mac_of(std::string_view text, const TokenKey& key) {
  const SipHash::Value mac = SipHash::hash128(text, SipHash::Key(key.bytes.data(), SipHash::kKeyBytes));
  return fmt::format("{:016x}{:08x}", mac.low, mac.high >> 32);
}

// In constant time.
bool same_mac(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned differences = 0;
  for (std::size_t i = 0; i < a.size(); ++i) differences |= static_cast<unsigned>(a[i] ^ b[i]);
  return differences == 0;
}

const char* transport_of(const Flow& flow) {
  switch (flow.transport) {
    case config::Transport::kTls:
      return "TLS";
    case config::Transport::kTcp:
      return "TCP";
    case config::Transport::kUdp:
      return "UDP";
  }
  return "TLS";
}

// Takes a number in hexadecimal and the "." behind it off the front.
bool take_number(std::string_view& text, unsigned& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, 16);
  if (error != std::errc{} || end == text.data() + text.size() || *end != '.') return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()) + 1);
  return number <= 0xffff;
}

}  // namespace

std::string options_ping(const PingSubject& subject, const Flow& to, std::string_view sent_by, std::uint64_t number,
                         const TokenKey& key) {
  const std::string signed_part = fmt::format("{}{:x}.{:x}.{:x}", kMark, subject.trunk.value, subject.target, number);
  const std::string mac = mac_of(signed_part, key);
  const std::string_view transport = transport_of(to);
  const std::string_view parameter = to.transport == config::Transport::kTls   ? ";transport=tls"
                                     : to.transport == config::Transport::kTcp ? ";transport=tcp"
                                                                               : "";
  const std::string uri = fmt::format("sip:{}{}", to.remote.text(), parameter);
  return fmt::format(
      "OPTIONS {} SIP/2.0\r\n"
      "Via: SIP/2.0/{} {};rport;branch={}{}.{}\r\n"
      "Max-Forwards: 70\r\n"
      "From: <sip:{}>;tag={:x}\r\n"
      "To: <{}>\r\n"
      "Call-ID: {:x}-{}@{}\r\n"
      "CSeq: 1 OPTIONS\r\n"
      "Contact: <sip:{}{}>\r\n"
      "Accept: application/sdp\r\n"
      "Content-Length: 0\r\n\r\n",
      uri, transport, sent_by, kMagicCookie, signed_part, mac, sent_by, number, uri, number, mac, sent_by, sent_by,
      parameter);
}

std::optional<PingSubject> ping_answered(const Message& response, const TokenKey& key) {
  if (!response.is_response()) return std::nullopt;
  const auto& via = response.facts().top_via;
  if (!via || !via->branch.starts_with(kMagicCookie)) return std::nullopt;
  const std::string_view branch = via->branch.substr(kMagicCookie.size());
  const std::size_t dot = branch.rfind('.');
  if (!branch.starts_with(kMark) || dot == std::string_view::npos) return std::nullopt;
  if (!same_mac(branch.substr(dot + 1), mac_of(branch.substr(0, dot), key))) return std::nullopt;
  std::string_view rest = branch.substr(kMark.size());
  unsigned trunk = 0;
  unsigned target = 0;
  if (!take_number(rest, trunk) || !take_number(rest, target)) return std::nullopt;
  return PingSubject{.trunk = TrunkId{static_cast<std::uint16_t>(trunk)}, .target = static_cast<std::uint16_t>(target)};
}

}  // namespace ktrunk::sip
