// ktrunkd-handshake: the one process with OpenSSL and the private keys. The supervisor starts it with its channel as
// descriptor 3. By hand it only checks what no other process can: that certificates, keys and ciphers of a
// configuration work (`ktrunkd-handshake --check FILE`).
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "base/log.h"
#include "config/config.h"
#include "handshake/process.h"
#include "handshake/tls_context.h"
#include "ipc/child.h"

namespace {

using namespace ktrunk;

Status serve() {
  auto child = ipc::Child::start(ipc::Role::kHandshake, handshake::Process::accept_list());
  if (!child) return std::unexpected(child.error());
  auto setup = child->wait_for_setup();
  if (!setup) return std::unexpected(setup.error());
  log::init("handshake", setup->config.log_format, setup->config.log_level);
  auto process = handshake::Process::create(std::move(*child).release_channel(), std::move(*setup));
  if (!process) return std::unexpected(process.error());
  return (*process)->run();
}

// The line of the configuration that names the file which `what` is about, among those of the table `prefix`; the
// table's first file where it is about none.
unsigned line_of(const config::Config& config, std::string_view prefix, std::string_view what) {
  unsigned line = 0;
  for (const config::FileReference& reference : config.files) {
    if (!reference.key.starts_with(prefix)) continue;
    if (what.find(reference.file) != std::string_view::npos) return reference.line;
    if (line == 0) line = reference.line;
  }
  return line;
}

// Says what is wrong with the TLS side of one table; 1 when it cannot be used.
int report(const config::Config& config, const std::string& prefix, const Result<handshake::TlsContext>& context) {
  const auto say = [&](const char* kind, const std::string& what) {
    const unsigned line = line_of(config, prefix, what);
    const std::string place = line != 0 ? fmt::format("{}:{}", config.path, line) : config.path;
    fmt::print(stderr, "{}: {}: {}\n", place, kind, what);
  };
  if (!context) {
    say("error", context.error().what);
    return 1;
  }
  for (const std::string& warning : context->warnings()) say("warning", warning);
  return 0;
}

int check(const std::string& path) {
  const auto text = config::read_file(path);
  const auto config = text ? config::parse(*text, path) : Result<config::Config>(std::unexpected(text.error()));
  if (!config) {
    std::fprintf(stderr, "error: %s\n", config.error().what.c_str());
    return EXIT_FAILURE;
  }
  int errors = 0;
  for (std::size_t i = 0; i < config->listeners.size(); ++i) {
    const config::Listener& listener = config->listeners[i];
    if (listener.transport == config::Transport::kTls)
      errors += report(*config, fmt::format("listen[{}].", i), handshake::TlsContext::for_listener(listener));
  }
  for (std::size_t i = 0; i < config->trunks.size(); ++i) {
    const config::Trunk& trunk = config->trunks[i];
    const auto is_tls = [](const config::Target& target) { return target.transport == config::Transport::kTls; };
    if (std::ranges::any_of(trunk.targets, is_tls))
      errors += report(*config, fmt::format("trunk[{}].", i), handshake::TlsContext::for_trunk(trunk));
  }
  return errors == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 1) {
    log::init("handshake", log::Format::kText, spdlog::level::info);
    if (const Status status = serve(); !status) {
      log::error("{}", status.error().what);
      return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
  }
  if (argc == 3 && std::string_view(argv[1]) == "--check") return check(argv[2]);
  std::fputs("usage: ktrunkd-handshake --check FILE\n", stderr);
  return 2;
}
