// Whether a forwarded message is the original but for what a proxy has to change (RFC 3261 16.6, 16.7), found line by
// line without ktrunk's own edits or parser. Only for messages with CRLF line ends and an empty line.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace ktrunk::test {

namespace round_trip {

// With their line ends; the empty line is the last.
inline std::vector<std::string_view> header_lines(std::string_view message) {
  std::vector<std::string_view> lines;
  while (!message.empty()) {
    const std::size_t feed = std::min(message.find("\r\n"), message.size());
    lines.push_back(message.substr(0, feed + 2));
    if (feed == 0) break;
    message.remove_prefix(std::min(message.size(), feed + 2));
  }
  return lines;
}

inline std::string_view body(std::string_view message) {
  const std::size_t empty_line = message.find("\r\n\r\n");
  return empty_line == std::string_view::npos ? std::string_view{} : message.substr(empty_line + 4);
}

inline bool has_field(const std::vector<std::string_view>& lines, std::string_view lower_name) {
  return std::any_of(lines.begin(), lines.end(), [&](std::string_view line) {
    if (line.size() < lower_name.size()) return false;
    for (std::size_t i = 0; i < lower_name.size(); ++i)
      if (std::tolower(static_cast<unsigned char>(line[i])) != lower_name[i]) return false;
    return line.substr(lower_name.size()).find_first_not_of(" \t\r\n") < line.size() &&
           line[lower_name.size() + line.substr(lower_name.size()).find_first_not_of(" \t\r\n")] == ':';
  });
}

// The line without what RFC 3581 and 18.2.1 put into a Via: ";received=..." and the value of rport.
inline std::string without_received(std::string_view line) {
  std::string out(line);
  if (const std::size_t at = out.find(";received="); at != std::string::npos) {
    std::size_t end = at + 10;
    while (end < out.size() && (std::isxdigit(static_cast<unsigned char>(out[end])) || out[end] == '.' ||
                                out[end] == ':' || out[end] == '[' || out[end] == ']'))
      ++end;
    out.erase(at, end - at);
  }
  if (const std::size_t at = out.find("rport="); at != std::string::npos) {
    std::size_t end = at + 6;
    while (end < out.size() && std::isdigit(static_cast<unsigned char>(out[end]))) ++end;
    out.erase(at + 5, end - at - 5);
  }
  return out;
}

// "Max-Forwards: 8" and "Max-Forwards: 7", whatever stands round the number, leading zeros and folds.
inline bool counted_down(std::string_view before, std::string_view after) {
  const std::size_t digit = before.find_first_of("0123456789");
  if (digit == std::string_view::npos || before.substr(0, digit) != after.substr(0, std::min(digit, after.size())))
    return false;
  const std::size_t end = std::min(before.find_first_not_of("0123456789", digit), before.size());
  const long hops = std::strtol(std::string(before.substr(digit, end - digit)).c_str(), nullptr, 10);
  return after.substr(digit) == std::to_string(hops - 1) + std::string(before.substr(end));
}

// Two lines for one message: a strict router's URI has moved from the Route line into the request line, and the other
// way round (RFC 3261 16.6 step 6). Only for a Route line with one value that is nothing but <URI>.
inline bool exchanged(std::string_view request_before, std::string_view request_after, std::string_view route_before,
                      std::string_view route_after) {
  const auto uri_of = [](std::string_view request_line) {
    const std::size_t begin = request_line.find(' ') + 1;
    return std::string(request_line.substr(begin, request_line.rfind(' ') - begin));
  };
  return route_before == "Route: <" + uri_of(request_after) + ">\r\n" &&
         route_after == "Route: <" + uri_of(request_before) + ">\r\n" &&
         request_before.substr(0, request_before.find(' ')) == request_after.substr(0, request_after.find(' '));
}

}  // namespace round_trip

// Empty if the request went out as it came in but for: one Via of ours above the others, Record-Route lines, received
// and rport in the top Via, Max-Forwards, a Content-Length that was not there, Route lines that name `us`, and a strict
// router's URI in the Request-URI's place.
// Else what is different.
inline std::string unexplained_change(std::string_view original, std::string_view sent, std::string_view us) {
  using namespace round_trip;
  if (body(original) != body(sent)) return "the body";
  const auto before = header_lines(original);
  const auto after = header_lines(sent);
  int vias = 0;
  int changed_vias = 0;
  std::size_t i = 0;
  bool moved = false;  // the request line holds a Route's URI
  for (std::size_t j = 0; j < after.size();) {
    const std::string_view line = after[j];
    if (j == 0 && before[0] != line) {
      moved = true;
      ++i, ++j;
    } else if (moved && i < before.size() && exchanged(before[0], after[0], before[i], line)) {
      moved = false;
      ++i, ++j;
    } else if (i < before.size() && before[i] == line) {
      ++i, ++j;
    } else if (line.starts_with("Via: SIP/2.0/") && line.find(us) != std::string_view::npos && vias == 0) {
      ++vias, ++j;
    } else if (line.starts_with("Record-Route: <sip") && line.find(us) != std::string_view::npos) {
      ++j;
    } else if (line == "Max-Forwards: 70\r\n" && !has_field(before, "max-forwards")) {
      ++j;
    } else if (line.starts_with("Content-Length: ") && !has_field(before, "content-length") &&
               !has_field(before, "l")) {
      ++j;
    } else if (i < before.size() && before[i].starts_with("Route:") && before[i].find(us) != std::string_view::npos) {
      ++i;
    } else if (i < before.size() && counted_down(before[i], line)) {
      ++i, ++j;
    } else if (i < before.size() && changed_vias == 0 && without_received(before[i]) == without_received(line)) {
      ++changed_vias, ++i, ++j;
    } else {
      return "line " + std::to_string(j + 1) + ": " + std::string(line) + "was " +
             (i < before.size() ? std::string(before[i]) : "not there");
    }
  }
  if (i != before.size()) return "gone: " + std::string(before[i]);
  if (moved) return "the request line";
  return vias == 1 ? "" : "no Via of ours";
}

}  // namespace ktrunk::test
