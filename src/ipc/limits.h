// Numbers that two processes must agree on.
#pragma once

#include <cstddef>
#include <cstdint>

#include "config/config.h"

namespace ktrunk::ipc {

inline constexpr unsigned kMaxWorkers = config::kMaxWorkers;
inline constexpr unsigned kMaxHandshakeProcesses = config::kMaxHandshakeProcesses;
inline constexpr unsigned kMaxTrunkConnections = config::kMaxTrunkConnections;  // of one trunk
inline constexpr std::size_t kMaxTargets = config::kMaxTargets;

// One record of TLS (RFC 8446 5.1), one packet of a relay: a send of at most so many octets is all or nothing and is
// never mixed with another process's.
inline constexpr std::size_t kRecordBytes = 16384;

// `ktrunk trace` commands at once.
inline constexpr unsigned kMaxTraces = 4;

// Descriptors on their way to one process and not yet acknowledged. The kernel refuses more than RLIMIT_NOFILE of them
// for all processes of a user together (ETOOMANYREFS); what is beyond the cap waits in the sender's queue.
inline constexpr unsigned kMaxDescriptorsInFlight = 64;

}  // namespace ktrunk::ipc
