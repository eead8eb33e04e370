// Process: one child program of a test. It, and every process that it starts and leaves in its process group, is gone
// when the owner is: also when the test fails or dies.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace ktrunk::test {

using std::chrono::milliseconds;

// A folder that goes, with all in it, when its owner does.
class TempFolder {
 public:
  TempFolder();  // throws std::runtime_error
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::string file(const std::string& name) const { return (path_ / name).string(); }
  // Writes a file of that name and gives its path.
  std::string write(const std::string& name, std::string_view text) const;

 private:
  std::filesystem::path path_;
};

// How a process ended.
struct Exit {
  int code = -1;   // of exit(); -1 when a signal ended it
  int signal = 0;  // 0 when it exited
};
[[nodiscard]] std::string exit_text(const Exit& exit);

class Process {
 public:
  struct Options {
    std::vector<std::string> argv;           // argv[0] is looked up in PATH unless it has a slash
    std::map<std::string, std::string> env;  // besides what the test itself has
    std::filesystem::path output;            // standard output and standard error, appended
  };
  // The error names the program and errno when it cannot be executed.
  [[nodiscard]] static Result<Process> start(const Options& options);

  Process(Process&&) noexcept;
  Process& operator=(Process&&) noexcept;
  ~Process();  // SIGKILL to the whole group, then reaps the child

  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] bool running();
  Status signal(int number) const;
  // How it ended, at once if it has already; nothing if it still runs after the timeout.
  [[nodiscard]] std::optional<Exit> wait(milliseconds timeout);
  // Who else of its process group lives (zombies do not count): its children and theirs, unless they left the group.
  [[nodiscard]] std::vector<pid_t> others_in_group() const;
  // What it has written so far.
  [[nodiscard]] std::string output() const;

 private:
  Process(pid_t pid, Fd pidfd, std::filesystem::path output);
  void end();

  pid_t pid_ = -1;
  Fd pidfd_;
  std::filesystem::path output_;
  std::optional<Exit> exit_;
};

// Calls until it returns true or the timeout has passed; gives the last answer. For conditions with nothing to wait on.
template <typename Condition>
[[nodiscard]] bool eventually(Condition condition, milliseconds timeout = milliseconds(10'000));

void pause_briefly();  // 10 ms, between two looks

template <typename Condition>
bool eventually(Condition condition, milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    pause_briefly();
  }
  return true;
}

}  // namespace ktrunk::test
