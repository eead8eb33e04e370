#include "supervisor/child_process.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>

#include "ipc/child.h"
#include "ipc/worker_ring.h"

namespace ktrunk::supervisor {
namespace {

using namespace std::chrono_literals;
constexpr Clock::duration kFirstBackOff = 50ms;
constexpr Clock::duration kLongestBackOff = 5s;
// A child that has lived so long is not in a crash loop: its successor follows at once.
constexpr Clock::duration kSettled = 1s;

ipc::AcceptList accepted_from(ipc::Role role) {
  using ipc::Kind;
  if (role == ipc::Role::kHandshake)
    return {Kind::kHello,  Kind::kEstablished, Kind::kResolved, Kind::kIdle,    Kind::kSendControl,
            Kind::kResume, Kind::kFault,       Kind::kRetire,   Kind::kReloaded};
  return {Kind::kHello, Kind::kHeld, Kind::kFault, Kind::kReleased, Kind::kHandshakeOctets, Kind::kControlSent};
}

// In the child, between fork and exec: async-signal-safe calls only.
void place(int fd, int where) {
  if (fd == where) {
    ::fcntl(fd, F_SETFD, 0);
  } else {
    ::dup2(fd, where);
  }
}

[[noreturn]] void execute(const char* program, int channel, int ring) {
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  int last = ipc::kChannelDescriptor;
  // What stands in the way of the one must not be the other.
  if (ring >= 0) ring = ::fcntl(ring, F_DUPFD, ipc::kRingDescriptor + 1);
  place(channel, ipc::kChannelDescriptor);
  if (ring >= 0) place(ring, last = ipc::kRingDescriptor);
  ::close_range(static_cast<unsigned>(last) + 1, ~0U, 0);
  const char* const arguments[] = {program, nullptr};
  ::execv(program, const_cast<char* const*>(arguments));
  ::_exit(127);
}

}  // namespace

Status ChildProcess::start(Clock::time_point now, int ring) {
  restart_due_.reset();
  if (::access(program_.c_str(), X_OK) != 0) return fail_errno(errno, fmt::format("execute {}", program_));
  auto ends = ipc::Channel::pair();
  if (!ends) return std::unexpected(ends.error());
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, fmt::format("fork for {}", name_));
  if (pid == 0) execute(program_.c_str(), ends->second.get(), ring);
  pid_ = pid;
  ready_ = false;
  started_ = now;
  channel_.emplace(std::move(ends->first), accepted_from(role_));
  return {};
}

void ChildProcess::ended(Clock::time_point now, Life life) {
  if (life == Life::kFruitful || now - started_ > kSettled) {
    early_deaths_ = 0;
    back_off_ = {};
  } else if (life == Life::kKilled) {
    back_off_ = kFirstBackOff;
  } else {
    ++early_deaths_;
    back_off_ = std::clamp(back_off_ * 2, kFirstBackOff, kLongestBackOff);
  }
  restart_due_ = now + back_off_;
  pid_ = -1;
  ready_ = false;
  ++restarts_;
  channel_.reset();
}

void ChildProcess::kill() const {
  if (pid_ > 0) ::kill(pid_, SIGKILL);
}

}  // namespace ktrunk::supervisor
