// What `ktrunk reload` prints: ktrunkd's answer in lines.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace ktrunk::cli {

struct ReloadReport {
  bool done = false;
  std::string text;  // lines, for standard output when it is done, else for standard error
};
// An answer of another form is a failure that says so.
[[nodiscard]] ReloadReport reload_report(const nlohmann::ordered_json& answer);

}  // namespace ktrunk::cli
