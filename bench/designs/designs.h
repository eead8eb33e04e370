// Designs: the ways in which multi-process SIP servers share a TLS trunk, side by side: same messages, same peer, same
// machine, one run. Each is measured at full pace (messages a second, CPU time), at a rate that all can do (latency),
// with a peer that stops reading, and with one of its processes killed.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "bench/common/histogram.h"
#include "bench/common/report.h"
#include "bench/designs/server.h"

namespace ktrunk::bench {

struct DesignsOptions {
  std::vector<Design> designs;
  unsigned workers = 4;
  std::size_t message_bytes = 600;
  std::size_t batch = 8;
  double rate = 2'000;  // messages a second of all workers together, for latency, stall and kill
  std::chrono::milliseconds duration{3'000};
  std::chrono::milliseconds stall{1'000};
  TlsSettings tls;
  bool quiet = false;
};

// What is left after a process was killed.
struct KillResult {
  std::string victim;  // "a worker", "the owner", "the process"
  unsigned connections_before = 0;
  unsigned connections_after = 0;
  double messages_per_s_before = 0;  // at the rate
  double messages_per_s_after = 0;
  unsigned broken = 0;  // streams that went on with something that is no message
};

struct DesignResult {
  Design design = Design::kOwn;
  std::string failure;  // why it could not be measured; the rest is empty then
  std::string records;  // "kernel" or "OpenSSL", the sender's
  unsigned processes = 0;
  unsigned connections = 0;
  double messages_per_s = 0;          // at full pace
  double cpu_ns_per_message = 0;      // of all the design's processes
  std::uint64_t pss_kib = 0;          // the same, without what the kernel keeps for sockets
  Histogram latency;                  // at the rate, from when each message was due
  double stall_longest_still_ms = 0;  // the peer reads nothing: how long a worker could do nothing else, at most
  bool stall_recovered = false;       // all messages that were due have come, afterwards
  std::vector<KillResult> kills;
};

// Error: nothing can be measured at all. A design that fails says so in its result.
[[nodiscard]] Result<std::vector<DesignResult>> run_designs(const DesignsOptions& options);

[[nodiscard]] Json designs_json(const DesignsOptions& options, const std::vector<DesignResult>& results);
[[nodiscard]] std::string designs_text(const DesignsOptions& options, const std::vector<DesignResult>& results);

}  // namespace ktrunk::bench
