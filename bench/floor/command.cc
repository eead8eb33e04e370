#include "bench/floor/command.h"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <cstdlib>
#include <memory>
#include <string>

#include "bench/common/options.h"
#include "bench/floor/floor.h"

namespace ktrunk::bench {
namespace {

struct Arguments {
  FloorOptions options;
  std::string duration = "10s";
  std::string warm_up = "1s";
  std::string handshake_duration = "5s";
  std::string json;
};

// For the report: the load had both ends.
LoadOptions both_ends(const FloorOptions& options) {
  LoadOptions shown = options.load;
  shown.connect.emplace();
  shown.answer.emplace();
  return shown;
}

Json floor_json(const FloorOptions& options, const FloorResult& result) {
  Json document = report_head("floor");
  if (result.forwarding) {
    document["forwarding"] = {{"how", result.how}, {"plain_tcp", result.plain_tcp}};
    document["forwarding"].update(load_json(both_ends(options), *result.forwarding));
  }
  if (result.full && result.resumed) {
    document["handshakes"] = {{"certificate", options.certificate.empty() ? options.key_type : options.certificate},
                              {"mutual", options.mutual},
                              {"full", handshakes_json(result.full->options, result.full->result)},
                              {"resumed", handshakes_json(result.resumed->options, result.resumed->result)}};
  }
  return document;
}

std::string floor_text(const FloorOptions& options, const FloorResult& result) {
  std::string text;
  if (result.forwarding)
    text += fmt::format("Forwarding: {}\n{}\n", result.how, load_text(both_ends(options), *result.forwarding));
  if (result.full && result.resumed)
    text += fmt::format("Full handshakes with OpenSSL alone\n{}\nResumed\n{}", handshakes_text(result.full->result),
                        handshakes_text(result.resumed->result));
  return text;
}

int run(const Arguments& given) {
  FloorOptions options = given.options;
  for (const auto& [name, text, value] :
       {std::tuple{"--duration", &given.duration, &options.load.duration},
        std::tuple{"--warmup", &given.warm_up, &options.load.warm_up},
        std::tuple{"--handshake-duration", &given.handshake_duration, &options.handshakes.duration}}) {
    const auto duration = duration_of(name, *text);
    if (!duration) return complain(duration.error());
    *value = *duration;
  }
  if (options.load.duration.count() == 0 && options.handshakes.duration.count() == 0)
    return complain(Error{"--duration 0s, --handshake-duration 0s: nothing is left to be measured"});
  if (options.certificate.empty() != options.key.empty()) return complain(Error{"--cert and --key go together"});
  if (!options.certificate.empty() && (options.load.tls.ca.empty() || options.load.tls.verify_name.empty()))
    return complain(Error{"--cert: give --ca and --verify-name too, by which the certificate is verified"});
  options.load.caller.shape.uri = "sip:callee@bench.invalid";
  options.handshakes.quiet = options.load.quiet;
  const auto result = run_floor(options);
  if (!result) return complain(result.error());
  if (given.json != "-") fmt::print("{}", floor_text(options, *result));
  if (const auto written = write_json(given.json, floor_json(options, *result)); !written)
    return complain(written.error());
  const bool came_through = !result->forwarding || result->forwarding->caller.answered != 0;
  return came_through ? EXIT_SUCCESS : complain(Error{"no message came through"});
}

}  // namespace

void add_floor_command(CLI::App& app, int& status) {
  const auto given = std::make_shared<Arguments>();
  CLI::App* command =
      app.add_subcommand("floor", "the least that a forwarded message and a handshake can cost on this machine");
  command->footer(
      "Messages: a process of its own copies octets between two connections with io_uring, records and batching as in\n"
      "ktrunkd, and never looks at them; this program loads it from both ends, as `load` does. Handshakes: OpenSSL\n"
      "alone, accept to close. CPU times are user and system time of those processes (schedstat).");
  LoadOptions& load = given->options.load;
  command->add_option("--message-bytes", load.caller.shape.message_bytes, "octets of a request, and of its 200")
      ->default_val(600)
      ->check(CLI::Range(0, 15'000));
  command->add_option("--connections", load.connections, "pairs of connections")
      ->default_val(1)
      ->check(CLI::Range(1, 10'000));
  command->add_option("--concurrency", load.caller.concurrency, "requests in progress, altogether")
      ->default_val(64)
      ->check(CLI::Range(1, 1 << 20));
  command->add_option("--rate", load.caller.rate, "requests begun a second, altogether, instead of --concurrency")
      ->check(CLI::PositiveNumber);
  command->add_option("--duration", given->duration, "measured time of the forwarding; 0s: none")
      ->capture_default_str();
  command->add_option("--warmup", given->warm_up, "time before that")->capture_default_str();
  command
      ->add_option("--handshake-duration", given->handshake_duration,
                   "measured time of each kind of handshake; 0s: none")
      ->capture_default_str();
  load.tls.add_common(*command);
  command->add_option("--cert", given->options.certificate, "certificate, PEM; default: one made for the run");
  command->add_option("--key", given->options.key, "its private key, PEM");
  command->add_option("--ca", load.tls.ca, "authority of --cert, PEM");
  command->add_option("--verify-name", load.tls.verify_name, "name that --cert carries");
  command->add_option("--key-type", given->options.key_type, "of the certificate made for the run")
      ->check(CLI::IsMember({"ecdsa", "rsa"}))
      ->capture_default_str();
  command->add_flag("--mutual", given->options.mutual, "handshakes with a client certificate");
  command->add_flag("--quiet", load.quiet, "no progress on standard error");
  command->add_option("--json", given->json, "write the result to this file; -: to standard output, without the table");
  command->callback([given, &status] { status = run(*given); });
}

}  // namespace ktrunk::bench
