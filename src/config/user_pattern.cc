#include "config/user_pattern.h"

// RE2's header does without the warnings that we compile with.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wold-style-cast"
#pragma GCC diagnostic ignored "-Wshadow"
#include <re2/re2.h>
#pragma GCC diagnostic pop

namespace ktrunk::config {

UserPattern::UserPattern(std::unique_ptr<re2::RE2> compiled) : compiled_(std::move(compiled)) {}
UserPattern::UserPattern(UserPattern&&) noexcept = default;
UserPattern& UserPattern::operator=(UserPattern&&) noexcept = default;
UserPattern::~UserPattern() = default;

Result<UserPattern> UserPattern::compile(std::string_view expression) {
  constexpr std::int64_t kMaxMemory = 256 << 10;  // program and states, of one expression
  if (expression.size() > kMaxLength)
    return fail("{} characters long; expected at most {}", expression.size(), kMaxLength);
  RE2::Options options;
  options.set_log_errors(false);
  options.set_never_capture(true);
  options.set_max_mem(kMaxMemory);
  auto compiled = std::make_unique<re2::RE2>(re2::StringPiece(expression.data(), expression.size()), options);
  if (!compiled->ok()) return fail("'{}': {}", expression, compiled->error());
  return UserPattern(std::move(compiled));
}

bool UserPattern::matches(std::string_view text) const {
  return re2::RE2::FullMatch(re2::StringPiece(text.data(), text.size()), *compiled_);
}

}  // namespace ktrunk::config
