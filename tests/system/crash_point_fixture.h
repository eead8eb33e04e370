// CrashPointTest: a ktrunkd whose worker and handshake process are built with KTRUNK_CRASH_POINTS (ipc/crash_point.h):
// one child at a time stops for ever at a point that the test names, and is killed there.
#pragma once

#include <map>
#include <set>
#include <string>

#include "ipc/crash_place.h"
#include "support/scale.h"
#include "system/daemon_fixture.h"

namespace ktrunk::test {

class CrashPointTest : public DaemonTest {
 protected:
  void SetUp() override;
  // Says where in the sources processes have died.
  void TearDown() override;
  // Where time is short, every so-many-th point is tried.
  [[nodiscard]] static unsigned step() { return std::max(1U, scale() / 2); }
  [[nodiscard]] static std::string program() { return KTRUNK_CRASH_DIR "/ktrunkd"; }
  [[nodiscard]] std::map<std::string, std::string> environment() const { return {{"KTRUNK_CRASH_FILE", file_name_}}; }

  // The child of that name stops at that point, counted from now; 0: it does not.
  void arm(const std::string& child, unsigned point);
  void disarm();
  // Kills the victim if it stands at its point. True from then on.
  bool kill_at_point();
  [[nodiscard]] bool has_successor() const;

  std::string victim_name_;
  pid_t victim_pid_ = -1;
  bool died_ = false;

 private:
  void say_places() const;

  TempFolder folder_;
  const std::string file_name_ = folder_.file("order");
  ipc::CrashFile* file_ = nullptr;
  std::map<std::string, std::set<std::uint64_t>> places_;  // by program
};

}  // namespace ktrunk::test
