// Load: one run of the load generator: connections come up, warm-up, the measured time, the rest comes home.
// `ktrunk-bench load` and `floor` are made of it.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "bench/common/cpu_time.h"
#include "bench/common/endpoint.h"
#include "bench/common/report.h"
#include "bench/load/callee.h"
#include "bench/load/caller.h"
#include "bench/load/stalled_peers.h"

namespace ktrunk::bench {

struct LoadOptions {
  std::optional<Endpoint> connect;  // the caller's side; none: no caller here
  std::optional<Endpoint> answer;   // the callee's
  TlsSettings tls;
  CallerOptions caller;
  std::size_t connections = 1;
  double open_rate = 0;  // connections begun a second; 0: as fast as possible
  std::chrono::milliseconds set_up{30'000};
  bool on_demand = false;  // the proxy connects to the callee when it has a request for it: it is not waited for
  std::chrono::milliseconds warm_up{1'000};
  std::chrono::milliseconds duration{10'000};  // 0: until interrupted
  bool quiet = false;                          // no progress on standard error
  std::vector<MeasuredProcess> measured;       // whose CPU time is counted
  std::size_t stalled = 0;                     // further connections to `connect`, which read nothing
  double stalled_rate = 100;                   // requests a second that each of them sends
};

struct LoadResult {
  double seconds = 0;  // measured
  std::size_t connections_wanted = 0;
  std::size_t connections = 0;
  std::string connection_failure;  // the first
  std::optional<StreamKind> stream_kind;
  // In the measured time; what fails, late ones included, counts to the end.
  CallerCounts caller;
  CalleeCounts callee;
  StalledCounts stalled;  // warm-up included
  Histogram latency;
  Histogram bye_latency;
  std::string troubles;
  std::uint64_t own_cpu_ns = 0;
  CpuMeter cpu{{}};
  bool interrupted = false;

  [[nodiscard]] std::uint64_t messages_received() const {
    return caller.messages_received + callee.messages_received();
  }
  [[nodiscard]] std::uint64_t bad() const { return caller.failed + caller.timeouts + caller.lost; }
};

// Errors: no connection came up (with the first reason), or a measured process has gone. SIGINT and SIGTERM end the
// run early; the result is that of the time until then.
// answer_socket: listens at options.answer already; or none.
[[nodiscard]] Result<LoadResult> run_load(const LoadOptions& options, Fd answer_socket = {});

// What peers that read nothing cost the others: two runs alike but for these.
struct StallComparison {
  LoadResult without;
  LoadResult with;
  // Of latencies; 0: nothing was answered in one of the two.
  [[nodiscard]] double p99_ratio() const;
};
// options.stalled: at least 1. Errors: as run_load(), or interrupted before both were measured.
[[nodiscard]] Result<StallComparison> compare_stall(const LoadOptions& options);

[[nodiscard]] Json load_json(const LoadOptions& options, const LoadResult& result);
[[nodiscard]] std::string load_text(const LoadOptions& options, const LoadResult& result);

}  // namespace ktrunk::bench
