// Image: the programs that a ktrunkd is made of, held open: what it starts again after a death is what it was started
// with, whatever is at those paths by then, and an upgrade that fails can go back to it.
#pragma once

#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "supervisor/state.h"

namespace ktrunk::supervisor {

struct Program {
  std::string path;
  Fd file;

  [[nodiscard]] static Result<Program> open(std::string path);
};

struct Image {
  Program daemon;
  Program handshake;
  Program worker;

  // Of the running program.
  [[nodiscard]] static Result<Image> of_self();

  void save(StateWriter& state) const;
  [[nodiscard]] static Image restore(StateReader& state);
};

// The path by which the running program was started; what lies there later is its next version. Symbolic links stay.
[[nodiscard]] std::string started_as();

// Becomes the program in this process: the file, or if it is a script that cannot be run so, the path. Returns only if
// the kernel refuses. Async-signal-safe. arguments: as of execv.
void execute(int file, const char* path, char* const* arguments);

}  // namespace ktrunk::supervisor
