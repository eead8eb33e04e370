#include "base/result.h"

#include <cstring>

namespace ktrunk {

std::string errno_text(int code) {
  const char* name = ::strerrorname_np(code);
  const char* text = ::strerrordesc_np(code);
  return fmt::format("{} ({})", name != nullptr ? name : "E?", text != nullptr ? text : "unknown error");
}

std::unexpected<Error> fail_errno(int code, std::string_view what) {
  return std::unexpected(Error{fmt::format("{}: {}", what, errno_text(code)), code});
}

}  // namespace ktrunk
