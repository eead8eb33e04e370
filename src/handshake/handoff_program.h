// Handoff program: `ktrunkd-handshake --serve`: a HandoffService as a process of its own, without a supervisor.
// SIGTERM and SIGINT end it in order (relays first, bounded by limits.drain), SIGHUP reads certificates and keys again.
#pragma once

#include <string>

#include "base/result.h"
#include "config/config.h"

namespace ktrunk::handshake {

// Serves until it is told to end. The process can be neither dumped nor traced from here on, and gains no privileges.
[[nodiscard]] Status run_handoff_program(const std::string& socket, const config::Config& config);

}  // namespace ktrunk::handshake
