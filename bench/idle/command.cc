#include "bench/idle/command.h"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "bench/common/options.h"
#include "bench/idle/idle.h"

namespace ktrunk::bench {
namespace {

struct Arguments {
  IdleOptions options;
  std::string connect;
  std::string set_up = "30s";
  std::string hold = "0s";
  std::string pids;
  std::string daemon_control;
  std::string json;
};

int run(const Arguments& given) {
  IdleOptions options = given.options;
  auto endpoint = Endpoint::parse(given.connect, "--connect");
  if (!endpoint) return complain(endpoint.error());
  options.connect = *endpoint;
  for (const auto& [name, text, value] :
       {std::tuple{"--set-up", &given.set_up, &options.set_up}, std::tuple{"--hold", &given.hold, &options.hold}}) {
    const auto duration = duration_of(name, *text);
    if (!duration) return complain(duration.error());
    *value = *duration;
  }
  auto processes = measured_processes(given.pids, given.daemon_control);
  if (!processes) return complain(processes.error());
  options.measured = std::move(*processes);
  const auto result = run_idle(options, [&](const IdleResult& now) -> Status {
    if (given.json != "-") fmt::print("{}", idle_text(options, now));
    std::fflush(stdout);
    Json document = report_head("idle");
    document.update(idle_json(options, now));
    return write_json(given.json, document);
  });
  if (!result) return complain(result.error());
  if (result->ended != 0)
    return complain(
        Error{fmt::format("{} connections ended while they were held: {}", result->ended, result->first_failure)});
  return result->connections == options.connections
             ? EXIT_SUCCESS
             : complain(Error{fmt::format("{} of {} connections came up: {}", result->connections, options.connections,
                                          result->first_failure)});
}

}  // namespace

void add_idle_command(CLI::App& app, int& status) {
  const auto given = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("idle", "connections that carry nothing, and the memory that they take");
  command->footer(
      "The report is written once all are up; then they are kept, so that something else can be measured beside\n"
      "them. Memory is that of the server's processes: what is theirs alone and their part of what they share,\n"
      "without the pages of files. ktrunkd admits 100 new handshakes a second from one address, and 4096 connections:\n"
      "raise limits.handshake_rate and limits.connections_per_address.");
  IdleOptions& options = given->options;
  command->add_option("--connect", given->connect, "the server: tls:HOST:PORT, tcp:HOST:PORT")->required();
  command->add_option("--connections", options.connections, "how many")
      ->capture_default_str()
      ->check(CLI::Range(1, 100'000));
  command->add_option("--set-up", given->set_up, "time for them to come up")->capture_default_str();
  command->add_option("--hold", given->hold, "how long they are kept; 0s: until interrupted")->capture_default_str();
  options.tls.add_common(*command);
  options.tls.add_connecting(*command);
  add_measured_options(*command, given->pids, given->daemon_control);
  command->add_flag("--quiet", options.quiet, "no progress on standard error");
  command->add_option("--json", given->json, "write the result to this file; -: to standard output, without the table");
  command->callback([given, &status] { status = run(*given); });
}

}  // namespace ktrunk::bench
