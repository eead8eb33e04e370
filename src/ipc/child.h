// Child: the first minute of every child process of ktrunkd, the same for all: it takes its channel from descriptor 3,
// says Hello, and is given what it needs for its life by Setup messages until Ready.
#pragma once

#include <array>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "config/config.h"
#include "ipc/channel.h"
#include "ipc/shared_region.h"

namespace ktrunk::ipc {

// Where the supervisor puts a child's channel.
inline constexpr int kChannelDescriptor = 3;

// What the Setup messages brought; descriptors are close-on-exec.
struct ChildSetup {
  config::Config config;
  SharedRegion region;
  WorkerIndex worker;                     // of a worker
  HandshakeIndex handshake;               // of a handshake process
  Fd vault;                               // to a handshake process
  Fd estate;                              // to a worker
  Fd collector;                           // to a worker, where there is one
  std::array<Fd, kMaxWorkers> doorbells;  // to a worker
  std::vector<std::pair<ListenerId, Fd>>
      listeners;  // stream listeners to the handshake process, UDP sockets to workers
};

// The process dies with its parent, and cannot be dumped or traced. The kernel forgets both when a process changes its
// user: call it again then. Under AddressSanitizer, whose leak check traces the process, it stays dumpable.
void die_with_parent_and_stay_private();

class Child {
 public:
  // Call it first in main. The process dies with its parent, ignores SIGPIPE and the terminal's and service manager's
  // signals (the supervisor decides when a child ends), cannot be dumped or traced, and has said Hello.
  [[nodiscard]] static Result<Child> start(Role role, AcceptList accept);

  // Waits for Setup messages until Ready. Everything that a child of any role must have has come.
  [[nodiscard]] Result<ChildSetup> wait_for_setup();

  // The channel, for the process's own loop.
  [[nodiscard]] Channel release_channel() && { return std::move(channel_); }

 private:
  explicit Child(Channel channel) : channel_(std::move(channel)) {}
  Channel channel_;
};

}  // namespace ktrunk::ipc
