// What `ktrunk upgrade` prints.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace ktrunk::cli {

struct UpgradeReport {
  bool done = false;
  std::string text;  // ends with a line feed
};

// answer: ktrunkd's to the command "upgrade".
[[nodiscard]] UpgradeReport upgrade_report(const nlohmann::ordered_json& answer);

}  // namespace ktrunk::cli
