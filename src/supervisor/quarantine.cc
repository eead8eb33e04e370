#include "supervisor/quarantine.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <vector>

#include "base/fd.h"

namespace ktrunk::supervisor {
namespace {

namespace files = std::filesystem;
constexpr std::string_view kSuffix = ".sip";

}  // namespace

Result<std::string> Quarantine::keep(std::string_view message, std::string_view who) {
  std::error_code error;
  if (files::create_directories(folder_, error)) files::permissions(folder_, files::perms::owner_all, error);
  if (error) return fail("make the folder {}: {}", folder_, error.message());
  make_room();
  // By name they are in the order of their coming.
  const auto now = std::chrono::time_point_cast<std::chrono::milliseconds>(std::chrono::system_clock::now());
  std::string path = fmt::format("{}/{:%Y%m%dT%H%M%S}Z-{:06}-{}{}", folder_,
                                 fmt::gmtime(now.time_since_epoch().count() / 1000), kept_++ % 1'000'000, who, kSuffix);
  const Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file.valid()) return fail_errno(errno, fmt::format("make the file {}", path));
  if (::write(file.get(), message.data(), message.size()) != static_cast<ssize_t>(message.size())) {
    const int code = errno;
    ::unlink(path.c_str());
    return fail_errno(code, fmt::format("write the file {}", path));
  }
  return path;
}

void Quarantine::make_room() const {
  std::error_code error;
  std::vector<files::path> kept;
  for (const auto& entry : files::directory_iterator(folder_, error)) {
    if (entry.path().extension() == kSuffix) kept.push_back(entry.path());
  }
  if (kept.size() < kMostFiles) return;
  std::ranges::sort(kept);
  kept.resize(kept.size() - kMostFiles + 1);
  for (const auto& path : kept) files::remove(path, error);
}

}  // namespace ktrunk::supervisor
