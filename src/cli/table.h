// Table: aligned columns of text for a terminal.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace ktrunk::cli {

class Table {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // One cell for each column. Bytes that could steer a terminal are shown as '?'.
  void add(std::vector<std::string> cells);
  [[nodiscard]] std::size_t rows() const { return rows_.size(); }
  // The titles and the rows, each line behind the indent, without spaces at its end.
  [[nodiscard]] std::string text(std::size_t indent) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// The text with control characters (C0, DEL) replaced by '?'.
[[nodiscard]] std::string printable(std::string text);

}  // namespace ktrunk::cli
