// ktrunkd-handshake: the one process with OpenSSL and the private keys. The supervisor starts it with its channel as
// descriptor 3, and without arguments. By hand it checks what no other process can: that certificates, keys and ciphers
// of a configuration work (--check FILE); or it makes TLS connections for other programs (--serve SOCKET FILE).
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "base/log.h"
#include "config/config.h"
#include "handshake/contexts.h"
#include "handshake/handoff_program.h"
#include "handshake/process.h"
#include "ipc/child.h"
#include "ipc/layout.h"

namespace {

using namespace ktrunk;

Status serve_supervisor() {
  auto child = ipc::Child::start(ipc::Role::kHandshake, handshake::Process::accept_list());
  if (!child) return std::unexpected(child.error());
  auto setup = child->wait_for_setup();
  if (!setup) return std::unexpected(setup.error());
  log::init("handshake", setup->config.log_format, setup->config.log_level);
  auto process = handshake::Process::create(std::move(*child).release_channel(), std::move(*setup));
  if (!process) return std::unexpected(process.error());
  if (auto status = (*process)->announce(); !status) return status;
  return (*process)->run();
}

// as: the name that counts, where the file is not at it.
Result<config::Config> load(const std::string& name, const std::string& as = {}) {
  // Absolute, so that the file's relative names do not depend on anything.
  std::error_code ignored;
  const std::string path = std::filesystem::absolute(as.empty() ? name : as, ignored);
  const auto text = config::read_file(name);
  if (!text) return std::unexpected(text.error());
  return config::parse(*text, path);
}

int check(const std::string& path, const std::string& as) {
  const Result<config::Config> config = load(path, as);
  if (!config) {
    std::fprintf(stderr, "error: %s\n", config.error().what.c_str());
    return EXIT_FAILURE;
  }
  const auto loaded = handshake::TlsContexts::load(*config, nullptr);
  const auto say = [&](const char* kind, const handshake::TlsContexts::Problem& problem) {
    const std::string place = problem.line != 0 ? fmt::format("{}:{}", config->path, problem.line) : config->path;
    fmt::print(stderr, "{}: {}: {}\n", place, kind, problem.what);
  };
  for (const auto& error : loaded.errors) say("error", error);
  for (const auto& warning : loaded.warnings) say("warning", warning);
  return loaded.errors.empty() ? EXIT_SUCCESS : EXIT_FAILURE;
}

Status serve_programs(const std::string& socket, const std::string& path) {
  auto config = load(path);
  if (!config) return std::unexpected(config.error());
  if (auto status = config::check_files(*config); !status) return status;
  log::init("handshake", config->log_format, config->log_level);
  return handshake::run_handoff_program(socket, *config);
}

int verdict(const Status& status) {
  if (status) return EXIT_SUCCESS;
  log::error("{}", status.error().what);
  return EXIT_FAILURE;
}

}  // namespace

int main(int argc, char** argv) {
  log::init("handshake", log::Format::kText, log::Level::kInfo);
  if (argc == 1) return verdict(serve_supervisor());
  if (argc == 2 && std::string_view(argv[1]) == "--layout") {
    fmt::print("{}\n", ipc::layout());
    return EXIT_SUCCESS;
  }

  CLI::App app{"ktrunkd-handshake: TLS handshakes, and their connections into the kernel; ktrunkd starts it itself"};
  std::string file;
  CLI::Option* check_option = app.add_option("--check", file, "say whether FILE's certificates and keys work");
  check_option->type_name("FILE");
  std::string as;
  CLI::Option* as_option = app.add_option("--as", as, "read --check's FILE as if it were at this path");
  as_option->type_name("PATH")->needs(check_option);
  std::pair<std::string, std::string> service;
  CLI::Option* serve_option =
      app.add_option("--serve", service, "make TLS connections of other programs' TCP sockets, asked for on SOCKET");
  serve_option->type_name("SOCKET FILE")->excludes(check_option);
  app.require_option(1, 2);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? EXIT_SUCCESS : 2;
  }
  if (*check_option) return check(file, as);
  return verdict(serve_programs(service.first, service.second));
}
