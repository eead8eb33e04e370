#include "bench/handshakes/command.h"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <cstdlib>
#include <memory>
#include <string>

#include "bench/common/options.h"
#include "bench/handshakes/handshakes.h"

namespace ktrunk::bench {
namespace {

struct Arguments {
  HandshakeOptions options;
  std::string connect;
  std::string duration = "5s";
  std::string warm_up = "500ms";
  std::string timeout = "10s";
  std::string pids;
  std::string daemon_control;
  std::string json;
  bool resume = false;
};

int run(const Arguments& given) {
  HandshakeOptions options = given.options;
  auto endpoint = Endpoint::parse(given.connect, "--connect");
  if (!endpoint) return complain(endpoint.error());
  if (endpoint->transport != config::Transport::kTls)
    return complain(Error{"--connect: handshakes are TLS: expected tls:HOST:PORT"});
  options.connect = *endpoint;
  options.resume = given.resume ? Resume::kYes : Resume::kNo;
  for (const auto& [name, text, value] : {std::tuple{"--duration", &given.duration, &options.duration},
                                          std::tuple{"--warmup", &given.warm_up, &options.warm_up},
                                          std::tuple{"--timeout", &given.timeout, &options.timeout}}) {
    const auto duration = duration_of(name, *text);
    if (!duration) return complain(duration.error());
    *value = *duration;
  }
  auto processes = measured_processes(given.pids, given.daemon_control);
  if (!processes) return complain(processes.error());
  options.measured = std::move(*processes);
  const auto result = run_handshakes(options);
  if (!result) return complain(result.error());
  if (given.json != "-") fmt::print("{}", handshakes_text(*result));
  Json document = report_head("handshakes");
  document.update(handshakes_json(options, *result));
  if (const auto written = write_json(given.json, document); !written) return complain(written.error());
  return EXIT_SUCCESS;
}

}  // namespace

void add_handshakes_command(CLI::App& app, int& status) {
  const auto given = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("handshakes", "TLS handshakes a second, and what each costs the server");
  command->footer(
      "One round is TCP connect, handshake, close_notify, and the server's end of the stream. ktrunkd admits 100 new\n"
      "handshakes a second and 64 at once from one address: raise limits.handshake_rate and\n"
      "limits.handshakes_per_address for the measurement.");
  HandshakeOptions& options = given->options;
  command->add_option("--connect", given->connect, "the server: tls:HOST:PORT")->required();
  options.tls.add_common(*command);
  options.tls.add_connecting(*command);
  command->add_flag("--resume", given->resume, "resume the session of the round before");
  command->add_option("--concurrency", options.concurrency, "rounds in progress at once")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  command->add_option("--duration", given->duration, "measured time")->capture_default_str();
  command->add_option("--warmup", given->warm_up, "time before that")->capture_default_str();
  command->add_option("--timeout", given->timeout, "for one round")->capture_default_str();
  add_measured_options(*command, given->pids, given->daemon_control);
  command->add_flag("--quiet", options.quiet, "no progress on standard error");
  command->add_option("--json", given->json, "write the result to this file; -: to standard output, without the table");
  command->callback([given, &status] { status = run(*given); });
}

}  // namespace ktrunk::bench
