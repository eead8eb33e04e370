// Daemon: a ktrunkd of the build, whole, for tests: its configuration in a folder of its own, started, waited for,
// asked by its control socket, stopped.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "support/process.h"

namespace ktrunk::test {

// The path of a program of this build.
[[nodiscard]] std::string built_program(const std::string& name);

class Daemon {
 public:
  struct Options {
    std::string config;  // TOML without [ktrunk], which is put in front
    unsigned workers = 2;
    std::string record_layer = "auto";
    std::string ktrunk_lines;  // more lines for [ktrunk]
    std::string program = {};  // ktrunkd, with its children beside it; empty: the build's
    std::string control = {};  // the control socket's path; empty: one of its own
    std::map<std::string, std::string> env;
    milliseconds timeout{30'000};  // to be ready, and to stop
  };

  // Starts ktrunkd and waits until it is ready: its control socket answers, its state is "running" and every trunk has
  // the connections it wants. An error holds the log.
  [[nodiscard]] static Result<std::unique_ptr<Daemon>> start(Options options);
  // As start(), without waiting: for daemons that are expected not to come up.
  [[nodiscard]] static Result<std::unique_ptr<Daemon>> launch(Options options);

  [[nodiscard]] Result<nlohmann::ordered_json> status() const;
  [[nodiscard]] Status wait_ready();
  // Waits until the status fulfils the condition. The error holds the last status and the log.
  template <typename Condition>
  [[nodiscard]] Status wait_status(Condition condition);
  // SIGTERM, and success if it exits with 0 in time and leaves no process behind. The error holds the log.
  [[nodiscard]] Status stop();
  // The process of that name in the status ("worker/0", "handshake"), or -1.
  [[nodiscard]] pid_t pid_of(const std::string& name) const;

  [[nodiscard]] Process& process() { return process_; }
  [[nodiscard]] std::string log() const { return process_.output(); }
  [[nodiscard]] const std::string& control_socket() const { return control_; }
  [[nodiscard]] const std::string& config_file() const { return config_file_; }

 private:
  Daemon(std::unique_ptr<TempFolder> folder, std::string control, std::string config_file, Process process,
         milliseconds timeout);
  [[nodiscard]] std::string evidence() const;  // how it ended if it did, and the log

  std::unique_ptr<TempFolder> folder_;
  std::string control_;
  std::string config_file_;
  Process process_;
  milliseconds timeout_;
};

template <typename Condition>
Status Daemon::wait_status(Condition condition) {
  Result<nlohmann::ordered_json> last = fail("not asked yet");
  const bool met = eventually(
      [&] {
        if (!process_.running()) return true;
        last = status();
        return last && condition(*last);
      },
      timeout_);
  if (met && process_.running()) return {};
  return fail("{}\nlast status: {}\n{}", met ? "ktrunkd has ended" : "the condition was not met in time",
              last ? last->dump(2) : last.error().what, evidence());
}

}  // namespace ktrunk::test
