// `ktrunk-bench designs`: its command line.
#pragma once

#include "bench/common/cli.h"

namespace ktrunk::bench {

// Adds the subcommand; when it is given, `status` becomes the exit status. status outlives the app's parsing.
void add_designs_command(CLI::App& app, int& status);

}  // namespace ktrunk::bench
