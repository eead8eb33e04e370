// ktrunkd-handshake: the one process with OpenSSL and the private keys. The supervisor starts it with its channel as
// descriptor 3. By hand it only checks what no other process can: that certificates, keys and ciphers of a
// configuration work (`ktrunkd-handshake --check FILE`).
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/log.h"
#include "config/config.h"
#include "handshake/process.h"
#include "handshake/tls_context.h"

namespace {

using namespace ktrunk;

constexpr int kChannel = 3;

Status restrict_process() {
  // Without a supervisor there is nobody to hand connections to.
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) return fail_errno(errno, "prctl PR_SET_PDEATHSIG");
  // No core dump and no ptrace: private keys and traffic secrets are in here.
  if (::prctl(PR_SET_DUMPABLE, 0) != 0) return fail_errno(errno, "prctl PR_SET_DUMPABLE");
  // The supervisor decides when it is time to end, also on a Ctrl-C that reaches the whole process group.
  for (const int signal : {SIGPIPE, SIGINT, SIGTERM, SIGHUP}) {
    if (::signal(signal, SIG_IGN) == SIG_ERR) return fail_errno(errno, "signal");
  }
  // A relay takes two descriptors.
  rlimit files = {};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
    files.rlim_cur = files.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &files);
  }
  return {};
}

bool is_channel(int fd) {
  int type = 0;
  socklen_t length = sizeof type;
  return ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_SEQPACKET;
}

int serve() {
  log::init("handshake", log::Format::kText, spdlog::level::info);
  if (!is_channel(kChannel)) {
    std::fputs("ktrunkd-handshake is started by ktrunkd; by hand: ktrunkd-handshake --check FILE\n", stderr);
    return 2;
  }
  if (auto status = restrict_process(); !status) {
    log::error("{}", status.error().what);
    return EXIT_FAILURE;
  }
  (void)::fcntl(kChannel, F_SETFD, FD_CLOEXEC);
  auto process = handshake::Process::create(Fd(kChannel));
  const Status status = process ? (*process)->run() : std::unexpected(process.error());
  if (!status) log::error("{}", status.error().what);
  return status ? EXIT_SUCCESS : EXIT_FAILURE;
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
  if (argc == 1) return serve();
  if (argc == 3 && std::string_view(argv[1]) == "--check") return check(argv[2]);
  std::fputs("usage: ktrunkd-handshake --check FILE\n", stderr);
  return 2;
}
