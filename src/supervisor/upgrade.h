// Upgrade: another version of ktrunkd in the place of the running one, in the same process, while connections go on.
//
//   rehearsal     the new program is run as a child, with the state as it is now and every descriptor but the peers':
//   it
//                 reads the configuration in force, maps all memory, asks its own children for their layout, and says
//                 whether it could take over. Nothing has happened until then; it may crash, hang or refuse.
//   take-over     the running program writes its state down and becomes the new one by exec. A new one that crashes,
//                 hangs or fails before it has taken over becomes the old one again, from the same state.
//   replacement   the new one replaces the children, one after another, each between two messages. If one does not come
//                 up, it writes its state down, and becomes the old one again, which replaces those that are new.
//
// A program is told by its arguments: PROGRAM --take-over STATE FORMER REPORT WHY --config FILE, the first three
// descriptors or -1. FORMER is what to become if it comes to nothing; REPORT is there in a rehearsal alone; WHY is
// empty, or why the program is back.
#pragma once

#include <sys/types.h>

#include <array>
#include <optional>
#include <string>

#include "base/event_loop.h"
#include "base/fd.h"
#include "supervisor/control.h"
#include "supervisor/image.h"

namespace ktrunk::supervisor {

// For all of it together, as a client of the control socket waits.
inline constexpr std::chrono::seconds kUpgradeLimit{290};

// What the arguments say.
struct TakeOver {
  Fd state;
  int former = -1;
  Fd report;
  std::string why_back;
  std::string config;  // the file's name, for ps(1)

  [[nodiscard]] bool rehearsal() const { return report.valid(); }
  [[nodiscard]] bool back() const { return !why_back.empty(); }
  // Nothing when this is an ordinary start.
  [[nodiscard]] static std::optional<TakeOver> from(int argc, char** argv);
};

// The arguments for exec; lives as long as they are used.
class TakeOverArguments {
 public:
  TakeOverArguments(const std::string& program, int state, int former, int report, const std::string& why,
                    const std::string& config);
  TakeOverArguments(const TakeOverArguments&) = delete;
  TakeOverArguments& operator=(const TakeOverArguments&) = delete;
  [[nodiscard]] char* const* get() { return pointers_.data(); }

 private:
  std::array<std::string, 8> texts_;
  std::array<char*, 9> pointers_{};
};

// From construction to commit() the program becomes its former again if it crashes or takes too long.
class WayBack {
 public:
  explicit WayBack(const TakeOver& how);
  void commit();
};

// The same, for a failure that is noticed. Returns only if it comes to nothing.
void go_back(const TakeOver& how, const std::string& why);

// What a running supervisor knows of the upgrade that is under way.
struct Upgrade {
  bool under_way = false;
  std::optional<Control::Reply> reply;
  // The rehearsal.
  Program candidate;
  pid_t rehearsal = -1;
  Fd report;
  std::string said;
  unsigned delays = 0;
  // The replacement.
  std::optional<Image> former;  // to go back to
  std::string version_before;
  std::string why_back;
  std::optional<std::size_t> replacing;
  EventLoop::Timer limit;
  EventLoop::Timer next;
};

}  // namespace ktrunk::supervisor
