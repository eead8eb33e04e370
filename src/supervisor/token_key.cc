#include "supervisor/token_key.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <span>

#include "base/fd.h"
#include "base/log.h"
#include "sip/siphash.h"

namespace ktrunk::supervisor {
namespace {

using Key = std::array<unsigned char, 32>;
static_assert(sizeof(Key) == sizeof(ipc::TokenSecret) && sizeof(Key) == 2 * sip::SipHash::kKeyBytes);

Status fill_at_random(std::span<unsigned char> bytes) {
  if (::getrandom(bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size())) return {};
  return fail_errno(errno, "random octets for the flow token key");
}

Result<Key> read_key(const Fd& file, const std::string& path) {
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) return fail_errno(errno, fmt::format("look at '{}'", path));
  if (!S_ISREG(status.st_mode) || (status.st_mode & (S_IRWXG | S_IRWXO)) != 0)
    return fail("ktrunk.token_key_file '{}': others may read it, or it is no file; expected mode 0600", path);
  Key key;
  if (status.st_size != static_cast<off_t>(key.size()) ||
      ::read(file.get(), key.data(), key.size()) != static_cast<ssize_t>(key.size()))
    return fail("ktrunk.token_key_file '{}' is not a key of {} octets; without it a new one is made", path, key.size());
  return key;
}

// Whole or not at all, whenever it may be interrupted; beside another process that does the same, one key wins.
Status make_key(const std::string& path) {
  const std::string draft = fmt::format("{}.{}", path, ::getpid());
  const Fd file(::open(draft.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR));
  if (!file.valid()) return fail_errno(errno, fmt::format("make ktrunk.token_key_file '{}'", draft));
  Key key;
  Status made = fill_at_random(key);
  if (made && (::write(file.get(), key.data(), key.size()) != static_cast<ssize_t>(key.size()) ||
               ::fsync(file.get()) != 0 || (::link(draft.c_str(), path.c_str()) != 0 && errno != EEXIST)))
    made = fail_errno(errno, fmt::format("make ktrunk.token_key_file '{}'", path));
  ::unlink(draft.c_str());
  return made;
}

std::string names_of(const config::Config& config) {
  std::string names;
  for (const config::Listener& listener : config.listeners) names += listener.name + '\n';
  names += '\n';
  for (const config::Trunk& trunk : config.trunks) names += trunk.name + '\n';
  return names;
}

Key with_names(const Key& key, const std::string& names) {
  Key out;
  for (std::size_t half = 0; half < out.size(); half += sip::SipHash::kKeyBytes) {
    const auto part = std::span(key).subspan(half).first<sip::SipHash::kKeyBytes>();
    const sip::SipHash::Value value = sip::SipHash::hash128(names, part);
    std::memcpy(out.data() + half, &value.low, sizeof value.low);
    std::memcpy(out.data() + half + sizeof value.low, &value.high, sizeof value.high);
  }
  return out;
}

}  // namespace

Result<std::optional<ipc::TokenSeed>> token_seed(const config::Config& config) {
  const std::string& path = config.token_key_file;
  if (path.empty()) return std::nullopt;
  constexpr int kHow = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  Fd file(::open(path.c_str(), kHow));
  if (!file.valid() && errno == ENOENT) {
    if (const Status made = make_key(path); !made) return std::unexpected(made.error());
    log::info("a key of flow tokens has been made: {}", path);
    file = Fd(::open(path.c_str(), kHow));
  }
  if (!file.valid()) return fail_errno(errno, fmt::format("open ktrunk.token_key_file '{}'", path));
  const auto key = read_key(file, path);
  if (!key) return std::unexpected(key.error());
  ipc::TokenSeed seed;
  seed.secret.bytes = with_names(*key, names_of(config));
  std::array<unsigned char, sizeof seed.first_generation.value> random;
  if (const Status filled = fill_at_random(random); !filled) return std::unexpected(filled.error());
  std::memcpy(&seed.first_generation.value, random.data(), random.size());
  return seed;
}

}  // namespace ktrunk::supervisor
