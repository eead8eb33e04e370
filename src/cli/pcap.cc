// The pcap file of `ktrunk trace`. Numbers of the file are in this machine's order, which its magic number tells; those
// in the tags of an exported PDU (Wireshark's epan/exported_pdu.h) are in network order.
#include <algorithm>
#include <cstring>

#include "cli/trace.h"

namespace ktrunk::cli {
namespace {

// What readers take of one packet at most.
constexpr std::uint32_t kMostPacketBytes = 262'144;

enum class Tag : std::uint16_t {
  kEnd = 0,
  kDissectorName = 12,
  kIpv4Source = 20,
  kIpv4Destination = 21,
  kIpv6Source = 22,
  kIpv6Destination = 23,
  kPortType = 24,
  kSourcePort = 25,
  kDestinationPort = 26,
};
constexpr std::uint32_t kPortTypeTcp = 2;
constexpr std::uint32_t kPortTypeUdp = 3;

template <typename Number>
void put(std::string& out, Number value) {
  char octets[sizeof value];
  std::memcpy(octets, &value, sizeof value);
  out.append(octets, sizeof octets);
}

template <typename Number>
std::string network_order(Number value) {
  std::string octets;
  for (std::size_t i = sizeof value; i-- > 0;) octets += static_cast<char>(value >> (8 * i) & 0xff);
  return octets;
}

// The value is filled up to a multiple of four, and its length says so.
void put_tag(std::string& out, Tag tag, std::string_view value) {
  constexpr std::size_t kUnit = 4;
  const std::size_t bytes = (value.size() + kUnit - 1) / kUnit * kUnit;
  out += network_order(static_cast<std::uint16_t>(tag));
  out += network_order(static_cast<std::uint16_t>(bytes));
  out += value;
  out.append(bytes - value.size(), '\0');
}

void put_address(std::string& out, const Address& address, Tag ipv4, Tag ipv6, Tag port) {
  if (address.empty()) return;
  put_tag(out, address.family() == AF_INET6 ? ipv6 : ipv4, address.ip_bytes());
  put_tag(out, port, network_order(std::uint32_t{address.port()}));
}

}  // namespace

std::string pcap_header() {
  constexpr std::uint32_t kMagic = 0xa1b2c3d4;  // times in microseconds
  constexpr std::uint32_t kWiresharkUpperPdu = 252;
  std::string out;
  put(out, kMagic);
  put(out, std::uint16_t{2});  // version 2.4
  put(out, std::uint16_t{4});
  put(out, std::uint32_t{0});  // times are UTC
  put(out, std::uint32_t{0});
  put(out, kMostPacketBytes);
  put(out, kWiresharkUpperPdu);
  return out;
}

std::string pcap_record(const ipc::TraceHead& head, std::string_view octets) {
  std::string packet;
  put_tag(packet, Tag::kDissectorName, "sip");
  put_address(packet, head.from, Tag::kIpv4Source, Tag::kIpv6Source, Tag::kSourcePort);
  put_address(packet, head.to, Tag::kIpv4Destination, Tag::kIpv6Destination, Tag::kDestinationPort);
  const bool datagram = head.transport == config::Transport::kUdp;
  put_tag(packet, Tag::kPortType, network_order(datagram ? kPortTypeUdp : kPortTypeTcp));
  put_tag(packet, Tag::kEnd, {});
  packet += octets;
  const auto bytes = static_cast<std::uint32_t>(packet.size());
  packet.resize(std::min(bytes, kMostPacketBytes));
  std::string out;
  put(out, static_cast<std::uint32_t>(head.seconds));
  put(out, head.microseconds);
  put(out, static_cast<std::uint32_t>(packet.size()));
  put(out, bytes);
  return out + packet;
}

}  // namespace ktrunk::cli
