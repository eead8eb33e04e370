// Quarantine: messages over which a worker died, kept in files for whoever looks into it. Such a message is not handled
// again. Bounded in number and size; the oldest go first.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace ktrunk::supervisor {

class Quarantine {
 public:
  static constexpr std::size_t kMostFiles = 64;

  // folder: made when it is first needed, readable by its owner alone.
  explicit Quarantine(std::string folder) : folder_(std::move(folder)) {}

  // The message exactly as it came, in a file of its own, whose path is returned. who: part of the file's name.
  [[nodiscard]] Result<std::string> keep(std::string_view message, std::string_view who);

 private:
  void make_room() const;

  std::string folder_;
  std::uint64_t kept_ = 0;
};

}  // namespace ktrunk::supervisor
