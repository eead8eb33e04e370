#include "cli/status_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <string_view>
#include <utility>

#include "cli/table.h"

namespace ktrunk::cli {
namespace {

using Json = nlohmann::ordered_json;
using Align = Table::Align;

const Json kNothing;

const Json& member(const Json& object, std::string_view name) {
  if (!object.is_object()) return kNothing;
  const auto found = object.find(std::string(name));
  return found == object.end() ? kNothing : *found;
}

const Json& array(const Json& object, std::string_view name) {
  static const Json kEmpty = Json::array();
  const Json& found = member(object, name);
  return found.is_array() ? found : kEmpty;
}

std::string text(const Json& value) {
  if (value.is_string()) return value.get<std::string>().empty() ? "-" : value.get<std::string>();
  if (value.is_null()) return "-";
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string text(const Json& object, std::string_view name) { return text(member(object, name)); }

std::string duration(const Json& seconds) {
  if (!seconds.is_number() || !(seconds.get<double>() >= 0) || seconds.get<double>() > 1e12) return "-";
  const auto whole = static_cast<long long>(seconds.get<double>());
  const long long days = whole / 86'400;
  const long long hours = whole / 3'600 % 24;
  const long long minutes = whole / 60 % 60;
  if (days > 0) return fmt::format("{} d {} h", days, hours);
  if (hours > 0) return fmt::format("{} h {} min", hours, minutes);
  if (minutes > 0) return fmt::format("{} min {} s", minutes, whole % 60);
  return fmt::format("{} s", whole);
}

// A table with one column for each (title, member) pair; empty when there are no rows.
std::string section(std::string_view title, const Json& rows,
                    std::initializer_list<std::pair<std::string_view, std::string_view>> columns, Align others) {
  if (rows.empty()) return {};
  std::vector<Table::Column> heads;
  for (const auto& [head, name] : columns) heads.push_back({std::string(head), heads.empty() ? Align::kLeft : others});
  Table table(std::move(heads));
  for (const Json& row : rows) {
    std::vector<std::string> cells;
    for (const auto& [head, name] : columns) cells.push_back(text(row, name));
    table.add(std::move(cells));
  }
  return fmt::format("\n{}\n{}", title, table.text(2));
}

// "kernel (software)", "relay: the suite is not one the kernel does".
std::string record_layer(const Json& connection) {
  const std::string layer = text(connection, "record_layer");
  const std::string reason = text(connection, "record_layer_reason");
  if (reason == "-") return layer;
  return layer == "kernel" ? fmt::format("kernel ({})", reason) : fmt::format("{}: {}", layer, reason);
}

std::string per_worker(const Json& counts) {
  if (!counts.is_array()) return text(counts);
  std::string result;
  for (const Json& count : counts) result += (result.empty() ? "" : " ") + text(count);
  return result.empty() ? "-" : result;
}

// "2/1": new keys so far, for sending and for receiving.
std::string rekeys(const Json& connection) {
  const std::string transmit = text(connection, "transmit_key_renewals");
  const std::string receive = text(connection, "receive_key_renewals");
  return transmit == "-" && receive == "-" ? "-" : fmt::format("{}/{}", transmit, receive);
}

std::string connections(const Json& status) {
  const Json& rows = array(status, "connections");
  if (rows.empty()) return "\nNo connections\n";
  Table table({{"connection"},
               {"state"},
               {"trunk"},
               {"listener"},
               {"peer"},
               {"transport"},
               {"TLS"},
               {"cipher"},
               {"home", Align::kRight},
               {"queued", Align::kRight},
               {"sent per worker"},
               {"rekeys", Align::kRight},
               {"records by"}});
  for (const Json& row : rows) {
    table.add({text(row, "id"), text(row, "state"), text(row, "trunk"), text(row, "listener"), text(row, "peer"),
               text(row, "transport"), text(row, "tls_version"), text(row, "cipher"), text(row, "home_worker"),
               text(row, "queued_bytes"), per_worker(member(row, "messages_sent")), rekeys(row), record_layer(row)});
  }
  return fmt::format("\nConnections ({})\n{}", table.rows(), table.text(2));
}

// "200, 3 s ago".
std::string options_answer(const Json& trunk) {
  const Json& answer = member(trunk, "options_answer");
  if (!answer.is_object()) return "-";
  return fmt::format("{}, {} ago", text(answer, "status"), duration(member(answer, "age_s")));
}

std::string trunks(const Json& status) {
  const Json& rows = array(status, "trunks");
  if (rows.empty()) return {};
  Table table({{"trunk"},
               {"state"},
               {"for", Align::kRight},
               {"connections", Align::kRight},
               {"wanted", Align::kRight},
               {"OPTIONS answered"}});
  for (const Json& row : rows) {
    table.add({text(row, "name"), text(row, "state"), duration(member(row, "since_s")), text(row, "connections"),
               text(row, "wanted"), options_answer(row)});
  }
  return fmt::format("\nTrunks\n{}", table.text(2));
}

// The workers' sums; nothing where nobody watches, nor has.
std::string tracing(const Json& status) {
  constexpr std::string_view kNames[] = {"hep_sent", "hep_dropped", "traced", "trace_dropped"};
  std::array<std::uint64_t, std::size(kNames)> sums{};
  for (const Json& worker : array(status, "workers")) {
    for (std::size_t i = 0; i < sums.size(); ++i) {
      if (const Json& count = member(worker, kNames[i]); count.is_number_unsigned())
        sums[i] += count.get<std::uint64_t>();
    }
  }
  if (std::ranges::all_of(sums, [](std::uint64_t sum) { return sum == 0; })) return {};
  return fmt::format("Copies of messages: {} to the HEP collector, {} dropped; {} traced, {} dropped\n", sums[0],
                     sums[1], sums[2], sums[3]);
}

std::string kernel_counters(const Json& status) {
  const Json& counters = member(status, "tls_stat");
  if (!counters.is_object() || counters.empty()) return {};
  Table table({{"counter"}, {"value", Align::kRight}});
  for (const auto& [name, value] : counters.items()) table.add({name, text(value)});
  return fmt::format("\nKernel TLS (/proc/net/tls_stat, the whole network namespace)\n{}", table.text(2));
}

}  // namespace

std::string status_report(const Json& status) {
  std::string report =
      printable(fmt::format("ktrunkd {}, process {}, {}, up {}", text(status, "version"), text(status, "pid"),
                            text(status, "state"), duration(member(status, "uptime_s")))) +
      "\n";
  const Json& handshakes = member(status, "handshakes");
  if (handshakes.is_object()) {
    report +=
        printable(fmt::format("Handshakes: {} accepted, {} connected, {} failed, {} refused, {} in progress",
                              text(handshakes, "accepted"), text(handshakes, "connected"), text(handshakes, "failed"),
                              text(handshakes, "refused"), text(handshakes, "in_progress"))) +
        "\n";
    report += printable(fmt::format("Keys renewed: {} for sending, {} for receiving; {} connections replaced",
                                    text(handshakes, "transmit_rekeyed"), text(handshakes, "receive_rekeyed"),
                                    text(handshakes, "replaced"))) +
              "\n";
  }
  report += tracing(status);
  report += section("Processes", array(status, "processes"),
                    {{"process", "name"}, {"pid", "pid"}, {"restarts", "restarts"}}, Align::kRight);
  report += section("Handshake processes", array(status, "handshake_processes"),
                    {{"process", "index"},
                     {"accepted", "accepted"},
                     {"connected", "connected"},
                     {"failed", "failed"},
                     {"refused", "refused"},
                     {"in progress", "in_progress"},
                     {"resumed", "resumed"},
                     {"tickets", "tickets"},
                     {"kernel", "kernel"},
                     {"relayed", "relayed"}},
                    Align::kRight);
  report += section("Workers", array(status, "workers"),
                    {{"worker", "index"},
                     {"received", "messages_received"},
                     {"sent", "messages_sent"},
                     {"records", "records_sent"},
                     {"bytes sent", "bytes_sent"},
                     {"requests", "requests"},
                     {"responses", "responses"},
                     {"replies", "replies"},
                     {"dropped", "dropped"},
                     {"queue full", "queue_full"},
                     {"queued", "queued_bytes"},
                     {"handed over", "handed_over"}},
                    Align::kRight);
  report += trunks(status);
  report += connections(status);
  report += kernel_counters(status);
  return report;
}

}  // namespace ktrunk::cli
