// A TOML text as a tree of plain nodes with line numbers (TOML 1.0). Private to config/: the TOML library is included
// by toml_document.cc alone.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace ktrunk::config {

struct Member;

// One value. Owns what is below it.
struct Node {
  enum class Kind : std::uint8_t { kString, kInteger, kFloat, kBoolean, kDate, kArray, kTable };

  Kind kind = Kind::kTable;
  unsigned line = 0;            // counted from 1
  std::string text;             // kString
  std::int64_t integer = 0;     // kInteger
  std::vector<Node> items;      // kArray
  std::vector<Member> members;  // kTable, in the order of the keys' bytes
};

struct Member {
  std::string key;
  unsigned line = 0;  // of the key
  Node value;
};

// "a string", "an integer", ...: for messages.
[[nodiscard]] std::string_view kind_name(Node::Kind kind);

// The root table. The error has the form "PATH:LINE: ...".
[[nodiscard]] Result<Node> parse_toml(std::string_view text, std::string_view path);

}  // namespace ktrunk::config
