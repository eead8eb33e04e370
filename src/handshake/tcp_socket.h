// TCP sockets as ktrunk wants them: no delay, dead peers found out (tcp(7)). The handshake process makes and accepts
// them all. Calls that fail on a socket that has just been reset are not errors here: its next use tells.
#pragma once

#include <chrono>
#include <cstdint>

#include "base/address.h"
#include "base/fd.h"
#include "base/result.h"

namespace ktrunk::handshake {

// TCP_NODELAY, keepalives, and TCP_USER_TIMEOUT: a peer that acknowledges nothing for so long is reset.
void set_connection_options(int fd, std::chrono::milliseconds stalled_peer);

// A non-blocking, close-on-exec socket that is connecting to `peer`, or connected already (loopback).
[[nodiscard]] Result<Fd> start_connect(const Address& peer, std::chrono::milliseconds stalled_peer);
// How the connect went, once the socket is writable: 0 or an errno value.
[[nodiscard]] int connect_result(int fd);

// Closes the connection without ceremony: the peer gets a reset, and nothing of it stays here (no TIME_WAIT).
void reset_connection(Fd socket);

enum class Blocking : std::uint8_t { kNo, kYes };
[[nodiscard]] Status set_blocking(int fd, Blocking blocking);

// The socket's own address; empty when the kernel does not say.
[[nodiscard]] Address local_address(int fd);

}  // namespace ktrunk::handshake
