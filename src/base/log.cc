#include "base/log.h"

#include <fmt/format.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

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

// "2026-01-31 12:00:00.000 info     worker/0[4711] message", always one line: what a peer sent may be in the message,
// and must neither forge lines of the log nor steer the terminal that shows it.
class TextFormatter final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& line) override {
    spdlog::details::log_msg shown = message;
    escaped_.clear();
    for (const char c : std::string_view(message.payload.data(), message.payload.size())) {
      if (is_control(c)) {
        fmt::format_to(std::back_inserter(escaped_), "\\x{:02x}", static_cast<unsigned char>(c));
      } else {
        escaped_.push_back(c);
      }
    }
    shown.payload = spdlog::string_view_t(escaped_.data(), escaped_.size());
    pattern_.format(shown, line);
  }
  [[nodiscard]] std::unique_ptr<formatter> clone() const override { return std::make_unique<TextFormatter>(); }

 private:
  static bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }
  spdlog::pattern_formatter pattern_{"%Y-%m-%d %H:%M:%S.%e %-8l %n[%P] %v"};
  std::string escaped_;
};

spdlog::level::level_enum level_of(Level level) {
  switch (level) {
    case Level::kTrace:
      return spdlog::level::trace;
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarn:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
    case Level::kCritical:
      return spdlog::level::critical;
    case Level::kOff:
      break;
  }
  return spdlog::level::off;
}

}  // namespace

void init(std::string_view process, Format format, Level level) {
  auto sink = std::make_shared<spdlog::sinks::stderr_sink_st>();
  auto logger = std::make_shared<spdlog::logger>(std::string(process), std::move(sink));
  if (format == Format::kJson) {
    logger->set_formatter(std::make_unique<JsonFormatter>());
  } else {
    logger->set_formatter(std::make_unique<TextFormatter>());
  }
  logger->set_level(level_of(level));
  spdlog::set_default_logger(std::move(logger));
}

Result<Level> parse_level(std::string_view name) {
  if (name == "trace") return Level::kTrace;
  if (name == "debug") return Level::kDebug;
  if (name == "info") return Level::kInfo;
  if (name == "warn") return Level::kWarn;
  if (name == "error") return Level::kError;
  if (name == "critical") return Level::kCritical;
  if (name == "off") return Level::kOff;
  return fail("'{}' is no log level; expected trace, debug, info, warn, error, critical or off", name);
}

bool is_on(Level level) { return spdlog::default_logger_raw()->should_log(level_of(level)); }

void write(Level level, fmt::string_view format, fmt::format_args arguments) {
  fmt::memory_buffer line;
  fmt::vformat_to(std::back_inserter(line), format, arguments);
  spdlog::default_logger_raw()->log(level_of(level), spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace ktrunk::log
