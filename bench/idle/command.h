// `ktrunk-bench idle`: its command line.
#pragma once

#include "bench/common/cli.h"

namespace ktrunk::bench {

// Adds the subcommand; when it is given, `status` becomes the exit status. status outlives the app's parsing.
void add_idle_command(CLI::App& app, int& status);

}  // namespace ktrunk::bench
