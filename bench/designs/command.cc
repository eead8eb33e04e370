#include "bench/designs/command.h"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "bench/common/options.h"
#include "bench/designs/designs.h"

namespace ktrunk::bench {
namespace {

struct Arguments {
  DesignsOptions options;
  std::vector<std::string> designs;
  std::string duration = "3s";
  std::string stall = "1s";
  std::string json;
};

int run(const Arguments& given) {
  DesignsOptions options = given.options;
  for (const Design design : kDesigns) {
    if (given.designs.empty() || std::ranges::find(given.designs, design_name(design)) != given.designs.end())
      options.designs.push_back(design);
  }
  for (const auto& [name, text, value] : {std::tuple{"--duration", &given.duration, &options.duration},
                                          std::tuple{"--stall", &given.stall, &options.stall}}) {
    const auto duration = duration_of(name, *text);
    if (!duration) return complain(duration.error());
    if (duration->count() == 0) return complain(Error{fmt::format("{}: 0 is too short", name)});
    *value = *duration;
  }
  const auto results = run_designs(options);
  if (!results) return complain(results.error());
  if (given.json != "-") fmt::print("{}", designs_text(options, *results));
  Json document = report_head("designs");
  document.update(designs_json(options, *results));
  if (const auto written = write_json(given.json, document); !written) return complain(written.error());
  const bool measured = std::ranges::any_of(*results, [](const DesignResult& one) { return one.failure.empty(); });
  return measured ? EXIT_SUCCESS : complain(Error{"no design could be measured"});
}

}  // namespace

void add_designs_command(CLI::App& app, int& status) {
  const auto given = std::make_shared<Arguments>();
  CLI::App* command =
      app.add_subcommand("designs", "the ways to share a TLS trunk between processes, side by side on this machine");
  command->footer(
      "own: each worker process an OpenSSL connection of its own (N x M); owner: one process has the connection, the\n"
      "others send it their messages; lock: one OpenSSL connection behind a lock, for the threads of one process;\n"
      "kernel: ktrunk's, one connection with the kernel's TLS that every worker process sends on (needs kernel TLS).\n"
      "The peer is this program, for all of them the same.");
  DesignsOptions& options = given->options;
  command->add_option("--design", given->designs, "only these: own, owner, lock, kernel; may be repeated")
      ->check(CLI::IsMember({"own", "owner", "lock", "kernel"}));
  command->add_option("--workers", options.workers, "processes (or threads) that send")
      ->capture_default_str()
      ->check(CLI::Range(1u, kMaxDesignWorkers));
  command->add_option("--message-bytes", options.message_bytes, "octets of a message")
      ->capture_default_str()
      ->check(CLI::Range(64, 16'384));
  command->add_option("--batch", options.batch, "messages that a worker has ready at once, at full pace")
      ->capture_default_str()
      ->check(CLI::Range(1, 256));
  command->add_option("--rate", options.rate, "messages a second, altogether, for latency and killed processes")
      ->capture_default_str()
      ->check(CLI::Range(1.0, 1e7));
  command->add_option("--duration", given->duration, "of the full pace and of the rate, each")->capture_default_str();
  command->add_option("--stall", given->stall, "how long the peer reads nothing")->capture_default_str();
  options.tls.add_common(*command);
  command->add_flag("--quiet", options.quiet, "no progress on standard error");
  command->add_option("--json", given->json, "write the result to this file; -: to standard output, without the table");
  command->callback([given, &status] { status = run(*given); });
}

}  // namespace ktrunk::bench
