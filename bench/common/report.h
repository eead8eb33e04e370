// Report: what a measurement says, for people on standard output and for programs as a JSON file.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"
#include "bench/common/cpu_time.h"
#include "bench/common/histogram.h"

namespace ktrunk::bench {

using Json = nlohmann::ordered_json;

// "1.23 ms": three digits and a unit that fits.
[[nodiscard]] std::string duration_text(double nanoseconds);
// "12,345".
[[nodiscard]] std::string count_text(std::uint64_t count);

// {"count", "min", "mean", "p50", "p90", "p99", "p99_9", "max"}, microseconds.
[[nodiscard]] Json latency_json(const Histogram& latency);
// "p50 .. p90 .. p99 .. p99.9 .. max ..".
[[nodiscard]] std::string latency_text(const Histogram& latency);

// {"total_ns", "processes": [{"pid", "name", "ns"}]}.
[[nodiscard]] Json cpu_json(const CpuMeter& meter);

// What every report begins with: the program, the command, the kernel and its TLS, the processors, the time.
[[nodiscard]] Json report_head(const std::string& command);

// Writes the document to the file, whole; "-" is standard output. Nothing when the path is empty.
[[nodiscard]] Status write_json(const std::string& path, const Json& document);

// Prints a failure on standard error, as "ktrunk-bench: WHAT", and gives the exit status of one.
int complain(const Error& error);

}  // namespace ktrunk::bench
