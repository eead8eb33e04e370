#include "worker/confinement.h"

#include <cap-ng.h>
#include <grp.h>
#include <pwd.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <memory>
#include <vector>

#include "ipc/child.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define KTRUNK_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define KTRUNK_SANITIZED 1
#endif
#endif
#ifndef KTRUNK_SANITIZED
#define KTRUNK_SANITIZED 0
#endif

namespace ktrunk::worker {
namespace {

Status become(const std::string& user) {
  passwd entry{};
  passwd* found = nullptr;
  std::vector<char> text(16'384);
  const int error = ::getpwnam_r(user.c_str(), &entry, text.data(), text.size(), &found);
  if (found == nullptr)
    return fail("key 'ktrunk.user': there is no user '{}'{}; workers run as that user when ktrunkd is root", user,
                error == 0 ? "" : ": " + errno_text(error));
  if (::setgroups(0, nullptr) != 0 || ::setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid) != 0 ||
      ::setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid) != 0)
    return fail_errno(errno, fmt::format("become user '{}' (key 'ktrunk.user')", user));
  return {};
}

// What the loop calls, and what the C and C++ libraries call for it: memory, time (where the clock is not mapped), the
// log, and the ways out.
constexpr std::array kSystemCalls = {
    SCMP_SYS(io_uring_enter),
    SCMP_SYS(read),  // the doorbell
    SCMP_SYS(write),          SCMP_SYS(writev),
    SCMP_SYS(recvmsg),   // the channel; an error ends as a readable one
    SCMP_SYS(sendmmsg),  // tracing
    SCMP_SYS(sendmsg),        SCMP_SYS(close),           SCMP_SYS(shutdown),     SCMP_SYS(brk),
    SCMP_SYS(munmap),         SCMP_SYS(mremap),          SCMP_SYS(madvise),      SCMP_SYS(futex),  // statics' guards
    SCMP_SYS(sched_yield),    SCMP_SYS(clock_gettime),   SCMP_SYS(gettimeofday), SCMP_SYS(getpid),
    SCMP_SYS(gettid),         SCMP_SYS(restart_syscall), SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(exit),           SCMP_SYS(exit_group),
};

Status add_rules(scmp_filter_ctx filter) {
  int error = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
  const auto allow = [&](int call, const std::vector<scmp_arg_cmp>& conditions = {}) {
    if (error == 0)
      error = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call, static_cast<unsigned>(conditions.size()),
                                     conditions.empty() ? nullptr : conditions.data());
  };
  for (const int call : kSystemCalls) allow(call);
  // Memory, but none to run code from.
  const scmp_arg_cmp not_executable{.arg = 2, .op = SCMP_CMP_MASKED_EQ, .datum_a = PROT_EXEC, .datum_b = 0};
  allow(SCMP_SYS(mmap), {not_executable});
  allow(SCMP_SYS(mprotect), {not_executable});
  // What a bad record left on a socket; nothing else, and no keys (SOL_TLS).
  allow(SCMP_SYS(getsockopt), {{.arg = 1, .op = SCMP_CMP_EQ, .datum_a = SOL_SOCKET, .datum_b = 0},
                               {.arg = 2, .op = SCMP_CMP_EQ, .datum_a = SO_ERROR, .datum_b = 0}});
  // abort() signals the process itself.
  allow(SCMP_SYS(tgkill),
        {{.arg = 0, .op = SCMP_CMP_EQ, .datum_a = static_cast<scmp_datum_t>(::getpid()), .datum_b = 0}});
  if (error != 0) return fail_errno(-error, "write a system call filter");
  if (error = seccomp_load(filter); error != 0) return fail_errno(-error, "install a system call filter");
  return {};
}

}  // namespace

Status give_up_privileges(const std::string& user) {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail_errno(errno, "renounce new privileges");
  if (::geteuid() == 0) {
    if (auto status = become(user); !status) return status;
  }
  // When the user has changed, the kernel has taken the capabilities already; not if the user is root itself.
  capng_clear(CAPNG_SELECT_CAPS);
  if (capng_apply(CAPNG_SELECT_CAPS) != 0) return fail("the process's capabilities cannot be dropped");
  ipc::die_with_parent_and_stay_private();
  return {};
}

bool filters_system_calls() { return KTRUNK_SANITIZED == 0; }

Status allow_only_needed_system_calls() {
  if (!filters_system_calls()) return {};
  ::tzset();  // reads the time zone's file, which the log needs and cannot open afterwards
  const std::unique_ptr<void, decltype(&seccomp_release)> filter(seccomp_init(SCMP_ACT_KILL_PROCESS), &seccomp_release);
  if (filter == nullptr) return fail("no memory for a system call filter");
  return add_rules(filter.get());
}

}  // namespace ktrunk::worker
