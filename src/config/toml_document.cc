#include "config/toml_document.h"

#include <toml++/toml.h>

#include <utility>

namespace ktrunk::config {
namespace {

constexpr unsigned kMaxDepth = 8;  // deeper than any table of ours; bounds the recursion below

Node to_node(const toml::node& from, unsigned depth);

void fill_table(Node& node, const toml::table& from, unsigned depth) {
  node.kind = Node::Kind::kTable;
  if (depth >= kMaxDepth) return;
  node.members.reserve(from.size());
  for (const auto& [key, value] : from)
    node.members.push_back({std::string(key.str()), key.source().begin.line, to_node(value, depth + 1)});
}

void fill_array(Node& node, const toml::array& from, unsigned depth) {
  node.kind = Node::Kind::kArray;
  if (depth >= kMaxDepth) return;
  node.items.reserve(from.size());
  for (const toml::node& item : from) node.items.push_back(to_node(item, depth + 1));
}

Node to_node(const toml::node& from, unsigned depth) {
  Node node;
  node.line = from.source().begin.line;
  if (const toml::table* table = from.as_table()) {
    fill_table(node, *table, depth);
  } else if (const toml::array* array = from.as_array()) {
    fill_array(node, *array, depth);
  } else if (const auto* text = from.as_string()) {
    node.kind = Node::Kind::kString;
    node.text = text->get();
  } else if (const auto* integer = from.as_integer()) {
    node.kind = Node::Kind::kInteger;
    node.integer = integer->get();
  } else if (from.is_floating_point()) {
    node.kind = Node::Kind::kFloat;
  } else if (from.is_boolean()) {
    node.kind = Node::Kind::kBoolean;
  } else {
    node.kind = Node::Kind::kDate;
  }
  return node;
}

}  // namespace

std::string_view kind_name(Node::Kind kind) {
  switch (kind) {
    case Node::Kind::kString:
      return "a string";
    case Node::Kind::kInteger:
      return "an integer";
    case Node::Kind::kFloat:
      return "a floating-point number";
    case Node::Kind::kBoolean:
      return "a boolean";
    case Node::Kind::kDate:
      return "a date or time";
    case Node::Kind::kArray:
      return "an array";
    case Node::Kind::kTable:
      return "a table";
  }
  std::unreachable();
}

// The library reports by exception; its mode without goes on after some errors and then fails its own assertions. The
// exception ends here.
Result<Node> parse_toml(std::string_view text, std::string_view path) {
  try {
    const toml::table document = toml::parse(text, path);
    Node root;
    root.line = 1;
    fill_table(root, document, 0);
    return root;
  } catch (const toml::parse_error& error) {
    return fail("{}:{}: not TOML (column {}): {}", path, error.source().begin.line, error.source().begin.column,
                error.description());
  }
}

}  // namespace ktrunk::config
