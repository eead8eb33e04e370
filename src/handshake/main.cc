// ktrunkd-handshake: the one process with OpenSSL and the private keys. The supervisor starts it with its channel as
// descriptor 3. By hand it only checks what no other process can: that certificates, keys and ciphers of a
// configuration work (`ktrunkd-handshake --check FILE`).
#include <sys/resource.h>

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

// A relay takes two descriptors.
void raise_descriptor_limit() {
  rlimit files = {};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur == files.rlim_max) return;
  files.rlim_cur = files.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &files);
}

Status serve() {
  auto child = ipc::Child::start(ipc::Role::kHandshake, handshake::Process::accept_list());
  if (!child) return std::unexpected(child.error());
  raise_descriptor_limit();
  auto setup = child->wait_for_setup();
  if (!setup) return std::unexpected(setup.error());
  log::init("handshake", setup->config.log_format, setup->config.log_level);
  auto process = handshake::Process::create(std::move(*child).release_channel(), std::move(*setup));
  if (!process) return std::unexpected(process.error());
  return (*process)->run();
}

int report(const Result<handshake::TlsContext>& context) {
  if (!context) {
    std::fprintf(stderr, "error: %s\n", context.error().what.c_str());
    return 1;
  }
  for (const std::string& warning : context->warnings()) std::fprintf(stderr, "warning: %s\n", warning.c_str());
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
  for (const config::Listener& listener : config->listeners) {
    if (listener.transport == config::Transport::kTls) errors += report(handshake::TlsContext::for_listener(listener));
  }
  for (const config::Trunk& trunk : config->trunks) {
    bool tls = false;
    for (const config::Target& target : trunk.targets) tls = tls || target.transport == config::Transport::kTls;
    if (tls) errors += report(handshake::TlsContext::for_trunk(trunk));
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
