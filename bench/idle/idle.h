// Idle: connections that are opened and carry nothing: what they cost the server's memory, and company for a load that
// is measured meanwhile.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "bench/common/cpu_time.h"
#include "bench/common/endpoint.h"
#include "bench/common/report.h"
#include "bench/io/stream.h"

namespace ktrunk::bench {

struct IdleOptions {
  Endpoint connect;
  TlsSettings tls;
  std::size_t connections = 100;
  std::chrono::milliseconds set_up{30'000};
  std::chrono::milliseconds settle{500};  // from the last one's coming up to the second look at the memory
  std::chrono::milliseconds hold{0};      // how long they are kept after that, unless all end; 0: until interrupted
  bool quiet = false;
  std::vector<MeasuredProcess> measured;  // whose memory is looked at
};

struct IdleResult {
  std::size_t connections = 0;  // that are up
  std::string first_failure;
  std::optional<StreamKind> stream_kind;
  double seconds = 0;  // that it took to open them
  // Of all measured processes together; the kernel's for the sockets is not in it.
  std::uint64_t memory_before_kib = 0;
  std::uint64_t memory_after_kib = 0;
  std::size_t ended = 0;  // while they were held

  [[nodiscard]] double octets_per_connection() const;
};

// up: called once all are up (or the time for it is), before they are held. Errors: no connection came up, a measured
// process has gone, or what `up` says.
[[nodiscard]] Result<IdleResult> run_idle(const IdleOptions& options,
                                          const std::function<Status(const IdleResult&)>& up);

[[nodiscard]] Json idle_json(const IdleOptions& options, const IdleResult& result);
[[nodiscard]] std::string idle_text(const IdleOptions& options, const IdleResult& result);

}  // namespace ktrunk::bench
