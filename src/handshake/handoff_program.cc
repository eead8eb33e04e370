#include "handshake/handoff_program.h"

#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <optional>
#include <utility>

#include "base/event_loop.h"
#include "base/log.h"
#include "handshake/handoff_service.h"

namespace ktrunk::handshake {
namespace {

// Each request in progress is a descriptor: what the hard limit allows is taken.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

Result<Fd> catch_signals() {
  ::signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) ::sigaddset(&set, signal);
  if (::sigprocmask(SIG_BLOCK, &set, nullptr) != 0) return fail_errno(errno, "block signals");
  Fd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd.valid()) return fail_errno(errno, "signalfd");
  return fd;
}

}  // namespace

Status run_handoff_program(const std::string& socket, const config::Config& config) {
  raise_descriptor_limit();
  if (::prctl(PR_SET_DUMPABLE, 0) != 0 || ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return fail_errno(errno, "prctl");
  auto signals = catch_signals();
  if (!signals) return std::unexpected(std::move(signals.error()));
  auto loop = EventLoop::create();
  if (!loop) return std::unexpected(std::move(loop.error()));
  auto service = HandoffService::create(**loop, config, socket, {});
  if (!service) return std::unexpected(std::move(service.error()));

  std::optional<Clock::time_point> end;
  const auto on_signal = [&](Ready) {
    signalfd_siginfo signal{};
    if (::read(signals->get(), &signal, sizeof signal) != sizeof signal) return;
    if (signal.ssi_signo == SIGHUP) {
      const Status status = (*service)->reload();
      if (!status) return log::error("not reloaded: {}", status.error().what);
      return log::info("certificates, keys and CAs have been read again");
    }
    if (end) return;
    log::info("ending");
    (*service)->stop();
    end = Clock::now() + config.limits.drain;
  };
  auto watch = (*loop)->watch(signals->get(), Interest::kRead, on_signal);
  if (!watch) return std::unexpected(std::move(watch.error()));
  log::info("{}: ready for requests", socket);
  while (!end || (!(*service)->finished() && Clock::now() < *end)) {
    const auto wait = end ? std::max(*end - Clock::now(), Clock::duration{}) : Clock::duration(std::chrono::minutes(1));
    if (auto status = (*loop)->turn(wait); !status) return status;
  }
  return {};
}

}  // namespace ktrunk::handshake
