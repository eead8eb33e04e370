// Log: one line per event on standard error, as text or JSON, with the process that wrote it.
#pragma once

#include <fmt/core.h>

#include <string_view>
#include <utility>

#include "base/result.h"

namespace ktrunk::log {

enum class Format { kText, kJson };
enum class Level { kTrace, kDebug, kInfo, kWarn, kError, kCritical, kOff };

// Sets up the process's one logger: call it once, before the first line, and again after a fork to change the name.
// process is "supervisor", "handshake" or "worker/3".
void init(std::string_view process, Format format, Level level);

// The level of a name as the configuration writes it: trace, debug, info, warn, error, critical, off.
[[nodiscard]] Result<Level> parse_level(std::string_view name);

// Whether a line of this level is written at all.
[[nodiscard]] bool is_on(Level level);

// Writes one line. Not a template, nor any of the formatting behind it: every file that logs would compile all of it.
void write(Level level, fmt::string_view format, fmt::format_args arguments);

// A line in the words of a format string, when its level is on.
template <typename... Args>
void log(Level level, fmt::format_string<Args...> format, Args&&... args) {
  if (is_on(level)) write(level, format, fmt::make_format_args(args...));
}
template <typename... Args>
void trace(fmt::format_string<Args...> format, Args&&... args) {
  log(Level::kTrace, format, std::forward<Args>(args)...);
}
template <typename... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  log(Level::kDebug, format, std::forward<Args>(args)...);
}
template <typename... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  log(Level::kInfo, format, std::forward<Args>(args)...);
}
template <typename... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
  log(Level::kWarn, format, std::forward<Args>(args)...);
}
template <typename... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  log(Level::kError, format, std::forward<Args>(args)...);
}
template <typename... Args>
void critical(fmt::format_string<Args...> format, Args&&... args) {
  log(Level::kCritical, format, std::forward<Args>(args)...);
}

}  // namespace ktrunk::log
