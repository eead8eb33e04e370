// Packet: one message on a SOCK_SEQPACKET Unix socket, with a descriptor or without (unix(7), SCM_RIGHTS). It knows
// nothing of what is in the message: ipc/channel.h and handoff/wire.h do. Never blocks, whatever the socket's mode.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/fd.h"
#include "base/result.h"

namespace ktrunk {

enum class PacketSent : std::uint8_t {
  kSent,
  kWouldBlock,  // the socket is full, or too many descriptors are on their way (ETOOMANYREFS): try again
};
// Sends head and body as one packet. descriptor: lent, a copy goes along; an empty one for none. Errors: the peer is
// gone, and everything else that errno can say (Error::code).
[[nodiscard]] Result<PacketSent> send_packet(int socket, std::span<const std::byte> head,
                                             std::span<const std::byte> body, const Fd& descriptor);

struct PacketReceipt {
  enum class Outcome : std::uint8_t { kPacket, kWouldBlock, kClosed } outcome = Outcome::kClosed;
  std::size_t bytes = 0;         // of head and body together
  unsigned descriptors = 0;      // how many came; at most four are counted
  bool cut = false;              // it was longer than head and body
  bool descriptors_cut = false;  // there were more descriptors than four, or than this process may open
  Fd descriptor;                 // the first, close-on-exec; further ones have been closed
};
// The next packet into head, then body. An empty packet cannot be told from the end: it is kClosed.
[[nodiscard]] Result<PacketReceipt> receive_packet(int socket, std::span<std::byte> head, std::span<std::byte> body);

}  // namespace ktrunk
