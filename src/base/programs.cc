#include "base/programs.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

namespace ktrunk {

Programs find_programs() {
  std::error_code ignored;
  const auto beside = std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path();
  const std::filesystem::path folder = std::filesystem::exists(beside / "ktrunkd-handshake", ignored)
                                           ? beside
                                           : std::filesystem::path(KTRUNK_LIBEXECDIR);
  return {.handshake = folder / "ktrunkd-handshake", .worker = folder / "ktrunkd-worker"};
}

Status run_check(const std::string& program, const std::string& file) {
  const char* const arguments[] = {program.c_str(), "--check", file.c_str(), nullptr};
  pid_t pid = -1;
  const int error =
      ::posix_spawn(&pid, program.c_str(), nullptr, nullptr, const_cast<char* const*>(arguments), ::environ);
  if (error != 0) return fail_errno(error, fmt::format("run {}", program));
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return fail_errno(errno, fmt::format("wait for {}", program));
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  return fail("{}: its certificates, keys or ciphers cannot be used; see above", file);
}

}  // namespace ktrunk
