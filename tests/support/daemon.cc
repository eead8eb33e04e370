#include "support/daemon.h"

#include <signal.h>

#include "cli/control_client.h"

namespace ktrunk::test {
namespace {

bool is_ready(const nlohmann::ordered_json& status) {
  if (status.value("state", "") != "running") return false;
  const auto trunks = status.find("trunks");
  if (trunks == status.end()) return true;
  for (const auto& trunk : *trunks)
    if (trunk.value("connections", 0) < trunk.value("wanted", 0)) return false;
  return true;
}

}  // namespace

std::string built_program(const std::string& name) { return KTRUNK_BIN_DIR "/" + name; }

Daemon::Daemon(std::unique_ptr<TempFolder> folder, std::string control, std::string config_file, Process process,
               milliseconds timeout)
    : folder_(std::move(folder)),
      control_(std::move(control)),
      config_file_(std::move(config_file)),
      process_(std::move(process)),
      timeout_(timeout) {}

Result<std::unique_ptr<Daemon>> Daemon::launch(Options options) {
  auto folder = std::make_unique<TempFolder>();
  const std::string control = options.control.empty() ? folder->file("control.sock") : options.control;
  const std::string config_file = folder->write(
      "ktrunk.toml", fmt::format("[ktrunk]\nworkers = {}\nrecord_layer = \"{}\"\ncontrol = \"{}\"\n{}\n{}\n",
                                 options.workers, options.record_layer, control, options.ktrunk_lines, options.config));
  auto process = Process::start(
      {.argv = {options.program.empty() ? built_program("ktrunkd") : options.program, "--config", config_file},
       .env = std::move(options.env),
       .output = folder->file("ktrunkd.log")});
  if (!process) return std::unexpected(process.error());
  return std::unique_ptr<Daemon>(
      new Daemon(std::move(folder), control, config_file, std::move(*process), options.timeout));
}

Result<std::unique_ptr<Daemon>> Daemon::start(Options options) {
  auto daemon = launch(std::move(options));
  if (!daemon) return daemon;
  if (Status status = (*daemon)->wait_ready(); !status) return fail("ktrunkd is not ready: {}", status.error().what);
  return daemon;
}

Status Daemon::wait_ready() { return wait_status(is_ready); }

Result<nlohmann::ordered_json> Daemon::status() const { return cli::ask(control_, "status"); }

pid_t Daemon::pid_of(const std::string& name) const {
  const auto answer = status();
  if (!answer || !answer->contains("processes")) return -1;
  for (const auto& process : (*answer)["processes"])
    if (process.value("name", "") == name) return process.value("pid", -1);
  return -1;
}

Status Daemon::stop() {
  if (Status status = process_.signal(SIGTERM); !status) return fail("{}\n{}", status.error().what, evidence());
  const auto exit = process_.wait(timeout_);
  if (!exit) return fail("ktrunkd does not stop at SIGTERM\n{}", evidence());
  if (exit->code != 0) return fail("ktrunkd {}\n{}", exit_text(*exit), evidence());
  if (!eventually([&] { return process_.others_in_group().empty(); }, milliseconds(2'000)))
    return fail("ktrunkd left processes behind\n{}", evidence());
  // In a build with sanitizers: what one of them found in any of the processes.
  const std::string text = log();
  if (text.find("Sanitizer:") != std::string::npos || text.find("runtime error:") != std::string::npos)
    return fail("a sanitizer complains\n{}", evidence());
  return {};
}

std::string Daemon::evidence() const { return fmt::format("log:\n{}", process_.output()); }

}  // namespace ktrunk::test
