// Conversation: another program that a test talks to by its standard input and output; and whether it is installed.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "support/process.h"
#include "support/sip_peer.h"

namespace ktrunk::test {

inline constexpr milliseconds kLong{120'000};  // for a program's whole job, on an emulated machine

// Empty when the program is in PATH, else what to install.
[[nodiscard]] std::string missing_program(const std::string& program, const std::string& package);

// A program that the test talks to. Its standard input stays open until hang_up() or the end.
class Conversation {
 public:
  // Fatal failure of the test, and null, if it cannot be started.
  [[nodiscard]] static std::unique_ptr<Conversation> start(const std::vector<std::string>& argv);

  Status say(std::string_view text);
  void hang_up() { input_.reset(); }
  // True once its output has the text; false when it ended without, or at the time limit.
  [[nodiscard]] bool heard(std::string_view text, milliseconds timeout = kLong);
  // The first message in its output that begins with this text, once it is there.
  [[nodiscard]] Result<SipMessage> message(std::string_view start, milliseconds timeout = kLong);
  // True if it ends by itself with this code.
  testing::AssertionResult ends_with(int code, milliseconds timeout = kLong);
  [[nodiscard]] std::string output() const { return process_->output(); }

 private:
  Conversation() = default;
  TempFolder folder_;
  Fd input_;  // the writing end of a FIFO
  std::optional<Process> process_;
};

}  // namespace ktrunk::test

// At the start of a test body: returns from it when the program is not installed; a failure in continuous integration.
#define KTRUNK_REQUIRE(missing_text)                                        \
  do {                                                                      \
    const std::string ktrunk_missing = (missing_text);                      \
    if (!ktrunk_missing.empty()) {                                          \
      if (std::getenv("CI") != nullptr) FAIL() << "CI: " << ktrunk_missing; \
      GTEST_SKIP() << ktrunk_missing;                                       \
    }                                                                       \
  } while (false)
