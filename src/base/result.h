// Errors are values: Result<T> is T or an Error that says, in words an operator can act on, what failed and why.
// "Need more" and "would block" are outcomes and have their own types; exceptions are for bugs and out-of-memory.
#pragma once

#include <fmt/core.h>

#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace ktrunk {

struct Error {
  std::string what;  // what failed and what to do, complete sentences not needed
  int code = 0;      // errno where the kernel said no, else 0
};

template <typename T>
using Result = std::expected<T, Error>;
using Status = std::expected<void, Error>;

// An Error in the words of a format string.
template <typename... Args>
[[nodiscard]] std::unexpected<Error> fail(fmt::format_string<Args...> format, Args&&... args) {
  return std::unexpected(Error{fmt::format(format, std::forward<Args>(args)...), 0});
}

// "what: strerror(code)", with the code kept. Call it before anything that may change errno.
[[nodiscard]] std::unexpected<Error> fail_errno(int code, std::string_view what);

// The name of an errno value and its text, "EPIPE (Broken pipe)".
[[nodiscard]] std::string errno_text(int code);

}  // namespace ktrunk
