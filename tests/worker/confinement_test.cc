// A confined process, after each thing that it must not be able to do any more. Every attempt is made in a process of
// its own, for the filter kills it.
#include "worker/confinement.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <pwd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <string>

#include "base/log.h"
#include "worker/ring.h"

namespace ktrunk::worker {
namespace {

// Runs act in a child process; what it returns is the exit status.
int status_of(const std::function<int()>& act) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(act());
  int status = -1;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  return status;
}

class SystemCallFilter : public testing::Test {
 protected:
  void SetUp() override {
    if (!filters_system_calls()) GTEST_SKIP() << "a sanitizer's build installs no filter";
    const int status = status_of(
        [] { return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && allow_only_needed_system_calls() ? 0 : 1; });
    if (status != 0) GTEST_SKIP() << "filters are refused here";
  }
  static int filtered(const std::function<int()>& act) {
    return status_of([&] {
      if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || !allow_only_needed_system_calls()) return 100;
      return act();
    });
  }
  static void expect_killed(const char* what, const std::function<void()>& act) {
    const int status = filtered([&] {
      act();
      return 0;
    });
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) << what << ": status " << status;
  }
};

TEST_F(SystemCallFilter, KillsWhatAWorkerNeverCalls) {
  constexpr int kSolTls = 282;
  constexpr int kTlsTx = 1;
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  std::array<char, 64> octets{};
  socklen_t size = octets.size();
  expect_killed("getsockopt TLS_TX", [&] { (void)::getsockopt(ends[0], kSolTls, kTlsTx, octets.data(), &size); });
  expect_killed("getsockopt", [&] { (void)::getsockopt(ends[0], SOL_SOCKET, SO_TYPE, octets.data(), &size); });
  expect_killed("setsockopt", [&] { (void)::setsockopt(ends[0], kSolTls, kTlsTx, octets.data(), size); });
  expect_killed("openat", [] { (void)::open("/etc/passwd", O_RDONLY | O_CLOEXEC); });
  expect_killed("open", [] { (void)::syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", nullptr, 0); });
  expect_killed("socket", [] { (void)::socket(AF_INET, SOCK_STREAM, 0); });
  expect_killed("connect", [&] { (void)::connect(ends[0], nullptr, 0); });
  expect_killed("bind", [&] { (void)::bind(ends[0], nullptr, 0); });
  expect_killed("accept4", [&] { (void)::accept4(ends[0], nullptr, nullptr, 0); });
  expect_killed("execve", [] { (void)::execl("/bin/true", "true", nullptr); });
  expect_killed("fork", [] { (void)::fork(); });
  expect_killed("ptrace", [] { (void)::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr); });
  expect_killed("process_vm_readv", [] {
    iovec none{};
    (void)::process_vm_readv(::getpid(), &none, 1, &none, 1, 0);
  });
  expect_killed("pidfd_open", [] { (void)::syscall(SYS_pidfd_open, 1, 0); });
  expect_killed("kill", [] { (void)::kill(::getpid(), 0); });
  expect_killed("prctl", [] { (void)::prctl(PR_SET_DUMPABLE, 1); });
  expect_killed("io_uring_setup", [] { (void)::syscall(SYS_io_uring_setup, 1, nullptr); });
  expect_killed("io_uring_register", [] { (void)::syscall(SYS_io_uring_register, 0, 0, nullptr, 0); });
  expect_killed("bpf", [] { (void)::syscall(SYS_bpf, 0, nullptr, 0); });
  expect_killed("executable memory",
                [] { (void)::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); });
  expect_killed("memory made executable", [&] {
    void* page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)::mprotect(page, 4096, PROT_READ | PROT_EXEC);
  });
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_F(SystemCallFilter, LetsAWorkerLive) {
  log::init("confined", log::Format::kJson, log::Level::kInfo);
  const int status = filtered([] {
    // Memory that comes and goes, the log with its local time, exceptions.
    for (std::size_t bytes = 1; bytes < 8u << 20; bytes *= 3) std::vector<char>(bytes, 'x').shrink_to_fit();
    log::info("a line from behind the filter");
    try {
      throw std::string("thrown");
    } catch (const std::string&) {
    }
    return 0;
  });
  EXPECT_EQ(status, 0);
  const int aborted = filtered([] {
    std::abort();
    return 0;
  });
  EXPECT_TRUE(WIFSIGNALED(aborted) && WTERMSIG(aborted) == SIGABRT) << aborted;
}

int complete_one(Ring& ring) {
  int got = 1;
  if (!ring.submit_and_wait()) return 1;
  ring.for_each_completion([&](Operation, int result, unsigned, std::uint32_t) { got = result; });
  return got;
}

