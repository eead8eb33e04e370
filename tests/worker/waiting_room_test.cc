// Messages that wait for a trunk's next connection: their order, their bounds, and that none is lost on the way.
#include "worker/waiting_room.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

namespace ktrunk::worker {
namespace {

constexpr TrunkId kFirst{0}, kSecond{1};

class WaitingRooms : public testing::Test {
 protected:
  static void append(WaitingRoom& room, TrunkId trunk, std::string_view message) {
    std::memcpy(room.reserve(trunk, message.size()), message.data(), message.size());
    room.commit(trunk, message.size());
  }
  void fill(BlockQueue& queue, std::string_view message) {
    BlockPtr block = pool_.take(ipc::Chunk::pack(ConnectionId{SlotIndex{0}, Generation{1}}), message.size());
    ASSERT_NE(block, nullptr);
    std::memcpy(block->chunk.octets, message.data(), message.size());
    block->grow(message.size());
    queue.push_back(std::move(block));
  }
  std::string text_of(BlockQueue& queue) {
    std::string all;
    while (BlockPtr block = queue.pop_front()) {
      all.append(block->chunk.octets, block->bytes);
      pool_.give_back(std::move(block));
    }
    return all;
  }
  std::string take(WaitingRoom& room, TrunkId trunk) {
    BlockQueue queue;
    room.take(trunk, queue);
    return text_of(queue);
  }

  ipc::Estate estate_ = std::move(*ipc::Estate::map(std::move(*ipc::Estate::create())));
  ChunkStore chunks_{estate_};
  BlockPool pool_{chunks_, 4};
};

TEST_F(WaitingRooms, WhatWasQueuedBeforeGoesFirst) {
  WaitingRoom room(pool_, 2, 1000);
  EXPECT_TRUE(room.empty());
  append(room, kFirst, "c");
  append(room, kFirst, "d");
  BlockQueue unsent;
  fill(unsent, "a");
  fill(unsent, "b");
  room.put_in_front(kFirst, unsent);
  EXPECT_TRUE(unsent.empty());
  append(room, kFirst, "e");
  fill(unsent, "0");  // the send of another came to nothing in the end
  room.put_in_front(kFirst, unsent);
  append(room, kSecond, "x");
  EXPECT_TRUE(room.holds(kFirst));
  EXPECT_EQ(take(room, kFirst), "0abcde");
  EXPECT_FALSE(room.holds(kFirst));
  EXPECT_FALSE(room.empty());
  EXPECT_EQ(take(room, kSecond), "x");
  EXPECT_TRUE(room.empty());
  EXPECT_EQ(take(room, kSecond), "");
}

TEST_F(WaitingRooms, ASuccessorFindsWhatWaits) {
  {
    WaitingRoom room(pool_, 2, 100'000);
    append(room, kSecond, "b");
    BlockQueue unsent;
    fill(unsent, "a");
    room.put_in_front(kSecond, unsent);
    append(room, kFirst, std::string(20'000, 'c'));
  }
  ChunkStore chunks(estate_);
  BlockPool pool(chunks, 4);
  WaitingRoom room(pool, 2, 100'000);
  for (const ChunkRef& chunk : chunks.take_inherited()) room.inherit(chunk.head->trunk(), pool.adopt(chunk));
  BlockQueue queue;
  room.take(kSecond, queue);
  ASSERT_FALSE(queue.empty());
  EXPECT_EQ(queue.front()->bytes + queue.back()->bytes, 2U);
  EXPECT_EQ(take(room, kFirst), std::string(20'000, 'c'));
  EXPECT_TRUE(room.empty());
}

TEST_F(WaitingRooms, HasTheBoundsOfAQueue) {
  WaitingRoom room(pool_, 2, 1000);
  EXPECT_TRUE(room.has_room(kFirst, 1000));
  EXPECT_FALSE(room.has_room(kFirst, 1001));
  append(room, kFirst, std::string(600, 'a'));
  EXPECT_TRUE(room.has_room(kFirst, 400));
  EXPECT_FALSE(room.has_room(kFirst, 401));
  EXPECT_TRUE(room.has_room_for_response(kFirst, 1400));
  EXPECT_FALSE(room.has_room_for_response(kFirst, 1401));
  EXPECT_TRUE(room.has_room(kSecond, 1000)) << "each trunk has its own";
  BlockQueue unsent;
  fill(unsent, std::string(5000, 'b'));
  room.put_in_front(kFirst, unsent);  // was within the bounds of its connection
  EXPECT_FALSE(room.has_room_for_response(kFirst, 1));
  EXPECT_EQ(take(room, kFirst).size(), 5600u);
  EXPECT_TRUE(room.has_room(kFirst, 1000));
}

TEST_F(WaitingRooms, MessagesOfEveryLength) {
  WaitingRoom room(pool_, 1, 1 << 20);
  std::string all;
  for (const std::size_t bytes : {1u, 2u, 16'000u, 400u, 16'384u, 16'385u, 65'535u, 1u, 10'000u, 10'000u}) {
    const std::string message(bytes, static_cast<char>('a' + all.size() % 26));
    append(room, kFirst, message);
    all += message;
  }
  BlockQueue queue;
  room.take(kFirst, queue);
  for (const Block* block = queue.front(); block != nullptr; block = block->next.get()) {
    EXPECT_TRUE(block->bytes <= ipc::kRecordBytes || block->messages == 1) << "a longer one is alone";
  }
  EXPECT_EQ(text_of(queue), all);
}

TEST_F(WaitingRooms, EveryTrunkIsGoneThrough) {
  WaitingRoom room(pool_, 4, 1000);
  for (const TrunkId trunk : {TrunkId{1}, TrunkId{3}}) append(room, trunk, "x");
  std::string seen;
  room.for_each([&](TrunkId trunk) {
    seen += std::to_string(trunk.value);
    (void)take(room, trunk);
  });
  EXPECT_EQ(seen, "13");
  EXPECT_TRUE(room.empty());
}

}  // namespace
}  // namespace ktrunk::worker
