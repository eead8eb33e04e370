#include <fmt/format.h>

#include "bench/designs/designs.h"
#include "cli/table.h"

namespace ktrunk::bench {
namespace {

std::string kill_text(const KillResult& kill) {
  const double share = kill.messages_per_s_before > 0 ? kill.messages_per_s_after / kill.messages_per_s_before : 0;
  return fmt::format("{} killed: {} of {} connections left, {:.0f} % of the messages{}", kill.victim,
                     kill.connections_after, kill.connections_before, 100 * share,
                     kill.broken == 0 ? "" : fmt::format(", {} streams broken", kill.broken));
}

}  // namespace

Json designs_json(const DesignsOptions& options, const std::vector<DesignResult>& results) {
  Json designs = Json::array();
  for (const DesignResult& result : results) {
    Json one = {{"design", design_name(result.design)}, {"what", design_text(result.design)}};
    if (!result.failure.empty()) {
      one["not_measured"] = result.failure;
      designs.push_back(std::move(one));
      continue;
    }
    Json kills = Json::array();
    for (const KillResult& kill : result.kills)
      kills.push_back({{"victim", kill.victim},
                       {"connections_before", kill.connections_before},
                       {"connections_after", kill.connections_after},
                       {"messages_per_s_before", kill.messages_per_s_before},
                       {"messages_per_s_after", kill.messages_per_s_after},
                       {"broken_streams", kill.broken}});
    one.update(Json{{"records", result.records},
                    {"processes", result.processes},
                    {"connections", result.connections},
                    {"messages_per_s", result.messages_per_s},
                    {"cpu_ns_per_message", result.cpu_ns_per_message},
                    {"pss_kib", result.pss_kib},
                    {"latency_us", latency_json(result.latency)},
                    {"stalled_peer",
                     {{"longest_standstill_ms", result.stall_longest_still_ms}, {"recovered", result.stall_recovered}}},
                    {"kills", std::move(kills)}});
    designs.push_back(std::move(one));
  }
  return {{"options",
           {{"workers", options.workers},
            {"message_bytes", options.message_bytes},
            {"batch", options.batch},
            {"rate", options.rate},
            {"duration_s", std::chrono::duration<double>(options.duration).count()},
            {"stall_s", std::chrono::duration<double>(options.stall).count()}}},
          {"designs", std::move(designs)}};
}

std::string designs_text(const DesignsOptions& options, const std::vector<DesignResult>& results) {
  using Align = cli::Table::Align;
  cli::Table table({{"design"},
                    {"processes", Align::kRight},
                    {"connections", Align::kRight},
                    {"messages/s", Align::kRight},
                    {"CPU/message", Align::kRight},
                    {"p50", Align::kRight},
                    {"p99", Align::kRight},
                    {"PSS KiB", Align::kRight},
                    {"standstill", Align::kRight}});
  std::string after;
  for (const DesignResult& result : results) {
    const std::string name(design_name(result.design));
    if (!result.failure.empty()) {
      after += fmt::format("{}: not measured: {}\n", name, result.failure);
      continue;
    }
    table.add({name, std::to_string(result.processes), std::to_string(result.connections),
               count_text(static_cast<std::uint64_t>(result.messages_per_s)), duration_text(result.cpu_ns_per_message),
               duration_text(static_cast<double>(result.latency.percentile(50))),
               duration_text(static_cast<double>(result.latency.percentile(99))), count_text(result.pss_kib),
               duration_text(result.stall_longest_still_ms * 1e6)});
    if (!result.stall_recovered) after += fmt::format("{}: messages were lost or broken after the stall\n", name);
    for (const KillResult& kill : result.kills) after += fmt::format("{}: {}\n", name, kill_text(kill));
  }
  std::string text;
  for (const DesignResult& result : results)
    text += fmt::format("{:<8} {}\n", design_name(result.design), design_text(result.design));
  return fmt::format(
      "{}\n{} workers, {}-octet messages, at full pace {} at once; p50 and p99 at {:.0f} messages/s altogether;\n"
      "standstill: the longest time that a worker could do nothing else while the peer read nothing for {}.\n\n{}\n{}",
      text, options.workers, options.message_bytes, options.batch, options.rate,
      duration_text(static_cast<double>(options.stall.count()) * 1e6), table.text(0), after);
}

}  // namespace ktrunk::bench
