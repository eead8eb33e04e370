// An upgrade up to the moment at which this program becomes the next one.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/log.h"
#include "supervisor/process.h"

namespace ktrunk::supervisor {
namespace {

using namespace std::chrono_literals;
constexpr auto kRehearsalLimit = 30s;
// Others that are being served by the control socket are let finish, for so long.
constexpr auto kDelay = 20ms;
constexpr unsigned kMostDelays = 50;

void set_close_on_exec(const std::vector<int>& descriptors, int flag) {
  for (const int fd : descriptors) ::fcntl(fd, F_SETFD, flag);
}

std::string how_it_ended(int wait_status) {
  if (WIFSIGNALED(wait_status)) return fmt::format("it was ended by signal {}", WTERMSIG(wait_status));
  if (WEXITSTATUS(wait_status) == 127) return "it cannot be executed";
  return fmt::format("it ended with exit status {} and said nothing", WEXITSTATUS(wait_status));
}

}  // namespace

void Process::begin_upgrade(std::optional<Control::Reply> reply) {
  const auto cannot = [&](const std::string& why) {
    log::warn("upgrade: {}", why);
    if (reply) (*reply)(nlohmann::json{{"upgrade", "failed"}, {"what", {why}}}.dump());
  };
  if (phase_ != Phase::kRunning) return cannot("ktrunkd is ending");
  if (reload_.under_way()) return cannot("a reload is in progress; upgrade when it is done");
  if (upgrade_.under_way) return cannot("another upgrade is in progress");
  auto candidate = Program::open(started_as_);
  if (!candidate) return cannot(candidate.error().what);
  if (reply) control_.allow(*reply, kUpgradeLimit);
  upgrade_.under_way = true;
  upgrade_.reply = reply;
  upgrade_.candidate = std::move(*candidate);
  upgrade_.delays = 0;
  log::info("upgrade: trying {}", started_as_);
  if (auto status = rehearse(); !status) refuse_upgrade(status.error().what);
}

void Process::refuse_upgrade(const std::string& why) {
  log::error("upgrade refused, nothing has changed: {}", why);
  if (upgrade_.reply) (*upgrade_.reply)(nlohmann::json{{"upgrade", "failed"}, {"what", {why}}}.dump());
  upgrade_ = {};
}

Status Process::rehearse() {
  StateWriter state;
  save(state);
  auto memory = state.memory();
  if (!memory) return std::unexpected(memory.error());
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) return fail_errno(errno, "a pipe for the rehearsal");
  Fd said(ends[0]);
  const Fd report(ends[1]);
  TakeOverArguments arguments(started_as_, memory->get(), -1, report.get(), "", config_.path);
  std::vector<int> given = state.ours();
  for (const int each : {memory->get(), report.get(), upgrade_.candidate.file.get()}) given.push_back(each);
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "fork for the rehearsal");
  if (pid == 0) {
    ::setpgid(0, 0);  // with what it starts itself
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    set_close_on_exec(given, 0);
    execute(upgrade_.candidate.file.get(), started_as_.c_str(), arguments.get());
    ::_exit(127);
  }
  ::setpgid(pid, pid);
  upgrade_.rehearsal = pid;
  upgrade_.report = std::move(said);
  upgrade_.limit = loop_->after(kRehearsalLimit, [this] {
    upgrade_.said =
        fmt::format("the new program does not say within {} s whether it can take over", kRehearsalLimit.count());
    ::kill(-upgrade_.rehearsal, SIGKILL);
  });
  return {};
}

void Process::rehearsal_ended(int wait_status) {
  ::kill(-std::exchange(upgrade_.rehearsal, -1), SIGKILL);  // what it may have left behind
  upgrade_.limit.reset();
  std::string report(4096, '\0');
  const ssize_t got = ::read(upgrade_.report.get(), report.data(), report.size());
  report.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  upgrade_.report.reset();
  if (phase_ != Phase::kRunning) return refuse_upgrade("ktrunkd is ending");
  if (!upgrade_.said.empty()) return refuse_upgrade(upgrade_.said);
  const bool done = WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0;
  if (done && report.starts_with("ready")) {
    upgrade_.next = loop_->after(0ms, [this] { hand_over(); });
  } else {
    refuse_upgrade(fmt::format("{}: {}", started_as_, report.empty() ? how_it_ended(wait_status) : report));
  }
}

void Process::hand_over() {
  if (phase_ != Phase::kRunning) return refuse_upgrade("ktrunkd is ending");
  const bool busy = control_.serves_others(upgrade_.reply) || reload_.under_way();
  if (busy && upgrade_.delays++ < kMostDelays) {
    upgrade_.next = loop_->after(kDelay, [this] { hand_over(); });
    return;
  }
  if (reload_.under_way()) return refuse_upgrade("a reload is in progress; upgrade when it is done");
  control_.dismiss();
  refuse_upgrade(become(upgrade_.candidate, {}).what);
}

// Returns only if it cannot be.
Error Process::become(const Program& program, const std::string& why_back) {
  for (ChildProcess& child : children_) {
    if (child.channel() != nullptr) (void)child.channel()->flush();
  }
  StateWriter state;
  save(state);
  auto memory = state.memory();
  if (!memory) return memory.error();
  const int former = why_back.empty() ? image_.daemon.file.get() : -1;
  TakeOverArguments arguments(program.path, memory->get(), former, -1, why_back, config_.path);
  std::vector<int> given = state.ours();
  given.insert(given.end(), state.of_peers().begin(), state.of_peers().end());
  given.push_back(memory->get());
  set_close_on_exec(given, 0);
  execute(program.file.get(), program.path.c_str(), arguments.get());
  const int code = errno;
  set_close_on_exec(given, FD_CLOEXEC);
  return {.what = fmt::format("execute {}: {}", program.path, errno_text(code)), .code = code};
}

}  // namespace ktrunk::supervisor
