#include "system/crash_point_fixture.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sstream>

namespace ktrunk::test {

void CrashPointTest::SetUp() {
  const int file = ::open(file_name_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  ASSERT_GE(file, 0);
  ASSERT_EQ(::fchmod(file, 0666), 0);
  ASSERT_EQ(::ftruncate(file, sizeof(ipc::CrashFile)), 0);
  file_ = static_cast<ipc::CrashFile*>(
      ::mmap(nullptr, sizeof(ipc::CrashFile), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
  ::close(file);
  ASSERT_NE(static_cast<void*>(file_), MAP_FAILED);
}

void CrashPointTest::TearDown() {
  DaemonTest::TearDown();
  ::munmap(file_, sizeof(ipc::CrashFile));
  say_places();
}

void CrashPointTest::arm(const std::string& child, unsigned point) {
  victim_name_ = child;
  victim_pid_ = daemon_->pid_of(child);
  died_ = false;
  file_->order.reached = 0;
  file_->order.points = point;
  file_->order.process = victim_pid_;
}

void CrashPointTest::disarm() {
  file_->order.process = 0;
  kill_at_point();
  file_->order.reached = 0;
}

bool CrashPointTest::kill_at_point() {
  if (!died_ && file_->order.reached != 0) {
    died_ = true;
    places_["ktrunkd-" + victim_name_.substr(0, victim_name_.find('/'))].insert(file_->place);
    EXPECT_EQ(::kill(victim_pid_, SIGKILL), 0);
  }
  return died_;
}

bool CrashPointTest::has_successor() const {
  const pid_t pid = daemon_->pid_of(victim_name_);
  return pid > 1 && pid != victim_pid_;
}

// With binutils: their lines; the store is inlined into what it is a part of.
void CrashPointTest::say_places() const {
  for (const auto& [program, addresses] : places_) {
    std::vector<std::string> arguments = {"addr2line", "-a", "-i", "-s", "-e", KTRUNK_CRASH_DIR "/" + program};
    for (const std::uint64_t address : addresses) arguments.push_back(fmt::format("{:#x}", address - 1));  // the call's
    auto process = Process::start({.argv = arguments, .output = folder_.file(program)});
    if (!process || !process->wait(kLong)) continue;
    std::istringstream text(process->output());
    std::set<std::string> lines;
    bool found = true;
    for (std::string line; std::getline(text, line);) {
      if (line.starts_with("0x")) {
        found = false;
      } else if (!found && !line.starts_with("shared.h")) {
        found = true;
        lines.insert(line.substr(0, line.find(' ')));
      }
    }
    fmt::print("{} died at {} places: {}\n", program, addresses.size(), fmt::join(lines, " "));
  }
}

}  // namespace ktrunk::test
