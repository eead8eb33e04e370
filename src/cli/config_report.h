// What `ktrunk check` prints about a good configuration: its listeners, trunks and routes in words.
#pragma once

#include <string>
#include <vector>

#include "config/config.h"

namespace ktrunk::cli {

// What a route changes in the requests that it takes, a line each.
[[nodiscard]] std::vector<std::string> route_actions(const config::Route& route);

[[nodiscard]] std::string config_report(const config::Config& config);

}  // namespace ktrunk::cli
