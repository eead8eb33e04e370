#include "config/toml_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "config/config.h"

namespace ktrunk::config {
namespace {

// Levenshtein's distance: how many letters to insert, remove or replace.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, diagonal + 1, row[j] + 1});
    }
  }
  return row.back();
}

// A key near enough that the operator may have meant it; else empty.
std::string_view nearest(std::string_view key, const std::vector<std::string>& known) {
  constexpr std::size_t kLongestKey = 64;  // no key of ours is near a longer one
  if (key.size() > kLongestKey) return {};
  std::string_view best;
  std::size_t best_distance = std::max<std::size_t>(2, key.size() / 3) + 1;
  for (const std::string& candidate : known) {
    const std::size_t distance = edit_distance(key, candidate);
    if (distance < best_distance && distance < candidate.size()) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

bool has_control_character(std::string_view text) {
  return std::ranges::any_of(text, [](unsigned char c) { return c < 0x20 || c == 0x7f; });
}
constexpr std::string_view kControlCharacter = "has a control character; expected printable text";

std::string duration_text(std::chrono::milliseconds duration) {
  const auto count = duration.count();
  if (count != 0 && count % 3'600'000 == 0) return fmt::format("{}h", count / 3'600'000);
  if (count != 0 && count % 60'000 == 0) return fmt::format("{}m", count / 60'000);
  if (count % 1'000 == 0) return fmt::format("{}s", count / 1'000);
  return fmt::format("{}ms", count);
}

}  // namespace

void Problems::add(unsigned line, std::string_view key, std::string what) {
  problems_.push_back({line, fmt::format("key '{}': {}", key, what)});
}

Status Problems::status(std::string_view path) const {
  const auto first = std::ranges::min_element(problems_, {}, &Problem::line);
  if (first == problems_.end()) return {};
  return fail("{}:{}: {}", path, first->line, first->text);
}

TableReader::TableReader(const Node& table, std::string path, Problems& problems)
    : table_(&table), path_(std::move(path)), problems_(&problems) {}

std::string TableReader::full_key(std::string_view key) const {
  return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
}

const Member* TableReader::member(std::string_view key) const {
  const auto found = std::ranges::find(table_->members, key, &Member::key);
  return found == table_->members.end() ? nullptr : &*found;
}

void TableReader::know(std::string_view key) {
  if (std::ranges::find(known_, key) == known_.end()) known_.emplace_back(key);
}

unsigned TableReader::line(std::string_view key) const {
  const Member* found = member(key);
  return found != nullptr ? found->line : table_->line;
}

void TableReader::problem(std::string_view key, std::string what) {
  problems_->add(line(key), full_key(key), std::move(what));
}

void TableReader::missing(std::string_view key, std::string_view expected) {
  problem(key, fmt::format("missing; expected {}", expected));
}

bool TableReader::has(std::string_view key) {
  know(key);
  return member(key) != nullptr;
}

const Node* TableReader::find(std::string_view key, Node::Kind kind, std::string_view expected) {
  know(key);
  const Member* found = member(key);
  if (found == nullptr) return nullptr;
  if (found->value.kind != kind) {
    problem(key, fmt::format("{}; expected {}", kind_name(found->value.kind), expected));
    return nullptr;
  }
  return &found->value;
}

std::string TableReader::text(std::string_view key, std::string_view fallback) {
  const Node* node = find(key, Node::Kind::kString, "a string");
  if (node == nullptr) return std::string(fallback);
  if (node->text.empty()) problem(key, "empty; expected a value, or no such key at all");
  if (has_control_character(node->text)) problem(key, std::string(kControlCharacter));
  return node->text;
}

std::uint32_t TableReader::number(std::string_view key, Range<std::uint32_t> range, std::uint32_t fallback) {
  const std::string expected = fmt::format("an integer of {} to {}", range.lowest, range.highest);
  const Node* node = find(key, Node::Kind::kInteger, expected);
  if (node == nullptr) return fallback;
  if (node->integer < range.lowest || node->integer > range.highest) {
    problem(key, fmt::format("{}; expected {}", node->integer, expected));
    return fallback;
  }
  return static_cast<std::uint32_t>(node->integer);
}

std::chrono::milliseconds TableReader::duration(std::string_view key, Range<std::chrono::milliseconds> range,
                                                std::chrono::milliseconds fallback) {
  const Node* node = find(key, Node::Kind::kString, "a duration as a string, like \"30s\" or \"500ms\"");
  if (node == nullptr) return fallback;
  const auto parsed = parse_duration(node->text);
  if (!parsed) {
    problem(key, parsed.error().what);
    return fallback;
  }
  if (*parsed < range.lowest || *parsed > range.highest) {
    problem(key, fmt::format("'{}'; expected a duration of {} to {}", node->text, duration_text(range.lowest),
                             duration_text(range.highest)));
    return fallback;
  }
  return *parsed;
}

std::vector<TextItem> TableReader::texts(std::string_view key) {
  std::vector<TextItem> result;
  const Node* node = find(key, Node::Kind::kArray, "an array of strings");
  if (node == nullptr) return result;
  for (std::size_t i = 0; i < node->items.size(); ++i) {
    const Node& item = node->items[i];
    TextItem text{item.text, fmt::format("{}[{}]", full_key(key), i), item.line};
    if (item.kind != Node::Kind::kString) {
      problem(text, fmt::format("{}; expected a string", kind_name(item.kind)));
    } else if (has_control_character(item.text)) {
      problem(text, std::string(kControlCharacter));
    } else {
      result.push_back(std::move(text));
    }
  }
  return result;
}

std::vector<TextItem> TableReader::text_or_texts(std::string_view key) {
  const Member* found = member(key);
  if (found != nullptr && found->value.kind == Node::Kind::kArray) {
    if (found->value.items.empty()) problem(key, "an empty array; expected a string, or an array of strings");
    return texts(key);
  }
  if (!has(key)) return {};
  if (found->value.kind != Node::Kind::kString) {
    problem(key, fmt::format("{}; expected a string, or an array of strings", kind_name(found->value.kind)));
    return {};
  }
  const std::string only = text(key);
  if (only.empty()) return {};
  return {{only, full_key(key), line(key)}};
}

std::optional<TableReader> TableReader::inner(std::string_view key) {
  const Node* node = find(key, Node::Kind::kTable, "a table, like { from = \"...\", to = \"...\" }");
  if (node == nullptr) return std::nullopt;
  return TableReader(*node, full_key(key), *problems_);
}

const Node* TableReader::table(std::string_view key) {
  return find(key, Node::Kind::kTable, fmt::format("a table, [{}]", full_key(key)));
}

std::vector<const Node*> TableReader::tables(std::string_view key) {
  std::vector<const Node*> result;
  const std::string expected = fmt::format("tables, each begun by [[{}]]", full_key(key));
  const Node* node = find(key, Node::Kind::kArray, expected);
  if (node == nullptr) return result;
  for (std::size_t i = 0; i < node->items.size(); ++i) {
    const Node& item = node->items[i];
    if (item.kind == Node::Kind::kTable) {
      result.push_back(&item);
    } else {
      problems_->add(item.line, fmt::format("{}[{}]", full_key(key), i),
                     fmt::format("{}; expected {}", kind_name(item.kind), expected));
    }
  }
  return result;
}

std::vector<TableReader> TableReader::readers(std::string_view key) {
  std::vector<TableReader> result;
  for (const Node* node : tables(key))
    result.emplace_back(*node, fmt::format("{}[{}]", full_key(key), result.size()), *problems_);
  return result;
}

void TableReader::finish() {
  for (const Member& entry : table_->members) {
    if (std::ranges::find(known_, entry.key) != known_.end()) continue;
    const std::string_view near = nearest(entry.key, known_);
    problems_->add(entry.line, full_key(entry.key),
                   near.empty() ? fmt::format("unknown key; expected one of {}", fmt::join(known_, ", "))
                                : fmt::format("unknown key; did you mean '{}'?", near));
  }
}

}  // namespace ktrunk::config
