// Where ktrunk's own programs are, and how one is run for its verdict. The supervisor and the command line use it.
#pragma once

#include <string>

#include "base/fd.h"
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
// The same for a text that an open file holds, as if it were the contents of `file`.
[[nodiscard]] Status run_check(const std::string& program, const std::string& file, const Fd& text);

// What `program --layout` says (ipc/layout.h).
[[nodiscard]] Result<std::string> layout_of(const std::string& program);

}  // namespace ktrunk
