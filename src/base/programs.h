// Where ktrunk's own programs are, and how one is run for its verdict. The supervisor and the command line use it.
#pragma once

#include <string>

#include "base/result.h"

namespace ktrunk {

// The programs that ktrunkd is made of, as paths.
struct Programs {
  std::string handshake;
  std::string worker;
};

// Beside the running program, where they were built; else where they were installed.
[[nodiscard]] Programs find_programs();

// Runs `program --check FILE` with our standard streams and waits for it. An error: it could not be run, or found the
// configuration wanting, which it has said on standard error.
[[nodiscard]] Status run_check(const std::string& program, const std::string& file);

}  // namespace ktrunk
