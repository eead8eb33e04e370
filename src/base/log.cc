#include "base/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <memory>
#include <nlohmann/json.hpp>

namespace ktrunk::log {
namespace {

// One JSON object per line: {"time":...,"level":...,"process":...,"pid":...,"message":...}. Bytes that are not UTF-8
// (they may come from a peer) are replaced, so that a line is always valid JSON.
class JsonFormatter final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& line) override {
    const std::string_view level(spdlog::level::to_string_view(message.level).data(),
                                 spdlog::level::to_string_view(message.level).size());
    spdlog::memory_buf_t time;
    time_.format(message, time);
    const nlohmann::ordered_json object = {
        {"time", std::string_view(time.data(), time.size())},
        {"level", level},
        {"process", std::string_view(message.logger_name.data(), message.logger_name.size())},
        {"pid", spdlog::details::os::pid()},
        {"message", std::string_view(message.payload.data(), message.payload.size())}};
    const std::string text = object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
    line.append(text.data(), text.data() + text.size());
    line.push_back('\n');
  }
  [[nodiscard]] std::unique_ptr<formatter> clone() const override { return std::make_unique<JsonFormatter>(); }

 private:
  spdlog::pattern_formatter time_{"%Y-%m-%dT%H:%M:%S.%f%z", spdlog::pattern_time_type::local, ""};
};

}  // namespace

void init(std::string_view process, Format format, spdlog::level::level_enum level) {
  auto sink = std::make_shared<spdlog::sinks::stderr_sink_st>();
  auto logger = std::make_shared<spdlog::logger>(std::string(process), std::move(sink));
  if (format == Format::kJson) {
    logger->set_formatter(std::make_unique<JsonFormatter>());
  } else {
    logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %-8l %n[%P] %v");
  }
  logger->set_level(level);
  spdlog::set_default_logger(std::move(logger));
}

Result<spdlog::level::level_enum> parse_level(std::string_view name) {
  if (name == "trace") return spdlog::level::trace;
  if (name == "debug") return spdlog::level::debug;
  if (name == "info") return spdlog::level::info;
  if (name == "warn") return spdlog::level::warn;
  if (name == "error") return spdlog::level::err;
  if (name == "critical") return spdlog::level::critical;
  if (name == "off") return spdlog::level::off;
  return fail("'{}' is no log level; expected trace, debug, info, warn, error, critical or off", name);
}

}  // namespace ktrunk::log
