#include "cli/upgrade_report.h"

#include <fmt/format.h>

#include "cli/table.h"

namespace ktrunk::cli {

UpgradeReport upgrade_report(const nlohmann::ordered_json& answer) {
  std::string result;
  if (answer.is_object() && answer.contains("upgrade") && answer["upgrade"].is_string()) result = answer["upgrade"];
  UpgradeReport report{.done = result == "done", .text = {}};
  if (result == "done") {
    report.text = "upgraded: every process is of the new version\n";
  } else if (result == "rolled back") {
    report.text = "ktrunk: upgrade rolled back; the version before goes on\n";
  } else if (result == "failed") {
    report.text = "ktrunk: upgrade refused; nothing has changed\n";
  } else {
    report.text = "ktrunk: ktrunkd's answer to 'upgrade' says neither done nor failed\n";
    return report;
  }
  if (!answer.contains("what") || !answer["what"].is_array()) return report;
  for (const auto& line : answer["what"]) {
    if (line.is_string()) report.text += fmt::format("  {}\n", printable(line.get<std::string>()));
  }
  return report;
}

}  // namespace ktrunk::cli
