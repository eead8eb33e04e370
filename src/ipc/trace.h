// Trace: how a worker tells `ktrunk trace` of one SIP message: a packet on a SOCK_SEQPACKET pair that the supervisor
// made (messages.h, Trace), a TraceHead and the message's octets behind it. Workers write; the command reads, which is
// of another version than the daemon perhaps: the head says which layout it has.
//
// The message is as it was received, after decryption, or as it is queued for sending, before encryption.
#pragma once

#include <cstdint>
#include <type_traits>

#include "base/address.h"
#include "config/config.h"

namespace ktrunk::ipc {

struct TraceHead {
  static constexpr std::uint32_t kLayout = 0x6b740001;

  std::uint32_t layout = kLayout;
  config::Transport transport = config::Transport::kTls;
  enum class Direction : std::uint8_t { kReceived, kSent } direction = Direction::kReceived;
  std::uint8_t worker = 0;
  std::uint8_t reserved = 0;
  std::uint32_t microseconds = 0;
  std::uint32_t octets = 0;
  std::uint64_t seconds = 0;  // since 1970
  std::uint64_t dropped = 0;  // messages that this worker could not tell of, since the trace began
  Address from;
  Address to;
};
static_assert(std::is_trivially_copyable_v<TraceHead> && std::is_standard_layout_v<TraceHead>);

// What the supervisor asks for as the socket's buffer: a burst of messages, and the longest one.
inline constexpr int kTraceBufferBytes = 4 << 20;

}  // namespace ktrunk::ipc
