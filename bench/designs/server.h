// Server: one design's processes: how several workers send SIP messages to one peer over TLS. One function for each
// design; all have the same workers, the same messages and the same peer.
//
//   own     each worker process has an OpenSSL connection of its own: N workers and M peers make N x M connections
//   owner   one process has the OpenSSL connection; workers hand it their messages over SOCK_SEQPACKET
//   lock    one process, its threads share an OpenSSL connection behind a lock, which a sender keeps until its messages
//           have gone
//   kernel  ktrunk's: one connection whose records the kernel makes; every worker process sends on it, without a lock
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/address.h"
#include "base/result.h"
#include "bench/common/endpoint.h"
#include "bench/designs/shared_state.h"

namespace ktrunk::bench {

enum class Design : std::uint8_t { kOwn, kOwner, kLock, kKernel };
inline constexpr std::array kDesigns = {Design::kOwn, Design::kOwner, Design::kLock, Design::kKernel};
[[nodiscard]] std::string_view design_name(Design design);  // "own"
[[nodiscard]] std::string_view design_text(Design design);  // one line

struct ServerOptions {
  Design design = Design::kOwn;
  unsigned workers = 4;
  std::size_t message_bytes = 600;
  std::size_t batch = 8;  // messages that a worker has ready at once, at full pace
  Endpoint peer;
  TlsSettings tls;
};

// Runs the design's first process, which makes the others; call it in a process of its own. It ends by being killed,
// and takes the others with it. Error: it could not be set up.
[[nodiscard]] Status run_server(const ServerOptions& options, SharedState& shared);

}  // namespace ktrunk::bench
