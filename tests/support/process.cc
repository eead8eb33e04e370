#include "support/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

namespace ktrunk::test {
namespace {

// What the child needs, made before fork: between fork and exec nothing may allocate.
struct Prepared {
  std::vector<std::string> texts;
  std::vector<char*> argv;
  std::vector<char*> envp;
};

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

std::vector<std::string> environment(const std::map<std::string, std::string>& additions) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    if (!additions.contains(std::string(text.substr(0, text.find('='))))) result.emplace_back(text);
  }
  for (const auto& [name, value] : additions) result.push_back(name + "=" + value);
  return result;
}

// In the child: never returns. Reports errno through the pipe, which exec closes.
[[noreturn]] void run_child(char* const* argv, char* const* envp, int output, int failure, pid_t parent) {
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);  // the test died before the line above
  const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  ::dup2(null, 0);
  ::dup2(output, 1);
  ::dup2(output, 2);
  ::syscall(SYS_close_range, 3u, ~0u, 4u /* CLOSE_RANGE_CLOEXEC */);
  ::execvpe(argv[0], argv, envp);
  const int code = errno;
  [[maybe_unused]] const ssize_t written = ::write(failure, &code, sizeof code);
  ::_exit(127);
}

}  // namespace

TempFolder::TempFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "ktrunk-test-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp: " + errno_text(errno));
  path_ = name;
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string TempFolder::write(const std::string& name, std::string_view text) const {
  std::ofstream(path_ / name, std::ios::binary) << text;
  return file(name);
}

std::string exit_text(const Exit& exit) {
  if (exit.signal != 0) return fmt::format("ended by SIG{}", ::sigabbrev_np(exit.signal));
  return fmt::format("exited with {}", exit.code);
}

Process::Process(pid_t pid, Fd pidfd, std::filesystem::path output)
    : pid_(pid), pidfd_(std::move(pidfd)), output_(std::move(output)) {}

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      pidfd_(std::move(other.pidfd_)),
      output_(std::move(other.output_)),
      exit_(other.exit_) {}

Process& Process::operator=(Process&& other) noexcept {
  if (this != &other) {
    end();
    pid_ = std::exchange(other.pid_, -1);
    pidfd_ = std::move(other.pidfd_);
    output_ = std::move(other.output_);
    exit_ = other.exit_;
  }
  return *this;
}

Process::~Process() { end(); }

void Process::end() {
  if (pid_ <= 0) return;
  // Until it is reaped, below, neither its number nor its group's can be another's.
  ::kill(-pid_, SIGKILL);
  (void)wait(milliseconds(10'000));
  (void)::waitpid(pid_, nullptr, WNOHANG);
  pid_ = -1;
}

Result<Process> Process::start(const Options& options) {
  std::vector<std::string> arguments = options.argv;
  std::vector<std::string> variables = environment(options.env);
  const std::vector<char*> argv = pointers(arguments);
  const std::vector<char*> envp = pointers(variables);
  const std::string output_name = options.output.empty() ? "/dev/null" : options.output.string();
  const Fd output(::open(output_name.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!output.valid()) return fail_errno(errno, "cannot open " + output_name);
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno(errno, "pipe2");
  const Fd failure_read(ends[0]);
  Fd failure_write(ends[1]);

  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "fork");
  if (pid == 0) run_child(argv.data(), envp.data(), output.get(), failure_write.get(), parent);
  ::setpgid(pid, pid);  // both sides do it: whichever comes first
  failure_write.reset();
  Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0u)));
  Process process(pid, std::move(pidfd), options.output);
  int code = 0;
  ssize_t got = 0;
  do {
    got = ::read(failure_read.get(), &code, sizeof code);
  } while (got < 0 && errno == EINTR);
  if (got != 0) return fail_errno(code, "cannot execute " + options.argv.front());
  if (!process.pidfd_.valid()) return fail("pidfd_open failed for {}", options.argv.front());
  return process;
}

bool Process::running() { return pid_ > 0 && !wait(milliseconds(0)); }

Status Process::signal(int number) const {
  if (pid_ <= 0 || exit_) return fail("the process has ended");
  if (::kill(pid_, number) != 0) return fail_errno(errno, "kill");
  return {};
}

std::optional<Exit> Process::wait(milliseconds timeout) {
  if (exit_ || pid_ <= 0) return exit_;
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  for (;;) {  // ends with the deadline
    siginfo_t about = {};
    if (::waitid(P_PID, static_cast<id_t>(pid_), &about, WEXITED | WNOHANG | WNOWAIT) == 0 && about.si_pid == pid_) {
      exit_ = about.si_code == CLD_EXITED ? Exit{about.si_status, 0} : Exit{-1, about.si_status};
      return exit_;
    }
    const auto left = std::chrono::ceil<milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return std::nullopt;
    pollfd entry = {.fd = pidfd_.get(), .events = POLLIN, .revents = 0};
    ::poll(&entry, 1, static_cast<int>(left.count()));
  }
}

std::vector<pid_t> Process::others_in_group() const {
  std::vector<pid_t> found;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
    // "PID (NAME) STATE PPID PGRP ...", where the name may hold anything.
    std::ifstream file(entry.path() / "stat");
    std::string text;
    std::getline(file, text);
    const std::size_t name_end = text.rfind(')');
    if (name_end == std::string::npos) continue;
    std::istringstream rest(text.substr(name_end + 1));
    char state = 0;
    pid_t parent = 0;
    pid_t group = 0;
    rest >> state >> parent >> group;
    const pid_t pid = static_cast<pid_t>(std::atoi(text.c_str()));
    if (group == pid_ && pid != pid_ && state != 'Z' && state != 'X') found.push_back(pid);
  }
  return found;
}

std::string Process::output() const {
  std::ifstream file(output_, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void pause_briefly() { std::this_thread::sleep_for(milliseconds(10)); }

}  // namespace ktrunk::test
