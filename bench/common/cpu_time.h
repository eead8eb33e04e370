// CPU time and memory of processes, as the kernel counts them (/proc/PID, proc(5)). Of a daemon under load, of the
// program's own children, of itself.
//
// CPU time is the first field of schedstat, in nanoseconds, of every thread that lives (io_uring's among them). In a
// machine where one guest instruction is one nanosecond (scripts/vm --icount) it is a count of instructions.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"

namespace ktrunk::bench {

// User and system time of a process's threads, in nanoseconds. 0 is this process. Error: there is no such process, or
// the kernel has no CONFIG_SCHED_INFO.
[[nodiscard]] Result<std::uint64_t> cpu_nanoseconds(pid_t pid);
// Memory of a process, each shared page by its share (PSS), in KiB. Error: not ours to look at.
[[nodiscard]] Result<std::uint64_t> pss_kib(pid_t pid);
// The same without the pages of files, of which a process has more when other users of the same library end.
[[nodiscard]] Result<std::uint64_t> own_memory_kib(pid_t pid);

// The processes whose cost is measured.
struct MeasuredProcess {
  pid_t pid = 0;
  std::string name;  // "worker/0"; "" when only the number was given
};

// Of "1,2,3"; or of a running ktrunkd, from its control socket. Errors say what was expected.
[[nodiscard]] Result<std::vector<MeasuredProcess>> parse_pids(const std::string& text);
[[nodiscard]] Result<std::vector<MeasuredProcess>> processes_of_daemon(const std::string& control_socket);

// CPU time that a set of processes uses between start() and stop().
class CpuMeter {
 public:
  explicit CpuMeter(std::vector<MeasuredProcess> processes) : processes_(std::move(processes)) {}

  [[nodiscard]] bool empty() const { return processes_.empty(); }
  [[nodiscard]] Status start();
  // Error: a process has ended meanwhile.
  [[nodiscard]] Status stop();
  [[nodiscard]] std::uint64_t total_ns() const;  // after stop()
  struct Share {
    MeasuredProcess process;
    std::uint64_t ns;
  };
  [[nodiscard]] std::vector<Share> shares() const;

 private:
  std::vector<MeasuredProcess> processes_;
  std::map<pid_t, std::uint64_t> before_;
  std::map<pid_t, std::uint64_t> used_;
};

}  // namespace ktrunk::bench
