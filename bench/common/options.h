// Options that several subcommands have: durations; the processes whose CPU time is measured.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "base/result.h"
#include "bench/common/cli.h"
#include "bench/common/cpu_time.h"

namespace ktrunk::bench {

// "10s", "500ms", "0s"; option: for the message.
[[nodiscard]] Result<std::chrono::milliseconds> duration_of(const std::string& option, const std::string& text);

// --pids and --daemon-control, and what they name.
void add_measured_options(CLI::App& command, std::string& pids, std::string& daemon_control);
[[nodiscard]] Result<std::vector<MeasuredProcess>> measured_processes(const std::string& pids,
                                                                      const std::string& daemon_control);

}  // namespace ktrunk::bench
