// TableReader: typed access to one TOML table, which remembers every key asked for, so that a key nobody asked for is
// reported with the nearest one that somebody did. Private to config/.
#pragma once

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "config/toml_document.h"

namespace ktrunk::config {

// What is wrong with a text, gathered while reading goes on.
class Problems {
 public:
  void add(unsigned line, std::string_view key, std::string what);
  // The first by line, and of one line the first reported, as "PATH:LINE: key 'KEY': WHAT"; success when there is none.
  [[nodiscard]] Status status(std::string_view path) const;

 private:
  struct Problem {
    unsigned line;
    std::string text;
  };
  std::vector<Problem> problems_;
};

template <typename Number>
struct Range {
  Number lowest;
  Number highest;
};

struct TextItem {
  std::string text;
  std::string key;  // "trunk[0].targets[1]"
  unsigned line = 0;
};

// Borrows the node and the problems; both must outlive it. A value of the wrong type or out of range is reported and
// the fallback returned, so that reading goes on. Each function may be called once per key or more often.
class TableReader {
 public:
  TableReader(const Node& table, std::string path, Problems& problems);

  [[nodiscard]] bool has(std::string_view key);
  [[nodiscard]] std::string text(std::string_view key, std::string_view fallback = {});
  [[nodiscard]] std::uint32_t number(std::string_view key, Range<std::uint32_t> range, std::uint32_t fallback);
  [[nodiscard]] std::chrono::milliseconds duration(std::string_view key, Range<std::chrono::milliseconds> range,
                                                   std::chrono::milliseconds fallback);
  // An array of strings; empty when the key is not there.
  [[nodiscard]] std::vector<TextItem> texts(std::string_view key);
  // A string, or an array of strings; a lone string's item has the key itself for its key.
  [[nodiscard]] std::vector<TextItem> text_or_texts(std::string_view key);
  // [key] and [[key]]: a table or none; tables or none.
  [[nodiscard]] const Node* table(std::string_view key);
  [[nodiscard]] std::vector<const Node*> tables(std::string_view key);

  // The same, each with a reader of its own, which may outlive this one.
  [[nodiscard]] std::vector<TableReader> readers(std::string_view key);
  // One for a table like key = { a = "b" }; none when it is not there.
  [[nodiscard]] std::optional<TableReader> inner(std::string_view key);

  // One of a few words.
  template <typename Value>
  [[nodiscard]] Value choice(std::string_view key, std::initializer_list<std::pair<std::string_view, Value>> words,
                             Value fallback) {
    if (!has(key)) return fallback;
    const Node* node = find(key, Node::Kind::kString, one_of(words));
    if (node == nullptr) return fallback;
    for (const auto& [word, value] : words)
      if (word == node->text) return value;
    problem(key, fmt::format("'{}'; expected {}", node->text, one_of(words)));
    return fallback;
  }

  // Reports a problem with a key of this table: at its line, or at the table's when the key is missing.
  void problem(std::string_view key, std::string what);
  void problem(const TextItem& item, std::string what) { problems_->add(item.line, item.key, std::move(what)); }
  void missing(std::string_view key, std::string_view expected);
  // Reports every key that no call has asked for.
  void finish();

  [[nodiscard]] unsigned line(std::string_view key) const;
  [[nodiscard]] std::string full_key(std::string_view key) const;

 private:
  template <typename Value>
  static std::string one_of(std::initializer_list<std::pair<std::string_view, Value>> words) {
    std::string list;
    std::size_t left = words.size();
    for (const auto& [word, value] : words) {
      --left;
      list += fmt::format("\"{}\"{}", word, left > 1 ? ", " : left == 1 ? " or " : "");
    }
    return list;
  }
  [[nodiscard]] const Member* member(std::string_view key) const;
  // The value if it is there and of the kind; a wrong kind is reported.
  [[nodiscard]] const Node* find(std::string_view key, Node::Kind kind, std::string_view expected);
  void know(std::string_view key);

  const Node* table_;
  std::string path_;
  Problems* problems_;
  std::vector<std::string> known_;
};

}  // namespace ktrunk::config
