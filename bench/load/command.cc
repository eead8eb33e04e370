#include "bench/load/command.h"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "bench/common/options.h"
#include "bench/load/load.h"

namespace ktrunk::bench {
namespace {

constexpr std::size_t kMaxMessageBytes = 15'000;  // with what a proxy adds it still fits into a record
constexpr std::size_t kOpenLoopTransactions = 65'536;

// What was written on the command line.
struct Arguments {
  std::string connect;
  std::string answer;
  std::string role = "auto";
  bool calls = false;
  bool messages = false;
  std::string method = "MESSAGE";
  std::string uri = "sip:callee@bench.invalid";
  std::string pids;
  std::string daemon_control;
  std::string json;
  std::string timeout = "5s";
  std::string set_up = "30s";
  std::string warm_up = "1s";
  std::string duration = "10s";
  LoadOptions options;
};

Result<LoadOptions> options_of(const Arguments& given) {
  LoadOptions options = given.options;
  if (given.calls && given.messages) return fail("--calls and --messages exclude each other");
  const bool caller = given.role != "callee" && !given.connect.empty();
  const bool callee = given.role != "caller" && !given.answer.empty();
  if ((given.role == "caller" || given.role == "both") && !caller) return fail("--role {}: give --connect", given.role);
  if ((given.role == "callee" || given.role == "both") && !callee) return fail("--role {}: give --answer", given.role);
  if (!caller && !callee) return fail("nothing to do: give --connect, --answer, or both");
  if (caller) {
    auto endpoint = Endpoint::parse(given.connect, "--connect");
    if (!endpoint) return std::unexpected(endpoint.error());
    options.connect = *endpoint;
  }
  if (callee) {
    auto endpoint = Endpoint::parse(given.answer, "--answer");
    if (!endpoint) return std::unexpected(endpoint.error());
    options.answer = *endpoint;
  }
  options.caller.workload = given.calls ? Workload::kCalls : Workload::kMessages;
  options.caller.method = given.method == "OPTIONS" ? Method::kOptions : Method::kMessage;
  options.caller.shape.uri = given.uri;
  if (options.caller.rate > 0 && options.caller.concurrency == 0)
    options.caller.concurrency =
        std::clamp<std::size_t>(static_cast<std::size_t>(options.caller.rate * 10), 1024, kOpenLoopTransactions);
  if (options.caller.concurrency == 0) options.caller.concurrency = 64;
  if (options.stalled != 0 && (!caller || options.caller.rate <= 0))
    return fail("--stalled compares latencies at a rate: give --connect and --rate");
  for (const auto& [name, text, value] : {std::tuple{"--timeout", &given.timeout, &options.caller.timeout},
                                          std::tuple{"--set-up", &given.set_up, &options.set_up},
                                          std::tuple{"--warmup", &given.warm_up, &options.warm_up},
                                          std::tuple{"--duration", &given.duration, &options.duration}}) {
    const auto duration = duration_of(name, *text);
    if (!duration) return std::unexpected(duration.error());
    *value = *duration;
  }
  auto processes = measured_processes(given.pids, given.daemon_control);
  if (!processes) return std::unexpected(processes.error());
  options.measured = std::move(*processes);
  return options;
}

// Two runs, without stalled peers and with them.
int run_comparison(const Arguments& given, const LoadOptions& options) {
  const auto both = compare_stall(options);
  if (!both) return complain(both.error());
  LoadOptions alone = options;
  alone.stalled = 0;
  const double ratio = both->p99_ratio();
  if (given.json != "-") {
    fmt::print("Without stalled peers\n{}\nWith stalled peers\n{}\n", load_text(alone, both->without),
               load_text(options, both->with));
    fmt::print("{:<18} {:.2f} times that without them\n", "p99 with them", ratio);
  }
  Json document = report_head("load");
  document.update(load_json(alone, both->without));
  document["with_stalled"] = load_json(options, both->with);
  document["p99_ratio"] = ratio;
  if (const auto written = write_json(given.json, document); !written) return complain(written.error());
  return ratio > 0 ? EXIT_SUCCESS : complain(Error{"no request was answered in one of the runs"});
}

int run(const Arguments& given) {
  const auto options = options_of(given);
  if (!options) return complain(options.error());
  if (options->stalled != 0) return run_comparison(given, *options);
  const auto result = run_load(*options);
  if (!result) return complain(result.error());
  if (given.json != "-") fmt::print("{}", load_text(*options, *result));
  Json document = report_head("load");
  document.update(load_json(*options, *result));
  if (const auto written = write_json(given.json, document); !written) return complain(written.error());
  if (options->connect && result->caller.answered == 0)
    return complain(Error{
        fmt::format("no request was answered: {}", result->troubles.empty() ? "all timed out" : result->troubles)});
  return EXIT_SUCCESS;
}

}  // namespace

void add_load_command(CLI::App& app, int& status) {
  const auto given = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("load", "SIP load over TLS or TCP, from both ends of a proxy, with latencies");
  command->footer(
      "Roles: the caller begins requests on connections that it makes; the callee answers those that reach it. Both "
      "in\n"
      "one process (give --connect and --answer), or in two, so that each can have its processors.\n"
      "Durations are numbers with a unit: 500ms, 10s, 2m. Latency counts from when a request was due.\n"
      "Exit status: 0 measured; 1 no connection came up or nothing was answered; 2 and more wrong use.\n\n"
      "  ktrunk-bench load --connect tls:127.0.0.1:5061 --ca ca.pem --cert carrier.pem --key carrier.key \\\n"
      "    --answer tls:127.0.0.1:5071 --answer-cert pbx.pem --answer-key pbx.key --concurrency 64 --duration 10s");
  LoadOptions& options = given->options;
  command->add_option("--connect", given->connect, "where the caller connects: tls:HOST:PORT, tcp:HOST:PORT");
  command->add_option("--answer", given->answer, "where the callee listens: tls:IP:PORT, tcp:IP:PORT");
  command->add_option("--role", given->role, "caller, callee, both; default: by --connect and --answer")
      ->check(CLI::IsMember({"auto", "caller", "callee", "both"}));
  command->add_flag("--calls", given->calls, "calls: INVITE 100/180/200 ACK, BYE 200 at once");
  command->add_flag("--messages", given->messages, "a flood of requests, each answered with 200 (the default)");
  command->add_option("--method", given->method, "of the flood: MESSAGE or OPTIONS")
      ->check(CLI::IsMember({"MESSAGE", "OPTIONS"}))
      ->capture_default_str();
  command->add_option("--uri", given->uri, "Request-URI")->capture_default_str();
  command->add_option("--message-bytes", options.caller.shape.message_bytes, "octets of a request, and of its 200")
      ->default_val(600)
      ->check(CLI::Range(std::size_t{0}, kMaxMessageBytes));
  command->add_option("--connections", options.connections, "connections of the caller")
      ->default_val(1)
      ->check(CLI::Range(1, 100'000));
  command->add_option("--open-rate", options.open_rate, "connections begun a second; 0: no limit")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--rate", options.caller.rate, "open loop: calls or requests begun a second, altogether")
      ->check(CLI::PositiveNumber);
  options.caller.concurrency = 0;
  command
      ->add_option("--concurrency", options.caller.concurrency,
                   "closed loop: calls or requests in progress, altogether (64); with --rate: the most that may be")
      ->check(CLI::Range(std::size_t{1}, std::size_t{1} << 24));
  command->add_option("--duration", given->duration, "measured time; 0s: until interrupted")->capture_default_str();
  command->add_option("--warmup", given->warm_up, "time before that, not measured")->capture_default_str();
  command->add_option("--timeout", given->timeout, "for a final response")->capture_default_str();
  command->add_option("--set-up", given->set_up, "time for the connections to come up")->capture_default_str();
  command
      ->add_option("--stalled", options.stalled,
                   "measure twice: as it is, and with so many more connections that send and read nothing")
      ->check(CLI::Range(1, 1000));
  command->add_option("--stalled-rate", options.stalled_rate, "requests a second of each of these")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_flag("--on-demand", options.on_demand,
                    "the proxy connects to the answering side by need only: begin without that connection");
  options.tls.add_common(*command);
  options.tls.add_connecting(*command);
  options.tls.add_answering(*command);
  add_measured_options(*command, given->pids, given->daemon_control);
  command->add_flag("--quiet", options.quiet, "no progress on standard error");
  command->add_option("--json", given->json, "write the result to this file; -: to standard output, without the table");
  command->callback([given, &status] { status = run(*given); });
}

}  // namespace ktrunk::bench
