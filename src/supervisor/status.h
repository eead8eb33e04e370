// Status: the state of the whole ktrunkd as one JSON document, for the control socket.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "config/config.h"
#include "ipc/shared_region.h"
#include "supervisor/connections.h"
#include "supervisor/trunk_states.h"

namespace ktrunk::supervisor {

struct ProcessStatus {
  std::string name;
  int pid;
  unsigned restarts;
};

struct DaemonStatus {
  std::string version;
  std::string state;  // "running", "draining"
  std::chrono::seconds uptime;
  std::vector<ProcessStatus> processes;
};

// Reads the shared region as it is now. Keys are stable: scripts may rely on them.
[[nodiscard]] std::string status_json(const DaemonStatus& daemon, const config::Config& config,
                                      const ipc::SharedRegion& region, const Connections& connections,
                                      const TrunkStates& trunks);

}  // namespace ktrunk::supervisor
