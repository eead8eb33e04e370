#include "supervisor/reload.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ktrunk::supervisor {

using Result = ReloadOutcome::Result;
using Step = ipc::Reload::Step;

void Reload::begin(const Processes& running, Finished finished) {
  finished_ = std::move(finished);
  ++number_;
  asked_ = running;
  answered_.reset();
  outcome_ = {.result = Result::kDone, .what = {}};
  if (asked_.none()) {
    outcome_.result = Result::kFailed;
    note("no handshake process runs now; those that are being started read the files as they are");
    return finish_when_answered();
  }
  for (std::uint8_t process = 0; process < asked_.size(); ++process) {
    if (asked_[process]) tell_(HandshakeIndex{process}, ipc::Reload{.step = Step::kPrepare, .number = number_});
  }
}

// Processes mostly agree: each line is told once.
void Reload::note(std::string_view lines) {
  while (!lines.empty()) {
    const std::size_t end = lines.find('\n');
    const std::string_view line = lines.substr(0, end);
    if (!line.empty() && std::ranges::find(outcome_.what, line) == outcome_.what.end())
      outcome_.what.emplace_back(line);
    lines.remove_prefix(end == std::string_view::npos ? lines.size() : end + 1);
  }
}

bool Reload::reloaded(HandshakeIndex process, const ipc::Reloaded& message) {
  // The answer to a reload that was given up in the meantime.
  if (message.number != number_ || !under_way()) return message.number <= number_ && message.number != 0;
  if (!asked_[process.value] || answered_[process.value]) return false;
  answered_.set(process.value);
  if (message.outcome == ipc::Reloaded::Outcome::kFailed) {
    // Why it failed is what counts, not what others had to remark.
    if (std::exchange(outcome_.result, Result::kFailed) == Result::kDone) outcome_.what.clear();
    note(message.what.view());
  } else if (outcome_.result == Result::kDone) {
    note(message.what.view());
  }
  finish_when_answered();
  return true;
}

void Reload::ended(HandshakeIndex process, std::string_view name) {
  if (!under_way() || !asked_[process.value]) return;
  asked_.reset(process.value);
  answered_.reset(process.value);
  if (std::exchange(outcome_.result, Result::kFailed) == Result::kDone) outcome_.what.clear();
  note(fmt::format("{} died while it read the files; its successor reads them as they are: reload again", name));
  finish_when_answered();
}

void Reload::expired() {
  if (!under_way()) return;
  if (std::exchange(outcome_.result, Result::kFailed) == Result::kDone) outcome_.what.clear();
  for (std::size_t process = 0; process < asked_.size(); ++process) {
    if (asked_[process] && !answered_[process])
      note(fmt::format("handshake/{} has not read the files in time: is the disk slow?", process));
  }
  answered_ = asked_;
  finish_when_answered();
}

void Reload::finish_when_answered() {
  if (answered_ != asked_) return;
  const Step step = outcome_.result == Result::kDone ? Step::kCommit : Step::kDiscard;
  for (std::uint8_t process = 0; process < asked_.size(); ++process) {
    if (asked_[process]) tell_(HandshakeIndex{process}, ipc::Reload{.step = step, .number = number_});
  }
  // The caller may begin the next one from here.
  std::exchange(finished_, nullptr)(std::exchange(outcome_, {}));
}

}  // namespace ktrunk::supervisor
