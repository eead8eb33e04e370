#include "cli/reload_report.h"

#include <fmt/format.h>

#include "cli/table.h"

namespace ktrunk::cli {

ReloadReport reload_report(const nlohmann::ordered_json& answer) {
  std::string result;
  if (answer.is_object() && answer.contains("reload") && answer["reload"].is_string()) result = answer["reload"];
  ReloadReport report{.done = result == "done", .text = {}};
  if (!report.done && result != "failed") {
    report.text = "ktrunk: ktrunkd's answer to 'reload' says neither done nor failed\n";
    return report;
  }
  report.text = report.done ? "reloaded: new handshakes use the files as they are now\n"
                            : "ktrunk: reload failed; what was read before stays in force\n";
  if (!answer.contains("what") || !answer["what"].is_array()) return report;
  for (const auto& line : answer["what"]) {
    if (line.is_string()) report.text += fmt::format("  {}\n", printable(line.get<std::string>()));
  }
  return report;
}

}  // namespace ktrunk::cli
