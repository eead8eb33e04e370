// The client's side of ktrunkd's control socket: a Unix stream socket that takes one line of JSON and answers with one
// JSON document, ended by the end of the stream. The ktrunk command and the tests use it.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace ktrunk::cli {

inline constexpr std::chrono::milliseconds kControlTimeout{5'000};    // for the whole exchange
inline constexpr std::chrono::milliseconds kReloadTimeout{15'000};    // ktrunkd gives its processes 10 s
inline constexpr std::chrono::milliseconds kUpgradeTimeout{300'000};  // each process is waited for in its turn

// Sends {"command": command} and returns the answer's text, which is valid JSON. Errors say what an operator can do;
// their code is the errno of a failed call. An answer of the form {"error": "..."} is an error too.
[[nodiscard]] Result<nlohmann::ordered_json> ask(const std::string& socket_path, std::string_view command,
                                                 std::chrono::milliseconds timeout = kControlTimeout);

// Waits until the process has ended, as long as that takes; success too if there is none.
[[nodiscard]] Status wait_for_end(pid_t pid);

}  // namespace ktrunk::cli
