// Interrupts: for its lifetime SIGINT and SIGTERM only ask for the end of a measurement, and SIGPIPE is ignored.
#pragma once

#include <csignal>

namespace ktrunk::bench {

// One at a time in a process.
class Interrupts {
 public:
  Interrupts();
  ~Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;
  // Since it was made.
  [[nodiscard]] static bool asked();

 private:
  struct sigaction old_int_{};
  struct sigaction old_term_{};
};

}  // namespace ktrunk::bench
