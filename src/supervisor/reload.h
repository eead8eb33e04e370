// Reload: certificates, keys, CAs and CRLs read again by every handshake process, in two phases, so that all of them
// change over or none does. Each process that runs is told to prepare; when all of them could, they commit, and else
// discard: then the files as they were read before stay in force.
//
// A process that is started again later reads the files as they are then, whatever came of the reload: one that dies
// during a reload makes it fail, and its successor may have the new files while the others keep the old ones, which the
// outcome says.
//
// Runs in the supervisor; makes no system call. Its caller keeps the time.
#pragma once

#include <bitset>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/id.h"
#include "ipc/limits.h"
#include "ipc/messages.h"

namespace ktrunk::supervisor {

struct ReloadOutcome {
  enum class Result : std::uint8_t { kDone, kFailed } result = Result::kFailed;
  std::vector<std::string> what;  // done: warnings; failed: why; each line once
};

class Reload {
 public:
  using Processes = std::bitset<ipc::kMaxHandshakeProcesses>;
  using Tell = std::function<void(HandshakeIndex, const ipc::Reload&)>;
  using Finished = std::function<void(const ReloadOutcome&)>;

  explicit Reload(Tell tell) : tell_(std::move(tell)) {}

  [[nodiscard]] bool under_way() const { return finished_ != nullptr; }
  // Precondition: none is under way. `finished` is called once: here, when no process runs, or from a call below.
  void begin(const Processes& running, Finished finished);

  // A process has answered. False: it was not asked.
  [[nodiscard]] bool reloaded(HandshakeIndex process, const ipc::Reloaded& message);
  // A process has died; name is for the outcome.
  void ended(HandshakeIndex process, std::string_view name);
  // It has taken too long.
  void expired();

 private:
  void note(std::string_view lines);
  void finish_when_answered();

  Tell tell_;
  Finished finished_;
  std::uint32_t number_ = 0;
  Processes asked_;     // and alive
  Processes answered_;  // of those
  ReloadOutcome outcome_;
};

}  // namespace ktrunk::supervisor
