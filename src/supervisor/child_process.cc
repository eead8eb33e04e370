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
    return {Kind::kHello,  Kind::kEstablished, Kind::kResolved, Kind::kIdle,     Kind::kSendControl,
            Kind::kResume, Kind::kFault,       Kind::kRetire,   Kind::kReloaded, Kind::kUp};
  return {Kind::kHello,           Kind::kHeld,        Kind::kFault, Kind::kReleased,
          Kind::kHandshakeOctets, Kind::kControlSent, Kind::kUp,    Kind::kMoved};
}

// In the child, between fork and exec: async-signal-safe calls only.
void place(int fd, int where) {
  if (fd == where) {
    ::fcntl(fd, F_SETFD, 0);
  } else {
    ::dup2(fd, where);
  }
}

[[noreturn]] void become(const Program& program, int channel, int ring) {
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  int last = ipc::kChannelDescriptor;
  // What stands in the way of the one must not be the other.
  constexpr int kProgram = ipc::kRingDescriptor + 1;
  if (ring >= 0) ring = ::fcntl(ring, F_DUPFD, kProgram + 1);
  if (channel == ipc::kRingDescriptor || channel == kProgram) channel = ::fcntl(channel, F_DUPFD, kProgram + 1);
  if (program.file.get() != kProgram) ::dup3(program.file.get(), kProgram, O_CLOEXEC);
  place(channel, ipc::kChannelDescriptor);
  if (ring >= 0) place(ring, last = ipc::kRingDescriptor);
  if (last < ipc::kRingDescriptor) ::close(ipc::kRingDescriptor);
  ::close_range(kProgram + 1, ~0U, 0);
  const char* const arguments[] = {program.path.c_str(), nullptr};
  execute(kProgram, program.path.c_str(), const_cast<char* const*>(arguments));
  ::_exit(127);
}

}  // namespace

Status ChildProcess::start(const Program& program, Clock::time_point now, int ring) {
  restart_due_.reset();
  auto ends = ipc::Channel::pair();
  if (!ends) return std::unexpected(ends.error());
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, fmt::format("fork for {}", name_));
  if (pid == 0) become(program, ends->second.get(), ring);
  pid_ = pid;
  ready_ = up_ = leaving_ = foreign_ = condemned_ = false;
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
  ready_ = up_ = leaving_ = false;
  ++restarts_;
  channel_.reset();
}

void ChildProcess::take(ChildProcess& other, Clock::time_point now) {
  pid_ = std::exchange(other.pid_, -1);
  ready_ = std::exchange(other.ready_, false);
  up_ = std::exchange(other.up_, false);
  leaving_ = std::exchange(other.leaving_, false);
  foreign_ = other.foreign_;
  started_ = now;
  channel_ = std::exchange(other.channel_, std::nullopt);
}

void ChildProcess::save(StateWriter& state, Of of) const {
  state.put(pid_);
  state.put(of);
  for (const bool each : {ready_, up_, leaving_}) state.put(each);
  state.put(restarts_);
  state.put(early_deaths_);
  state.put(started_);
  state.put(back_off_);
  state.put_descriptor(channel_ ? channel_->descriptor() : -1);
  if (!channel_) return;
  state.put(channel_->unsent().size());
  for (const ipc::Channel::Pending& each : channel_->unsent()) {
    state.put(each.header);
    state.put(each.body);
    state.put(each.descriptor, StateWriter::What::kOfPeer);
  }
}

void ChildProcess::restore(StateReader& state, Of ours) {
  pid_ = state.get<pid_t>();
  foreign_ = state.get<Of>() != ours;
  for (bool* each : {&ready_, &up_, &leaving_}) state.get(*each);
  state.get(restarts_);
  state.get(early_deaths_);
  state.get(started_);
  state.get(back_off_);
  if (Fd channel = state.descriptor(); channel.valid()) {
    channel_.emplace(std::move(channel), accepted_from(role_));
    const auto unsent = state.get<std::size_t>();
    for (std::size_t i = 0; i < unsent && state.good(); ++i) {
      ipc::Channel::Pending pending{.header = state.get<ipc::Header>(), .body = state.octets(), .descriptor = {}};
      pending.descriptor = state.descriptor(StateWriter::What::kOfPeer);
      channel_->queue(std::move(pending));
    }
  }
  if (state.purpose() == StateReader::Purpose::kRehearsal) pid_ = -1;
}

void ChildProcess::kill() const {
  if (pid_ > 0) ::kill(pid_, SIGKILL);
}

void ChildProcess::condemn() {
  condemned_ = true;
  kill();
}

}  // namespace ktrunk::supervisor
