// UserPattern: a regular expression (RE2's syntax) that a whole user part must match. Compiled once; matching takes
// time linear in the text's length, whatever the expression. The only place that knows RE2.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "base/result.h"

namespace re2 {
class RE2;
}

namespace ktrunk::config {

class UserPattern {
 public:
  static constexpr std::size_t kMaxLength = 1024;  // of the expression

  // The error says what is wrong with the expression.
  [[nodiscard]] static Result<UserPattern> compile(std::string_view expression);

  UserPattern(UserPattern&&) noexcept;
  UserPattern& operator=(UserPattern&&) noexcept;
  ~UserPattern();

  // RE2 makes the states of its automaton as texts need them, within a fixed amount of memory: a text like earlier ones
  // allocates nothing.
  [[nodiscard]] bool matches(std::string_view text) const;

 private:
  explicit UserPattern(std::unique_ptr<re2::RE2> compiled);
  std::unique_ptr<re2::RE2> compiled_;
};

}  // namespace ktrunk::config
