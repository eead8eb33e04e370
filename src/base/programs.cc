#include "base/programs.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <vector>

namespace ktrunk {

Programs find_programs() {
  std::error_code ignored;
  const auto beside = std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path();
  const std::filesystem::path folder = std::filesystem::exists(beside / "ktrunkd-handshake", ignored)
                                           ? beside
                                           : std::filesystem::path(KTRUNK_LIBEXECDIR);
  return {.handshake = folder / "ktrunkd-handshake", .worker = folder / "ktrunkd-worker"};
}

namespace {

// Waits for the program, started with our standard streams, but its output to `output` if there is one.
Result<int> run(const std::vector<std::string>& words, int output = -1) {
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  if (output >= 0) ::posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  pid_t pid = -1;
  const int error = ::posix_spawn(&pid, words.front().c_str(), &actions, nullptr, arguments.data(), ::environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return fail_errno(error, fmt::format("run {}", words.front()));
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return fail_errno(errno, fmt::format("wait for {}", words.front()));
  }
  return status;
}

Status check(const std::string& file, const std::vector<std::string>& words) {
  const auto status = run(words);
  if (!status) return std::unexpected(status.error());
  if (WIFEXITED(*status) && WEXITSTATUS(*status) == 0) return {};
  return fail("{}: its certificates, keys or ciphers cannot be used; see above", file);
}

}  // namespace

Status run_check(const std::string& program, const std::string& file) {
  return check(file, {program, "--check", file});
}

Status run_check(const std::string& program, const std::string& file, const Fd& text) {
  // One that the program gets: not close-on-exec.
  const Fd given(::dup(text.get()));
  if (!given.valid()) return fail_errno(errno, "duplicate a descriptor");
  return check(file, {program, "--check", fmt::format("/proc/self/fd/{}", given.get()), "--as", file});
}

Result<std::string> layout_of(const std::string& program) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return fail_errno(errno, "a pipe");
  const Fd out(ends[0]);
  const Fd in(ends[1]);
  const auto status = run({program, "--layout"}, in.get());
  if (!status) return std::unexpected(status.error());
  if (!WIFEXITED(*status) || WEXITSTATUS(*status) != 0) return fail("{} does not say its layout", program);
  std::string text(4096, '\0');
  const ssize_t got = ::read(out.get(), text.data(), text.size());
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

}  // namespace ktrunk
