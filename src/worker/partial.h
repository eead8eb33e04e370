// Partial: the octets of a connection that were received and could not be framed yet, in a chunk of the estate, where a
// successor finds them.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "worker/chunk_store.h"
#include "worker/connection.h"

namespace ktrunk::worker {

class Partials {
 public:
  explicit Partials(ChunkStore& chunks) : chunks_(chunks) {}

  // What the connection has; empty when there is nothing.
  [[nodiscard]] static std::string_view octets(const Connection& connection);
  // Adds what a completion brought. False: there is no room left in the estate.
  [[nodiscard]] bool append(Connection& connection, std::string_view octets, std::uint32_t number);
  // A completion of that number has brought the last octets that are there.
  [[nodiscard]] static bool has_those_of(const Connection& connection, std::uint32_t number);
  // So many octets at the front, of all that there ever were, have been dealt with. When these are all, the chunk stays
  // until the completion that brought the last of them has been seen: settle().
  void deal_with(Connection& connection, std::uint32_t octets);
  // All completions so far have been seen: an idle connection keeps nothing.
  void settle();
  // How many that were until now.
  [[nodiscard]] static std::uint32_t dealt_with(const Connection& connection);
  void drop(Connection& connection);

 private:
  ChunkStore& chunks_;
  std::vector<Connection*> emptied_;
};

}  // namespace ktrunk::worker
