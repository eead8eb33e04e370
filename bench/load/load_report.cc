#include <fmt/format.h>

#include "bench/load/load.h"

namespace ktrunk::bench {
namespace {

double per_second(std::uint64_t count, const LoadResult& result) {
  return result.seconds > 0 ? static_cast<double>(count) / result.seconds : 0;
}

double per_message(std::uint64_t ns, const LoadResult& result) {
  const std::uint64_t messages = result.messages_received();
  return messages == 0 ? 0 : static_cast<double>(ns) / static_cast<double>(messages);
}

std::string rate_text(std::uint64_t count, const LoadResult& result) {
  return fmt::format("{} ({}/s)", count_text(count), count_text(static_cast<std::uint64_t>(per_second(count, result))));
}

}  // namespace

Json load_json(const LoadOptions& options, const LoadResult& result) {
  const CallerOptions& caller = options.caller;
  const bool calls = caller.workload == Workload::kCalls;
  Json document;
  document["options"] = {{"role", !options.connect ? "callee"
                                  : options.answer ? "both"
                                                   : "caller"},
                         {"connect", options.connect ? options.connect->address.text() : ""},
                         {"answer", options.answer ? options.answer->address.text() : ""},
                         {"workload", calls ? "calls" : "messages"},
                         {"method", calls ? "INVITE" : std::string(method_name(caller.method))},
                         {"connections", options.connections},
                         {"rate", caller.rate},
                         {"concurrency", caller.concurrency},
                         {"message_bytes", caller.shape.message_bytes},
                         {"warm_up_s", std::chrono::duration<double>(options.warm_up).count()},
                         {"duration_s", std::chrono::duration<double>(options.duration).count()}};
  document["seconds"] = result.seconds;
  document["interrupted"] = result.interrupted;
  document["connections"] = {{"wanted", result.connections_wanted},
                             {"up", result.connections},
                             {"ended", result.caller.connections_ended},
                             {"answering", result.callee.connections},
                             {"first_failure", result.connection_failure}};
  if (result.stream_kind) document["tls"] = stream_kind_json(*result.stream_kind);
  if (options.connect) {
    const CallerCounts& counts = result.caller;
    document["caller"] = {{"begun", counts.begun},
                          {"answered", counts.answered},
                          {"answered_per_s", per_second(counts.answered, result)},
                          {"failed", counts.failed},
                          {"timeouts", counts.timeouts},
                          {"lost", counts.lost},
                          {"unexpected", counts.unexpected},
                          {"messages_sent", counts.messages_sent},
                          {"messages_received", counts.messages_received},
                          {"troubles", result.troubles}};
    document["latency_us"] = latency_json(result.latency);
    if (calls) document["bye_latency_us"] = latency_json(result.bye_latency);
  }
  if (options.answer)
    document["callee"] = {{"requests", result.callee.requests},
                          {"responses", result.callee.responses},
                          {"dropped", result.callee.dropped},
                          {"unexpected", result.callee.unexpected}};
  if (options.stalled != 0)
    document["stalled"] = {{"peers", options.stalled},
                           {"rate", options.stalled_rate},
                           {"requests", result.stalled.requests},
                           {"ended", result.stalled.ended},
                           {"first_end", result.stalled.first_end}};
  document["messages_received"] = result.messages_received();
  document["messages_per_s"] = per_second(result.messages_received(), result);
  document["own_cpu_ns"] = result.own_cpu_ns;
  document["own_cpu_ns_per_message"] = per_message(result.own_cpu_ns, result);
  if (!result.cpu.empty()) {
    document["cpu"] = cpu_json(result.cpu);
    document["cpu"]["ns_per_message"] = per_message(result.cpu.total_ns(), result);
  }
  return document;
}

std::string load_text(const LoadOptions& options, const LoadResult& result) {
  const CallerCounts& counts = result.caller;
  const bool calls = options.caller.workload == Workload::kCalls;
  std::string text;
  const auto row = [&text](std::string_view title, const std::string& value) {
    text += fmt::format("{:<18} {}\n", title, value);
  };
  std::string kind = "plain TCP";
  if (result.stream_kind && result.stream_kind->records != StreamKind::Records::kNone)
    kind = fmt::format("{}, {}, own records by {}", result.stream_kind->version, result.stream_kind->cipher,
                       result.stream_kind->records == StreamKind::Records::kKernel ? "the kernel" : "OpenSSL");
  row("Measured", fmt::format("{:.2f} s{}", result.seconds, result.interrupted ? " (interrupted)" : ""));
  if (options.connect) {
    row("Connections", fmt::format("{} of {}, {}", result.connections, result.connections_wanted, kind));
    if (result.connections < result.connections_wanted) row("", "first failure: " + result.connection_failure);
    row(calls ? "Calls begun" : "Requests", rate_text(counts.begun, result));
    row("Answered", rate_text(counts.answered, result));
    row("Not answered",
        fmt::format("{} failed, {} timeouts, {} lost{}", count_text(counts.failed), count_text(counts.timeouts),
                    count_text(counts.lost), result.troubles.empty() ? "" : " (" + result.troubles + ")"));
    row(calls ? "INVITE to 200" : "Latency", latency_text(result.latency));
    if (calls) row("BYE to 200", latency_text(result.bye_latency));
  }
  if (options.answer)
    row("Answering side", fmt::format("{} requests, {} responses, {} dropped", count_text(result.callee.requests),
                                      count_text(result.callee.responses), count_text(result.callee.dropped)));
  if (options.stalled != 0)
    row("Stalled peers", fmt::format("{}, {} requests; {} ended{}", options.stalled,
                                     count_text(result.stalled.requests), count_text(result.stalled.ended),
                                     result.stalled.first_end.empty() ? "" : " (" + result.stalled.first_end + ")"));
  row("Messages received", rate_text(result.messages_received(), result));
  row("Own CPU", fmt::format("{}, {} a message", duration_text(static_cast<double>(result.own_cpu_ns)),
                             duration_text(per_message(result.own_cpu_ns, result))));
  for (const CpuMeter::Share& share : result.cpu.shares())
    row("CPU of " + (share.process.name.empty() ? std::to_string(share.process.pid) : share.process.name),
        fmt::format("{}, {} a message", duration_text(static_cast<double>(share.ns)),
                    duration_text(per_message(share.ns, result))));
  if (!result.cpu.empty())
    row("CPU of all these", fmt::format("{}, {} a message", duration_text(static_cast<double>(result.cpu.total_ns())),
                                        duration_text(per_message(result.cpu.total_ns(), result))));
  return text;
}

}  // namespace ktrunk::bench
