// ktrunkd: the daemon. It is the supervisor; its children are programs of their own (ktrunkd-handshake,
// ktrunkd-worker), so that a worker never maps what only the handshake process needs.
#include <CLI/CLI.hpp>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/log.h"
#include "base/programs.h"
#include "supervisor/process.h"

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
  auto process = Process::create(std::move(*config), *text, programs, KTRUNK_VERSION);
  if (!process) return std::unexpected(process.error());
  return (*process)->run();
}

}  // namespace
}  // namespace ktrunk::supervisor

int main(int argc, char** argv) {
  CLI::App app{"ktrunkd: SIP over TLS for trunks; the kernel encrypts and any worker sends"};
  std::string config;
  app.add_option("-c,--config", config, "configuration file (TOML)")->required();
  app.set_version_flag("--version", "ktrunkd " KTRUNK_VERSION);
  CLI11_PARSE(app, argc, argv);

  ktrunk::log::init("supervisor", ktrunk::log::Format::kText, spdlog::level::info);
  if (const auto status = ktrunk::supervisor::run(config); !status) {
    ktrunk::log::critical("{}", status.error().what);
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}
