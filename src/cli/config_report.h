// What `ktrunk check` prints about a good configuration: its listeners, trunks and routes in words.
#pragma once

#include <string>

#include "config/config.h"

namespace ktrunk::cli {

[[nodiscard]] std::string config_report(const config::Config& config);

}  // namespace ktrunk::cli
