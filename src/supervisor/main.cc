// ktrunkd: the daemon. It is the supervisor; its children are programs of their own (ktrunkd-handshake,
// ktrunkd-worker), so that a worker never maps what only the handshake process needs.
#include <sys/prctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/log.h"
#include "base/programs.h"
#include "ipc/layout.h"
#include "supervisor/process.h"
#include "supervisor/upgrade.h"

namespace ktrunk::supervisor {
namespace {

Status run(const std::string& name) {
  // Absolute, so that the file's relative names mean the same to every process.
  std::error_code ignored;
  const std::string path = std::filesystem::absolute(name, ignored);
  auto text = config::read_file(path);
  if (!text) return std::unexpected(text.error());
  auto config = config::parse(*text, path);
  if (!config) return std::unexpected(config.error());
  if (auto status = config::check_files(*config); !status) return status;
  const Programs programs = find_programs();
  // What only OpenSSL can tell is the handshake process's to say, before anything is opened.
  if (auto status = run_check(programs.handshake, path); !status) return status;
  log::init("supervisor", config->log_format, config->log_level);
  auto image = Image::of_self();
  if (!image) return std::unexpected(image.error());
  auto process = Process::create(std::move(*config), *text, std::move(*image), KTRUNK_VERSION);
  if (!process) return std::unexpected(process.error());
  return (*process)->run();
}

// In a rehearsal: whether this program, and those beside it, could take over what the running one has.
Status could_take_over(const TakeOver& how) {
  auto state = StateReader::open(how.state, StateReader::Purpose::kRehearsal);
  if (!state) return std::unexpected(state.error());
  const Programs programs = find_programs();
  for (const std::string& program : {programs.handshake, programs.worker}) {
    const auto layout = layout_of(program);
    if (!layout) return std::unexpected(layout.error());
    if (*layout != ipc::layout())
      return fail("{} is of another layout ({}) than ktrunkd ({})", program, *layout, ipc::layout());
  }
  auto process = Process::take_over(*state, how, KTRUNK_VERSION);
  if (!process) return std::unexpected(process.error());
  Process* taken = process->release();  // what it is made of is not ours
  return run_check(programs.handshake, taken->config_path(), taken->config_memory());
}

[[noreturn]] void rehearse(const TakeOver& how) {
  const Status could = could_take_over(how);
  const std::string said = could ? "ready" : could.error().what;
  (void)!::write(how.report.get(), said.data(), std::min<std::size_t>(said.size(), 4096));
  ::_exit(could ? EXIT_SUCCESS : EXIT_FAILURE);
}

Status take_over(TakeOver& how) {
  WayBack way_back(how);
  const auto fail_back = [&](const Error& error) -> Status {
    go_back(how, error.what);
    return std::unexpected(error);
  };
  auto state = StateReader::open(how.state, StateReader::Purpose::kTakeOver);
  if (!state) return fail_back(state.error());
  auto process = Process::take_over(*state, how, KTRUNK_VERSION);
  if (!process) return fail_back(process.error());
  state->keep();
  way_back.commit();
  how.state.reset();
  return (*process)->run();
}

}  // namespace
}  // namespace ktrunk::supervisor

int main(int argc, char** argv) {
  // Started by a descriptor it would be called by the descriptor's number.
  ::prctl(PR_SET_NAME, "ktrunkd");
  if (auto how = ktrunk::supervisor::TakeOver::from(argc, argv)) {
    ktrunk::log::init("supervisor", ktrunk::log::Format::kText, ktrunk::log::Level::kInfo);
    if (how->rehearsal()) ktrunk::supervisor::rehearse(*how);
    const auto status = ktrunk::supervisor::take_over(*how);
    if (!status) ktrunk::log::critical("{}", status.error().what);
    return status ? EXIT_SUCCESS : EXIT_FAILURE;
  }
  CLI::App app{"ktrunkd: SIP over TLS for trunks; the kernel encrypts and any worker sends"};
  std::string config;
  app.add_option("-c,--config", config, "configuration file (TOML)")->required();
  app.set_version_flag("--version", "ktrunkd " KTRUNK_VERSION);
  CLI11_PARSE(app, argc, argv);

  ktrunk::log::init("supervisor", ktrunk::log::Format::kText, ktrunk::log::Level::kInfo);
  if (const auto status = ktrunk::supervisor::run(config); !status) {
    ktrunk::log::critical("{}", status.error().what);
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}
