// main of every test program. After each test the open file descriptors must be those from before it: whatever a
// test opens, and whatever the code under test opens, has an owner that closed it.
#include <dirent.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <map>
#include <string>

namespace {

std::map<int, std::string> open_descriptors() {
  std::map<int, std::string> found;
  DIR* folder = ::opendir("/proc/self/fd");
  if (folder == nullptr) return found;
  while (const dirent* entry = ::readdir(folder)) {
    if (entry->d_name[0] == '.') continue;
    const int fd = std::atoi(entry->d_name);
    if (fd == ::dirfd(folder)) continue;
    char target[256] = "";
    const std::string link = "/proc/self/fd/" + std::string(entry->d_name);
    if (::readlink(link.c_str(), target, sizeof target - 1) > 0) found.emplace(fd, target);
  }
  ::closedir(folder);
  return found;
}

class FdLeakCheck : public testing::EmptyTestEventListener {
  void OnTestStart(const testing::TestInfo&) override { before_ = open_descriptors(); }
  void OnTestEnd(const testing::TestInfo& test) override {
    for (const auto& [fd, target] : open_descriptors()) {
      if (!before_.contains(fd)) ADD_FAILURE() << test.name() << " left descriptor " << fd << " open: " << target;
    }
  }
  std::map<int, std::string> before_;
};

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  // Tests write to peers that they, or the code under test, have just ended: they want the error, not the signal.
  ::signal(SIGPIPE, SIG_IGN);
  // End events run in reverse order: the check comes before the printer's verdict on the test.
  testing::UnitTest::GetInstance()->listeners().Append(new FdLeakCheck);
  return RUN_ALL_TESTS();
}
