#include "bench/common/options.h"

#include <CLI/CLI.hpp>

#include "config/config.h"

namespace ktrunk::bench {

Result<std::chrono::milliseconds> duration_of(const std::string& option, const std::string& text) {
  if (text == "0" || text == "0s" || text == "0ms") return std::chrono::milliseconds(0);
  auto duration = config::parse_duration(text);
  if (!duration) return fail("{} {}: {}", option, text, duration.error().what);
  return *duration;
}

void add_measured_options(CLI::App& command, std::string& pids, std::string& daemon_control) {
  CLI::Option* given = command.add_option("--pids", pids, "measure the CPU time of these processes: 123,124");
  command
      .add_option("--daemon-control", daemon_control,
                  "measure the CPU time of the ktrunkd with this control socket, by process")
      ->excludes(given);
}

Result<std::vector<MeasuredProcess>> measured_processes(const std::string& pids, const std::string& daemon_control) {
  if (!daemon_control.empty()) return processes_of_daemon(daemon_control);
  if (!pids.empty()) return parse_pids(pids);
  return std::vector<MeasuredProcess>();
}

}  // namespace ktrunk::bench
