// Log: one line per event on standard error, as text or JSON, with the process that wrote it.
#pragma once

#include <spdlog/spdlog.h>

#include <string>
#include <string_view>

#include "base/result.h"

namespace ktrunk::log {

enum class Format { kText, kJson };

// Sets up the process's one logger: call it once, before the first line, and again after a fork to change the name.
// process is "supervisor", "handshake" or "worker/3". Levels are spdlog's own names (trace to critical, off).
void init(std::string_view process, Format format, spdlog::level::level_enum level);

// The level of a name as the configuration writes it: trace, debug, info, warn, error, critical, off.
[[nodiscard]] Result<spdlog::level::level_enum> parse_level(std::string_view name);

using spdlog::critical;
using spdlog::debug;
using spdlog::error;
using spdlog::info;
using spdlog::log;
using spdlog::trace;
using spdlog::warn;

}  // namespace ktrunk::log
