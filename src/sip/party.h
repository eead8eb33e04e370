// Party: From or To (RFC 3261 20.20, 20.39) as far as a proxy looks: whether it is sound, and its tag. Pure.
#pragma once

#include <string_view>

namespace ktrunk::sip {

struct Party {
  bool sound = false;
  bool has_tag = false;
  std::string_view tag;  // the first one there is; a view into the value
};

// value: trimmed.
[[nodiscard]] Party read_party(std::string_view value);
// The same, step by step. What read_party() tells of most values at one glance is what this tells.
[[nodiscard]] Party read_party_closely(std::string_view value);

}  // namespace ktrunk::sip
