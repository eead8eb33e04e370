// Handshakes: a client that makes TLS handshakes with a server, one after the other on several lanes: how many a
// second, how long each takes, and what they cost the server. `ktrunk-bench handshakes` and `floor` are made of it.
//
// One round: TCP connect, handshake, for resumption the wait for a session ticket, close_notify, and the server's end
// of the stream. So the server has done everything that a connection without messages asks of it when the next one
// begins.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "bench/common/cpu_time.h"
#include "bench/common/endpoint.h"
#include "bench/common/histogram.h"
#include "bench/common/report.h"

namespace ktrunk::bench {

enum class Resume : std::uint8_t { kNo, kYes };

struct HandshakeOptions {
  Endpoint connect;
  TlsSettings tls;
  Resume resume = Resume::kNo;  // each lane offers what its last round has brought
  std::size_t concurrency = 4;  // lanes
  std::chrono::milliseconds warm_up{500};
  std::chrono::milliseconds duration{5'000};
  std::chrono::milliseconds timeout{10'000};  // for one round
  bool quiet = false;
  std::vector<MeasuredProcess> measured;
};

struct HandshakeResult {
  double seconds = 0;
  std::uint64_t done = 0;
  std::uint64_t resumed = 0;  // of those
  std::uint64_t failed = 0;
  std::string first_failure;
  std::string version;
  std::string cipher;
  Histogram latency;  // from connect() to the end of the handshake
  std::uint64_t own_cpu_ns = 0;
  CpuMeter cpu{{}};

  [[nodiscard]] double cpu_per_handshake_ns() const {
    return done == 0 ? 0 : static_cast<double>(cpu.total_ns()) / static_cast<double>(done);
  }
};

// Error: not one handshake succeeded, with the first reason; or a measured process has gone.
[[nodiscard]] Result<HandshakeResult> run_handshakes(const HandshakeOptions& options);

[[nodiscard]] Json handshakes_json(const HandshakeOptions& options, const HandshakeResult& result);
[[nodiscard]] std::string handshakes_text(const HandshakeResult& result);

}  // namespace ktrunk::bench
