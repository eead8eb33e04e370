#include "supervisor/state.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "ipc/layout.h"
#include "supervisor/connection_record.h"

namespace ktrunk::supervisor {
namespace {

constexpr std::string_view kHead = "ktrunk state\n";
// Of the fields and their order; to be raised with every change.
constexpr unsigned kVersion = 2;

}  // namespace

std::string state_layout() {
  return fmt::format("{}, state {}/{}+{}+{}", ipc::layout(), kVersion, sizeof(ConnectionRecord), sizeof(KeyAge),
                     sizeof(Retirement));
}

StateWriter::StateWriter() {
  octets_ = kHead;
  put(state_layout());
}

void StateWriter::put_descriptor(int fd, What what) {
  put(fd);
  if (fd >= 0) (what == What::kOurs ? ours_ : of_peers_).push_back(fd);
}

Result<Fd> StateWriter::memory() const {
  Fd memory(::memfd_create("ktrunk-state", MFD_CLOEXEC));
  if (!memory.valid()) return fail_errno(errno, "memory for the state");
  std::size_t done = 0;
  while (done < octets_.size()) {
    const ssize_t put = ::pwrite(memory.get(), octets_.data() + done, octets_.size() - done, static_cast<off_t>(done));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return fail_errno(errno, "write the state");
    done += static_cast<std::size_t>(put);
  }
  return memory;
}

Result<StateReader> StateReader::open(const Fd& memory, Purpose purpose) {
  struct stat file{};
  if (::fstat(memory.get(), &file) != 0) return fail_errno(errno, "look at the state");
  StateReader reader(purpose);
  reader.octets_.resize(static_cast<std::size_t>(file.st_size));
  std::size_t done = 0;
  while (done < reader.octets_.size()) {
    const ssize_t got =
        ::pread(memory.get(), reader.octets_.data() + done, reader.octets_.size() - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return fail_errno(got == 0 ? EIO : errno, "read the state");
    done += static_cast<std::size_t>(got);
  }
  if (reader.take(kHead.size()) != kHead) return fail("what is to be taken over is no state of ktrunkd");
  const std::string layout = reader.text();
  if (layout != state_layout())
    return fail("it is of another layout ({}) than the running one ({}): stop the old one and start the new one",
                state_layout(), layout);
  return reader;
}

std::string_view StateReader::take(std::size_t bytes) {
  if (!good_ || bytes > octets_.size() - at_) {
    good_ = false;
    return {};
  }
  const std::string_view taken = std::string_view(octets_).substr(at_, bytes);
  at_ += bytes;
  return taken;
}

std::vector<std::byte> StateReader::octets() {
  const std::string_view taken = take(get<std::size_t>());
  const auto* begin = reinterpret_cast<const std::byte*>(taken.data());
  return {begin, begin + taken.size()};
}

Fd StateReader::descriptor(StateWriter::What what) {
  const int number = get<int>();
  if (number < 0 || !good_) return {};
  if (purpose_ == Purpose::kRehearsal && what == StateWriter::What::kOfPeer) return {};
  if (::fcntl(number, F_GETFD) < 0) {
    good_ = false;
    return {};
  }
  descriptors_.push_back(number);
  return Fd(number);
}

void StateReader::keep() const {
  for (const int number : descriptors_) ::fcntl(number, F_SETFD, FD_CLOEXEC);
}

}  // namespace ktrunk::supervisor
