// Subprocess: a fork of the measuring program that does one part of a measurement, so that its CPU time, its memory and
// its death are its own.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <utility>

#include "base/result.h"

namespace ktrunk::bench {

// Dies with its owner (SIGKILL), and with the program.
class Subprocess {
 public:
  Subprocess() = default;
  // body runs in the child and gives its exit status. Call it while this program has one thread.
  [[nodiscard]] static Result<Subprocess> start(const std::function<int()>& body);
  Subprocess(Subprocess&& other) noexcept : pid_(std::exchange(other.pid_, 0)) {}
  Subprocess& operator=(Subprocess&& other) noexcept;
  ~Subprocess() { end(); }

  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] bool running();
  // SIGKILL, and reaps it.
  void end();
  // Waits for its end; its exit status, or 128 and the signal.
  [[nodiscard]] int wait();

 private:
  explicit Subprocess(pid_t pid) : pid_(pid) {}
  pid_t pid_ = 0;
};

}  // namespace ktrunk::bench
