// Worker: the loop that every design's workers run: makes the messages that are due and gives them to the design's way
// of sending, in batches of at most one record.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "bench/designs/server.h"
#include "bench/designs/shared_state.h"
#include "handshake/tls_session.h"

namespace ktrunk::bench {

// A way of sending.
class Outlet {
 public:
  enum class Outcome : std::uint8_t { kTaken, kFull, kBroken };
  virtual ~Outlet() = default;
  // At most a record's octets, all or nothing. After kFull: wait for fd() and offer the same again.
  virtual Outcome offer(std::span<const std::byte> messages) = 0;
  [[nodiscard]] virtual int fd() const = 0;
};

// Returns when the outlet is broken.
void run_worker(const ServerOptions& options, SharedState& shared, unsigned index, Outlet& outlet);

// Connects to the peer and makes the handshake.
[[nodiscard]] Result<handshake::TlsSession> connect_to_peer(const ServerOptions& options);

// Bounds what the kernel keeps for a connection, the same at both ends of every design: else it grows with the load.
void limit_socket_buffers(int fd);

[[nodiscard]] std::uint64_t monotonic_ns();

}  // namespace ktrunk::bench
