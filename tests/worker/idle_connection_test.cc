// What a connection costs in a worker when nothing happens on it: its own size, and no other memory.
#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/eventfd.h>

#include <vector>

#include "worker/connection.h"

namespace ktrunk::worker {
namespace {

constexpr std::size_t kMost = 400;  // octets

TEST(IdleConnection, IsSmall) {
  RecordProperty("octets", static_cast<int>(sizeof(Connection)));
  EXPECT_LT(sizeof(Connection), kMost);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // their allocators count otherwise
TEST(IdleConnection, HasNoOtherMemory) {
  constexpr std::size_t kCount = 1000;
  ipc::ConnectionSlot slot;
  std::vector<std::unique_ptr<Connection>> connections;
  connections.reserve(kCount);
  const std::size_t before = ::mallinfo2().uordblks;
  for (std::uint32_t i = 0; i < kCount; ++i)
    connections.push_back(
        std::make_unique<Connection>(ConnectionId{SlotIndex{i}, Generation{1}}, Fd(), slot, std::size_t{65535}));
  const std::size_t each = (::mallinfo2().uordblks - before) / kCount;
  RecordProperty("heap_octets", static_cast<int>(each));
  EXPECT_LT(each, kMost);
  EXPECT_LE(each, sizeof(Connection) + 32);
}
#endif

BlockPtr numbered(std::uint32_t number) {
  auto block = std::make_unique<Block>();
  block->messages = number;
  return block;
}

TEST(BlockQueue, KeepsTheOrder) {
  BlockQueue queue;
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.pop_front(), nullptr);
  for (std::uint32_t turn = 0; turn < 3; ++turn) {
    for (std::uint32_t i = 0; i < 5; ++i) {
      queue.push_back(numbered(i));
      EXPECT_EQ(queue.back()->messages, i);
    }
    for (std::uint32_t i = 0; i < 5; ++i) EXPECT_EQ(queue.pop_front()->messages, i);
    EXPECT_TRUE(queue.empty());
    EXPECT_EQ(queue.back(), nullptr);
  }
}

TEST(BlockQueue, TakesOutAnyOne) {
  for (std::uint32_t out = 0; out < 4; ++out) {
    BlockQueue queue;
    Block* before = nullptr;
    for (std::uint32_t i = 0; i < 4; ++i) {
      queue.push_back(numbered(i));
      if (i + 1 == out) before = queue.back();
    }
    EXPECT_EQ(queue.pop_after(before)->messages, out);
    EXPECT_EQ(queue.back()->messages, out == 3 ? 2u : 3u);
    queue.push_back(numbered(4));
    for (std::uint32_t i = 0; i <= 4; ++i) {
      if (i == out) continue;
      EXPECT_EQ(queue.pop_front()->messages, i);
    }
    EXPECT_TRUE(queue.empty());
  }
}

TEST(BlockQueue, AVeryLongOneGoesWithoutRecursion) {
  BlockQueue queue;
  for (std::uint32_t i = 0; i < 1'000'000; ++i) queue.push_back(numbered(i));
  EXPECT_EQ(queue.pop_after(queue.back()), nullptr);
}

}  // namespace
}  // namespace ktrunk::worker
