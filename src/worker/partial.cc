#include "worker/partial.h"

#include <algorithm>
#include <utility>

#include "sip/octets.h"

namespace ktrunk::worker {

using Extent = ipc::Chunk::Extent;
using Progress = ipc::Chunk::Progress;

std::uint32_t Partials::dealt_with(const Connection& connection) {
  return connection.partial.valid() ? connection.partial.head->progress().octets : 0;
}

std::string_view Partials::octets(const Connection& connection) {
  if (!connection.partial.valid()) return {};
  const std::uint32_t begin = dealt_with(connection);
  return {connection.partial.octets + begin, connection.partial.head->extent().octets - begin};
}

bool Partials::has_those_of(const Connection& connection, std::uint32_t number) {
  return connection.partial.valid() && connection.partial.head->extent().octets != 0 &&
         connection.partial.head->extent().count == number;
}

bool Partials::append(Connection& connection, std::string_view octets, std::uint32_t number) {
  const std::string_view before = Partials::octets(connection);
  const auto old = connection.partial;
  const std::uint32_t end = old.valid() ? old.head->extent().octets : 0;
  if (!old.valid() || end + octets.size() > old.capacity) {
    // In a new chunk, without what has been dealt with; the old one is there until the new one has everything.
    const std::size_t bytes = before.size() + octets.size();
    const ChunkRef chunk = chunks_.take(ipc::Chunk::pack(connection.id), ipc::ChunkUse::kPartial,
                                        old.valid() ? std::max(bytes, 2 * before.size()) : bytes);
    if (!chunk.valid()) return false;
    sip::copy_octets(chunk.octets, before.data(), before.size());
    sip::copy_octets(chunk.octets + before.size(), octets.data(), octets.size());
    chunk.head->set(Extent{.octets = static_cast<std::uint32_t>(bytes), .count = number});
    connection.partial = chunk;
    if (old.valid()) chunks_.give_back(old);
    return true;
  }
  sip::copy_octets(old.octets + end, octets.data(), octets.size());
  old.head->set(Extent{.octets = end + static_cast<std::uint32_t>(octets.size()), .count = number});
  return true;
}

void Partials::deal_with(Connection& connection, std::uint32_t octets) {
  connection.partial.head->set(Progress{.octets = octets});
  if (octets == connection.partial.head->extent().octets) emptied_.push_back(&connection);
}

void Partials::settle() {
  for (Connection* connection : emptied_) {
    if (octets(*connection).empty() && connection->partial.valid())
      chunks_.give_back(std::exchange(connection->partial, {}));
  }
  emptied_.clear();
}

void Partials::drop(Connection& connection) {
  std::erase(emptied_, &connection);
  if (connection.partial.valid()) chunks_.give_back(std::exchange(connection.partial, {}));
}

}  // namespace ktrunk::worker