TEST(RestrictedRing, TakesTheWorkersOperationsOnly) {
  auto ring = Ring::create(8, Ring::State::kDisabled);
  ASSERT_TRUE(ring) << ring.error().what;
  ASSERT_TRUE((*ring)->add_buffers(1, 8, 4096));
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const auto status = (*ring)->enable(kRingOperations);
  ASSERT_TRUE(status) << status.error().what;
  const auto run = [&](const std::function<void(io_uring_sqe*)>& prepare) {
    prepare((*ring)->prepare({OperationKind::kCancel}));
    return complete_one(**ring);
  };
  sockaddr_in address{};
  std::array<char, 16> octets{};
  EXPECT_EQ(run([&](io_uring_sqe* s) { io_uring_prep_openat(s, AT_FDCWD, "/etc/passwd", O_RDONLY, 0); }), -EACCES);
  EXPECT_EQ(run([&](io_uring_sqe* s) { io_uring_prep_connect(s, ends[0], nullptr, 0); }), -EACCES);
  EXPECT_EQ(run([&](io_uring_sqe* s) { io_uring_prep_accept(s, ends[0], nullptr, nullptr, 0); }), -EACCES);
  EXPECT_EQ(run([&](io_uring_sqe* s) { io_uring_prep_socket(s, AF_INET, SOCK_STREAM, 0, 0); }), -EACCES);
  EXPECT_EQ(run([&](io_uring_sqe* s) { io_uring_prep_read(s, ends[0], octets.data(), 1, 0); }), -EACCES);
  EXPECT_EQ(run([&](io_uring_sqe* s) { io_uring_prep_splice(s, ends[0], -1, ends[1], -1, 1, 0); }), -EACCES);
  EXPECT_EQ(run([&](io_uring_sqe* s) { io_uring_prep_close(s, ends[0]); }), -EACCES);
  EXPECT_EQ(run([&](io_uring_sqe* s) { io_uring_prep_unlinkat(s, AT_FDCWD, "x", 0); }), -EACCES);
  // Socket options by a command (6.7 and later), and whatever else is numbered.
  EXPECT_EQ(run([&](io_uring_sqe* s) { io_uring_prep_rw(IORING_OP_URING_CMD, s, ends[0], nullptr, 0, 0); }), -EACCES);
  for (int operation = 0; operation < 64; ++operation) {
    if (std::ranges::find(kRingOperations, static_cast<io_uring_op>(operation)) != kRingOperations.end()) continue;
    const int got = run([&](io_uring_sqe* s) { io_uring_prep_rw(operation, s, -1, &address, 0, 0); });
    EXPECT_TRUE(got == -EACCES || got == -EINVAL) << operation << ": " << got;
  }
  EXPECT_EQ(run([&](io_uring_sqe* s) {
              io_uring_prep_send(s, ends[0], "x", 1, 0);
              s->flags |= IOSQE_ASYNC;
            }),
            -EACCES);
  EXPECT_EQ(run([&](io_uring_sqe* s) { io_uring_prep_send(s, ends[0], "x", 1, 0); }), 1);
  // Nothing can be registered, the way back included.
  const auto fd = static_cast<unsigned>((*ring)->raw()->ring_fd);
  EXPECT_EQ(io_uring_register(fd, IORING_REGISTER_RESTRICTIONS, nullptr, 0), -EACCES);
  EXPECT_EQ(io_uring_register(fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0), -EACCES);
  EXPECT_EQ(io_uring_register(fd, IORING_REGISTER_FILES, ends, 2), -EACCES);
  ring->reset();
  ::close(ends[0]);
  ::close(ends[1]);
}

// Reads "CapEff: 0000" and its kind from /proc/self/status.
std::string status_line(const std::string& name) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(name + ":")) return line.substr(line.find_last_of(" \t") + 1);
  }
  return "";
}

TEST(Privileges, RootBecomesTheUser) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can become another user";
  const passwd* nobody = ::getpwnam("nobody");
  ASSERT_NE(nobody, nullptr);
  const uid_t uid = nobody->pw_uid;
  const gid_t gid = nobody->pw_gid;
  const int status = status_of([&] {
    if (!give_up_privileges("nobody")) return 1;
    uid_t real = 0, effective = 0, saved = 0;
    if (::getresuid(&real, &effective, &saved) != 0 || real != uid || effective != uid || saved != uid) return 2;
    gid_t real_group = 0, effective_group = 0, saved_group = 0;
    if (::getresgid(&real_group, &effective_group, &saved_group) != 0 || real_group != gid || effective_group != gid ||
        saved_group != gid)
      return 3;
    if (::getgroups(0, nullptr) != 0) return 4;
    int signal = 0;
    if (::prctl(PR_GET_PDEATHSIG, &signal) != 0 || signal != SIGKILL) return 5;
    if (::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) return 6;
    if (filters_system_calls() && ::prctl(PR_GET_DUMPABLE) != 0) return 7;
    if (::setresuid(0, 0, 0) == 0) return 8;
    if (::open("/etc/shadow", O_RDONLY | O_CLOEXEC) >= 0) return 9;
    return 0;
  });
  EXPECT_EQ(status, 0) << "check " << WEXITSTATUS(status);
}

TEST(Privileges, NoCapabilitiesAreLeft) {
  // As root too, when it is to stay root.
  const int status = status_of([] {
    if (!give_up_privileges("root")) return 1;
    // /proc/self belongs to root now that the process is undumpable; root may look.
    for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapAmb"}) {
      const std::string value = status_line(set);
      if (value.find_first_not_of('0') != std::string::npos) return 2;
    }
    return 0;
  });
  EXPECT_EQ(status, 0) << "check " << WEXITSTATUS(status);
}

TEST(Privileges, UnknownUser) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can become another user";
  const int status = status_of([] {
    const auto outcome = give_up_privileges("no-such-user");
    return !outcome && outcome.error().what.find("'no-such-user'") != std::string::npos && ::geteuid() == 0 ? 0 : 1;
  });
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace ktrunk::worker
