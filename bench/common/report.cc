#include "bench/common/report.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <ctime>

namespace ktrunk::bench {

std::string duration_text(double nanoseconds) {
  struct Unit {
    double ns;
    const char* name;
  };
  static constexpr std::array kUnits = {Unit{1e9, "s"}, Unit{1e6, "ms"}, Unit{1e3, "us"}, Unit{1, "ns"}};
  for (const Unit& unit : kUnits) {
    if (nanoseconds >= unit.ns || unit.ns == 1) {
      const double value = nanoseconds / unit.ns;
      return fmt::format("{:.{}f} {}", value, value >= 100 ? 0 : value >= 10 ? 1 : 2, unit.name);
    }
  }
  return {};
}

std::string count_text(std::uint64_t count) {
  std::string text = std::to_string(count);
  for (std::size_t place = text.size(); place > 3;)
    text.insert(text.begin() + static_cast<std::ptrdiff_t>(place -= 3), ',');
  return text;
}

Json latency_json(const Histogram& latency) {
  const auto us = [](double ns) { return ns / 1000.0; };
  const auto at = [&](double percent) { return us(static_cast<double>(latency.percentile(percent))); };
  return {{"count", latency.count()},
          {"min", us(static_cast<double>(latency.min()))},
          {"mean", us(latency.mean())},
          {"p50", at(50)},
          {"p90", at(90)},
          {"p99", at(99)},
          {"p99_9", at(99.9)},
          {"max", us(static_cast<double>(latency.max()))}};
}

std::string latency_text(const Histogram& latency) {
  if (latency.count() == 0) return "none measured";
  const auto at = [&](double percent) { return duration_text(static_cast<double>(latency.percentile(percent))); };
  return fmt::format("p50 {}, p90 {}, p99 {}, p99.9 {}, max {}", at(50), at(90), at(99), at(99.9),
                     duration_text(static_cast<double>(latency.max())));
}

Json cpu_json(const CpuMeter& meter) {
  Json processes = Json::array();
  for (const CpuMeter::Share& share : meter.shares())
    processes.push_back({{"pid", share.process.pid}, {"name", share.process.name}, {"ns", share.ns}});
  return {{"total_ns", meter.total_ns()}, {"processes", std::move(processes)}};
}

Json report_head(const std::string& command) {
  utsname kernel{};
  ::uname(&kernel);
  const std::time_t now = std::time(nullptr);
  return {{"program", "ktrunk-bench"},
          {"version", KTRUNK_VERSION},
          {"command", command},
          {"time", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(now))},
          {"kernel", kernel.release},
          {"kernel_tls", ::access("/proc/net/tls_stat", R_OK) == 0},
          {"processors", ::sysconf(_SC_NPROCESSORS_ONLN)}};
}

Status write_json(const std::string& path, const Json& document) {
  if (path.empty()) return {};
  const std::string text = document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  std::FILE* file = path == "-" ? stdout : std::fopen(path.c_str(), "we");
  if (file == nullptr) return fail_errno(errno, fmt::format("--json: write {}", path));
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size() && std::fflush(file) == 0;
  const int error = errno;
  if (file != stdout) std::fclose(file);
  if (!written) return fail_errno(error, fmt::format("--json: write {}", path));
  return {};
}

int complain(const Error& error) {
  fmt::print(stderr, "ktrunk-bench: {}\n", error.what);
  return EXIT_FAILURE;
}

}  // namespace ktrunk::bench
