// Confinement: what a worker gives up once it is set up and before it reads the first octet of a peer. It parses what
// strangers send, and every connection's socket is open in it; so what it could still do when taken over is kept small.
// Worker processes run it, once, in this order: give_up_privileges(), Ring::enable(kRingOperations),
// allow_only_needed_system_calls().
//
// Of TLS it never had a key; the filter keeps it from asking the kernel for one: getsockopt(SOL_TLS, TLS_TX) shows the
// live key to any holder of the socket (io_uring has an operation for that too, which the ring refuses).
#pragma once

#include <liburing.h>

#include <array>
#include <string>

#include "base/result.h"

namespace ktrunk::worker {

// What a worker's ring may be asked to do.
inline constexpr std::array kRingOperations = {IORING_OP_SEND,         IORING_OP_SENDMSG,  IORING_OP_RECVMSG,
                                               IORING_OP_ASYNC_CANCEL, IORING_OP_POLL_ADD, IORING_OP_TIMEOUT};

// No new privileges by exec, for ever. As root: becomes `user`, in its group and no other. Whoever it is: no
// capabilities, and die_with_parent_and_stay_private() (ipc/child.h) again. An error says what stands against it, an
// unknown user among others; the process should end then.
[[nodiscard]] Status give_up_privileges(const std::string& user);

// From here on, any other system call than those of the loop kills the process (seccomp(2)). An error means that the
// environment refuses filters; the worker can run without. Builds with AddressSanitizer or ThreadSanitizer install
// none, for their runtimes make many more calls.
[[nodiscard]] Status allow_only_needed_system_calls();

// False in builds where allow_only_needed_system_calls() does nothing.
[[nodiscard]] bool filters_system_calls();

}  // namespace ktrunk::worker
