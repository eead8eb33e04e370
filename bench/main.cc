// ktrunk-bench: what SIP over kernel TLS costs, measured: load with latencies, and what a message and a handshake cost
// at least.
#include <CLI/CLI.hpp>

#include "bench/designs/command.h"
#include "bench/floor/command.h"
#include "bench/handshakes/command.h"
#include "bench/idle/command.h"
#include "bench/load/command.h"

int main(int argc, char** argv) {
  CLI::App app("ktrunk-bench: measures SIP over TLS: load, cost of a message, of a handshake, of connections");
  app.require_subcommand(1);
  app.set_version_flag("--version", KTRUNK_VERSION);
  int status = 0;
  ktrunk::bench::add_load_command(app, status);
  ktrunk::bench::add_floor_command(app, status);
  ktrunk::bench::add_handshakes_command(app, status);
  ktrunk::bench::add_idle_command(app, status);
  ktrunk::bench::add_designs_command(app, status);
  CLI11_PARSE(app, argc, argv);
  return status;
}
