// What `ktrunk status` prints: ktrunkd's answer as tables.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace ktrunk::cli {

// Members that are missing or of another type are shown as "-" or left out: an older ktrunkd is no error.
[[nodiscard]] std::string status_report(const nlohmann::ordered_json& status);

}  // namespace ktrunk::cli
