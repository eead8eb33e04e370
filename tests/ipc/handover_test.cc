// Messages from one worker to another: what comes out is what went in, and what a death leaves of it.
#include "ipc/handover.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "ipc/estate.h"
#include "ipc/shared_region.h"

namespace ktrunk::ipc {
namespace {

constexpr WorkerIndex kProducer{0};
constexpr WorkerIndex kConsumer{1};
const HandoverSource kSource{.connection = {SlotIndex{7}, Generation{3}},
                             .trunk = TrunkId{2},
                             .listener = ListenerId{1},
                             .transport = config::Transport::kTcp,
                             .remote = {}};

std::string octets_of(std::mt19937& random, std::size_t most) {
  std::string octets(random() % most, '\0');
  for (char& octet : octets) octet = static_cast<char>(random());
  return octets;
}

TEST(Handover, GivesInOrderWhatWasPut) {
  const auto handover = std::make_unique<Handover>();
  const std::size_t messages = 20'000;
  std::jthread producer([&] {
    std::mt19937 random(1);
    std::uint32_t seen = 0;
    for (std::size_t i = 0; i < messages; ++i) {
      const std::string octets = octets_of(random, i % 100 == 0 ? Handover::kMostOctets : 900);
      auto tail = handover->plan(octets.size(), seen);
      while (!tail) {
        std::this_thread::yield();
        tail = handover->plan(octets.size(), seen);
      }
      handover->put(*tail, kSource, octets);
    }
  });
  std::mt19937 random(1);
  for (std::size_t i = 0; i < messages; ++i) {
    Handover::Message message;
    while (handover->look(message) == Handover::Look::kEmpty) std::this_thread::yield();
    ASSERT_EQ(message.octets, octets_of(random, i % 100 == 0 ? Handover::kMostOctets : 900)) << i;
    ASSERT_EQ(message.source.connection, kSource.connection);
    ASSERT_EQ(message.source.trunk, kSource.trunk);
    ASSERT_EQ(handover->octets(message.place, message.octets.size()), message.octets);
    handover->move_head(message.next);
  }
  EXPECT_TRUE(handover->empty());
}

TEST(Handover, HasRoomForTheLongestMessageWheneverItIsEmpty) {
  const auto handover = std::make_unique<Handover>();
  std::uint32_t seen = 0;
  for (std::size_t i = 0; i < 5000; ++i) {
    const std::string longest(i % 2 == 0 ? Handover::kMostOctets : i % 700, 'x');
    const auto tail = handover->plan(longest.size(), seen);
    ASSERT_TRUE(tail) << i;
    handover->put(*tail, kSource, longest);
    Handover::Message message;
    ASSERT_EQ(handover->look(message), Handover::Look::kMessage);
    ASSERT_EQ(message.octets.size(), longest.size());
    handover->move_head(message.next);
  }
  EXPECT_FALSE(handover->plan(Handover::kMostOctets + 1, seen));
}

TEST(Handover, NonsenseIsSkippedAndNothingBeyondTheRingIsRead) {
  std::mt19937 random(std::random_device{}());
  for (int turn = 0; turn < 300; ++turn) {
    const auto handover = std::make_unique<Handover>();
    std::uint32_t seen = 0;
    for (int i = 0; i < 20; ++i) handover->put(*handover->plan(100, seen), kSource, std::string(100, 'x'));
    auto* raw = reinterpret_cast<std::uint32_t*>(handover.get());
    for (int i = 0; i < 40; ++i) raw[random() % 900] = random() % 3 == 0 ? 64 : static_cast<std::uint32_t>(random());
    Handover::Message message;
    for (int i = 0; i < 5000; ++i) {
      const auto looked = handover->look(message);
      if (looked != Handover::Look::kMessage) break;
      const auto* begin = reinterpret_cast<const char*>(handover.get());
      ASSERT_GE(message.octets.data(), begin);
      ASSERT_LE(message.octets.data() + message.octets.size(), begin + sizeof(Handover));
      handover->move_head(message.next);
    }
  }
}

class HandoverDeath : public testing::Test {
 protected:
  SharedRegion region_{std::move(*SharedRegion::create({.workers = 2, .max_connections = 8, .trunks = 1}))};
  Estate estate_{std::move(*Estate::map(std::move(*Estate::create())))};
  Handover& ring_ = region_.handovers().between(kProducer, kConsumer);
  std::uint32_t seen_ = 0;
};

// A home worker that has named the message that it hands over.
TEST_F(HandoverDeath, OfTheProducerBeforeItPublishes) {
  const auto tail = ring_.plan(6, seen_);
  Hand& hand = estate_.hand();
  hand.place = estate_.place_of(estate_.stream_buffers().data());
  hand.progress = std::uint64_t{4} << 32 | 6;
  hand.handing = (std::uint64_t{kConsumer.value} + 1) << 32 | *tail;
  hand.message = std::uint64_t{12} << 32 | 6;
  EXPECT_FALSE(estate_.repair(nullptr, region_.handovers(), kProducer)) << "nobody died over it";
  EXPECT_TRUE(ring_.empty());
}

TEST_F(HandoverDeath, OfTheProducerAfterItPublished) {
  // In a partial chunk, whose progress tells where a successor goes on.
  const ChunkArea area = estate_.small();
  *area.used = 1;
  Chunk& chunk = area.heads[0];
  chunk.use = ChunkUse::kPartial;
  chunk.set(Chunk::Extent{.octets = 18, .count = 1});
  chunk.set(Chunk::Progress{.octets = 6});
  chunk.owner = Chunk::pack(kSource.connection);
  const auto tail = ring_.plan(6, seen_);
  Hand& hand = estate_.hand();
  hand.partial = 1;
  hand.place = estate_.place_of(area.octets(0));
  hand.handing = (std::uint64_t{kConsumer.value} + 1) << 32 | *tail;
  hand.message = std::uint64_t{12} << 32 | 6;
  ring_.put(*tail, kSource, "second");
  EXPECT_FALSE(estate_.repair(nullptr, region_.handovers(), kProducer));
  EXPECT_EQ(chunk.progress().octets, 12U) << "it is the other worker's now";
  EXPECT_FALSE(ring_.empty());
}

TEST_F(HandoverDeath, OfTheConsumer) {
  for (const char* octets : {"first", "second", "third"})
    ring_.put(*ring_.plan(std::strlen(octets), seen_), kSource, octets);
  Handover::Message message;
  const auto take_in_hand = [&] {
    ASSERT_EQ(ring_.look(message), Handover::Look::kMessage);
    Hand& hand = estate_.hand();
    hand.connection = Chunk::pack(message.source.connection);
    hand.place = message.place;
    hand.next_head = message.next;
    hand.partial = Hand::kHandedOver | kProducer.value;
    hand.message = std::uint64_t{message.octets.size()} << 32 | message.octets.size();
  };
  take_in_hand();
  const auto in_hand = estate_.repair(nullptr, region_.handovers(), kConsumer);
  ASSERT_TRUE(in_hand);
  EXPECT_EQ(in_hand->octets, "first");
  EXPECT_EQ(in_hand->connection, kSource.connection);
  take_in_hand();
  EXPECT_EQ(message.octets, "second");
  ring_.move_head(message.next);
  EXPECT_FALSE(estate_.repair(nullptr, region_.handovers(), kConsumer)) << "it had been handled";
  ASSERT_EQ(ring_.look(message), Handover::Look::kMessage);
  EXPECT_EQ(message.octets, "third");
  region_.handovers().clear(kConsumer);
  EXPECT_EQ(ring_.look(message), Handover::Look::kEmpty);
}

}  // namespace
}  // namespace ktrunk::ipc
