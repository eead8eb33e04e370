#include "bench/common/cpu_time.h"

#include <fmt/format.h>

#include <charconv>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <ranges>
#include <string_view>

#include "cli/control_client.h"

namespace ktrunk::bench {

Result<std::uint64_t> cpu_nanoseconds(pid_t pid) {
  const std::string folder = pid == 0 ? "/proc/self/task" : fmt::format("/proc/{}/task", pid);
  std::error_code error;
  std::filesystem::directory_iterator tasks(folder, error);
  if (error) return fail("process {}: {}; has it ended?", pid, error.message());
  std::uint64_t sum = 0;
  bool read = false;
  // A thread that ends while we look takes its time with it; there is nothing to be done about that.
  for (; tasks != std::filesystem::directory_iterator(); tasks.increment(error)) {
    std::ifstream file(tasks->path() / "schedstat");
    std::uint64_t ns = 0;
    if (!(file >> ns)) continue;
    sum += ns;
    read = true;
    if (error) break;
  }
  if (!read) return fail("process {}: {}/*/schedstat cannot be read", pid, folder);
  return sum;
}

namespace {

// The sum of some lines of a process's smaps_rollup, each with its colon.
Result<std::uint64_t> rolled_up_kib(pid_t pid, std::initializer_list<std::string_view> wanted) {
  const std::string path = pid == 0 ? "/proc/self/smaps_rollup" : fmt::format("/proc/{}/smaps_rollup", pid);
  std::ifstream file(path);
  std::string line;
  std::uint64_t sum = 0;
  std::size_t found = 0;
  while (std::getline(file, line)) {
    for (const std::string_view name : wanted) {
      if (!line.starts_with(name)) continue;
      sum += std::stoull(line.substr(name.size()));
      ++found;
    }
  }
  if (found == wanted.size()) return sum;
  return fail("{} cannot be read: be root, or the user that the process runs as", path);
}

}  // namespace

Result<std::uint64_t> pss_kib(pid_t pid) { return rolled_up_kib(pid, {"Pss:"}); }

Result<std::uint64_t> own_memory_kib(pid_t pid) { return rolled_up_kib(pid, {"Pss_Anon:", "Pss_Shmem:"}); }

Result<std::vector<MeasuredProcess>> parse_pids(const std::string& text) {
  std::vector<MeasuredProcess> processes;
  for (const auto part : std::views::split(text, ',')) {
    const std::string_view number(part.begin(), part.end());
    pid_t pid = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), pid);
    if (error != std::errc() || end != number.data() + number.size() || pid <= 0)
      return fail("--pids: '{}' is no process number; expected numbers with commas, 123,124", number);
    processes.push_back({pid, ""});
  }
  if (processes.empty()) return fail("--pids: expected numbers with commas, 123,124");
  return processes;
}

Result<std::vector<MeasuredProcess>> processes_of_daemon(const std::string& control_socket) {
  const auto status = cli::ask(control_socket, "status");
  if (!status) return std::unexpected(status.error());
  std::vector<MeasuredProcess> processes;
  try {
    processes.push_back({status->at("pid").get<pid_t>(), "supervisor"});
    for (const auto& process : status->at("processes")) {
      const auto pid = process.at("pid").get<pid_t>();
      if (pid > 0) processes.push_back({pid, process.at("name").get<std::string>()});
    }
  } catch (const nlohmann::json::exception& error) {
    return fail("{}: not a status of ktrunkd: {}", control_socket, error.what());
  }
  return processes;
}

Status CpuMeter::start() {
  used_.clear();
  for (const MeasuredProcess& process : processes_) {
    const auto ns = cpu_nanoseconds(process.pid);
    if (!ns) return std::unexpected(ns.error());
    before_[process.pid] = *ns;
  }
  return {};
}

Status CpuMeter::stop() {
  for (const MeasuredProcess& process : processes_) {
    const auto ns = cpu_nanoseconds(process.pid);
    if (!ns) return std::unexpected(ns.error());
    // Less than before: a thread has ended.
    const std::uint64_t before = before_[process.pid];
    used_[process.pid] = *ns > before ? *ns - before : 0;
  }
  return {};
}

std::uint64_t CpuMeter::total_ns() const {
  std::uint64_t sum = 0;
  for (const auto& [pid, ns] : used_) sum += ns;
  return sum;
}

std::vector<CpuMeter::Share> CpuMeter::shares() const {
  std::vector<Share> shares;
  for (const MeasuredProcess& process : processes_) {
    const auto found = used_.find(process.pid);
    if (found != used_.end()) shares.push_back({process, found->second});
  }
  return shares;
}

}  // namespace ktrunk::bench
