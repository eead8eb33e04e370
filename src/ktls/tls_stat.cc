#include "ktls/tls_stat.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>

#include "base/fd.h"

namespace ktrunk::ktls {

Result<TlsStat> TlsStat::parse(std::string_view text) {
  constexpr std::string_view kBlank = " \t";
  TlsStat stat;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(line.size() < text.size() ? line.size() + 1 : line.size());
    if (line.find_first_not_of(kBlank) == std::string_view::npos) continue;
    const std::string_view name = line.substr(0, line.find_first_of(kBlank));
    std::string_view number = line.substr(name.size());
    number.remove_prefix(std::min(number.find_first_not_of(kBlank), number.size()));
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
    if (name.empty() || error != std::errc{} || end != number.data() + number.size())
      return fail("tls_stat: '{}' is not NAME VALUE", line);
    stat.counters_.insert_or_assign(std::string(name), value);
  }
  return stat;
}

std::uint64_t TlsStat::get(std::string_view name) const {
  const auto found = counters_.find(name);
  return found == counters_.end() ? 0 : found->second;
}

Result<TlsStat> read_tls_stat(const std::string& path) {
  constexpr std::size_t kMaxBytes = 64 * 1024;
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return fail_errno(errno, path);
  std::string text;
  std::array<char, 4096> part = {};
  while (text.size() < kMaxBytes) {
    const ssize_t count = ::read(file.get(), part.data(), part.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, path);
    if (count == 0) return TlsStat::parse(text);
    text.append(part.data(), static_cast<std::size_t>(count));
  }
  return fail("{}: more than {} octets", path, kMaxBytes);
}

}  // namespace ktrunk::ktls
