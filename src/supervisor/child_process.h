// ChildProcess: one child of the supervisor, as a program that is started, watched and started again with back-off.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "base/event_loop.h"
#include "base/id.h"
#include "base/result.h"
#include "ipc/channel.h"
#include "supervisor/image.h"
#include "supervisor/state.h"

namespace ktrunk::supervisor {

class ChildProcess {
 public:
  // name is for the log.
  ChildProcess(std::string name, ipc::Role role) : name_(std::move(name)), role_(role) {}

  // Starts the program with one end of a new channel as descriptor 3, `ring` as descriptor 4 unless it is negative, and
  // nothing else open but the standard streams.
  [[nodiscard]] Status start(const Program& program, Clock::time_point now, int ring = -1);

  // The process has ended: forgets it and plans when to start it again: at once, or with back-off when it may be in a
  // crash loop, which it is not if it has lived for a while, or is known to have done something, or somebody killed it.
  enum class Life : std::uint8_t { kUnknown, kFruitful, kKilled };
  void ended(Clock::time_point now, Life life = Life::kUnknown);
  // When the next start is due; nothing while it runs.
  [[nodiscard]] std::optional<Clock::time_point> restart_due() const { return restart_due_; }

  // Ends it at once; waitpid() will report it.
  void kill() const;
  // The same, because it did what it must not: its end counts as its own doing.
  void condemn();
  [[nodiscard]] bool condemned() const { return condemned_; }

  [[nodiscard]] bool running() const { return pid_ > 0; }
  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] unsigned restarts() const { return restarts_; }
  // How often in a row it died soon after it was started.
  [[nodiscard]] unsigned early_deaths() const { return early_deaths_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] ipc::Role role() const { return role_; }
  // Null while it does not run.
  [[nodiscard]] ipc::Channel* channel() { return channel_ ? &*channel_ : nullptr; }
  // It has said Hello, and has been given its setup.
  [[nodiscard]] bool ready() const { return ready_; }
  void set_ready() { ready_ = true; }
  // It has said Up.
  [[nodiscard]] bool up() const { return up_; }
  void set_up() { up_ = true; }
  // It has been told Yield: it hears nothing more of what is its successor's.
  [[nodiscard]] bool leaving() const { return leaving_; }
  void set_leaving() { leaving_ = true; }
  // Another image than ours started it.
  [[nodiscard]] bool foreign() const { return foreign_; }

  // Takes the process of another object over, which is as if it had ended then; its name stays.
  void take(ChildProcess& other, Clock::time_point now);
  // When it was started, or taken over.
  [[nodiscard]] Clock::time_point since() const { return started_; }

  // For an upgrade. of: whose program it runs; who restores it says which of the two it is itself. In a rehearsal
  // nothing is taken over that could reach the process.
  enum class Of : std::uint8_t { kOldImage, kNewImage };
  void save(StateWriter& state, Of of) const;
  void restore(StateReader& state, Of ours);

 private:
  std::string name_;
  ipc::Role role_;
  pid_t pid_ = -1;
  bool ready_ = false;
  bool up_ = false;
  bool leaving_ = false;
  bool foreign_ = false;
  bool condemned_ = false;
  std::optional<ipc::Channel> channel_;
  unsigned restarts_ = 0;
  unsigned early_deaths_ = 0;
  Clock::time_point started_{};
  Clock::duration back_off_{};
  std::optional<Clock::time_point> restart_due_;
};

}  // namespace ktrunk::supervisor
