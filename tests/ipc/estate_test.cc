// The estate after a death: what the supervisor makes of what a worker was doing.
#include "ipc/estate.h"

#include <gtest/gtest.h>
#include <liburing.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>

namespace ktrunk::ipc {
namespace {

constexpr ConnectionId kConnection{SlotIndex{7}, Generation{3}};

Estate new_estate() { return std::move(*Estate::map(std::move(*Estate::create()))); }

// A message at `begin` of the octets at `place`, as a worker names it before it handles it.
void take_in_hand(const Estate& estate, const void* place, std::uint32_t number, std::uint32_t begin,
                  std::uint32_t length) {
  Hand& hand = estate.hand();
  hand.connection = Chunk::pack(kConnection);
  hand.partial = 0;
  hand.place = estate.place_of(place);
  hand.progress = std::uint64_t{number} << 32 | begin;
  hand.message = std::uint64_t{begin + length} << 32 | length;
}

// A ring whose user has died with `count` completions unseen: no-ops, marked with their place.
struct DeadRing {
  explicit DeadRing(unsigned seen, unsigned count) : ring(std::move(*make_worker_ring(64, 128))) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      io_uring user{};
      io_uring_params parameters = ring.parameters;
      if (io_uring_queue_mmap(ring.fd.get(), &parameters, &user) != 0) ::_exit(1);
      for (unsigned i = 0; i < parameters.sq_entries; ++i) user.sq.array[i] = i;
      if (io_uring_register(static_cast<unsigned>(ring.fd.get()), IORING_REGISTER_ENABLE_RINGS, nullptr, 0) < 0)
        ::_exit(2);
      for (unsigned i = 0; i < seen + count; ++i) {
        io_uring_sqe* sqe = io_uring_get_sqe(&user);
        io_uring_prep_nop(sqe);
        io_uring_sqe_set_data64(sqe, 100 + i);
      }
      if (io_uring_submit(&user) != static_cast<int>(seen + count)) ::_exit(3);
      io_uring_cq_advance(&user, seen);
      ::raise(SIGKILL);
    }
    int status = 0;
    EXPECT_EQ(::waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFSIGNALED(status)) << status;
  }
  WorkerRing ring;
};

TEST(Estate, AnotherSizeOrLayoutIsRefused) {
  EXPECT_FALSE(Estate::map(Fd(::memfd_create("other", 0))));
  auto memory = Estate::create();
  const std::uint64_t other = 1;
  ASSERT_EQ(::pwrite(memory->get(), &other, sizeof other, 0), 8);
  EXPECT_FALSE(Estate::map(std::move(*memory)));
}

TEST(Estate, WhatADeadWorkerHadNotSeenIsInherited) {
  Estate estate = new_estate();
  DeadRing first(3, 5);
  const auto unseen = UnseenCompletions::look(first.ring);
  ASSERT_TRUE(unseen) << unseen.error().what;
  EXPECT_FALSE(estate.repair(&*unseen));
  auto inherited = estate.inherited();
  ASSERT_EQ(inherited.size(), 5U);
  for (unsigned i = 0; i < 5; ++i) {
    EXPECT_EQ(inherited[i].user_data, 103 + i);
    EXPECT_EQ(inherited[i].number, 3 + i);
  }
  EXPECT_EQ(estate.first_number(), 8U) << "numbers go on through all lives";
  // Its successor deals with some, and dies in its turn.
  inherited[0].done = 1;
  inherited[2].done = 1;
  DeadRing second(0, 1);
  const auto more = UnseenCompletions::look(second.ring);
  ASSERT_TRUE(more);
  EXPECT_FALSE(estate.repair(&*more));
  inherited = estate.inherited();
  ASSERT_EQ(inherited.size(), 4U);
  EXPECT_EQ(inherited[0].number, 4U);
  EXPECT_EQ(inherited[1].number, 6U);
  EXPECT_EQ(inherited[2].number, 7U);
  EXPECT_EQ(inherited[3].number, 8U);
  EXPECT_EQ(inherited[3].user_data, 100U);
  EXPECT_EQ(estate.first_number(), 9U);
}

TEST(Estate, TheMessageInHandIsGivenOutAndSteppedOver) {
  Estate estate = new_estate();
  std::memcpy(estate.stream_buffers().data() + 64, "first second third", 18);
  take_in_hand(estate, estate.stream_buffers().data() + 64, 4, 6, 6);
  DeadRing dead(4, 2);
  const auto unseen = UnseenCompletions::look(dead.ring);
  ASSERT_TRUE(unseen);
  const auto in_hand = estate.repair(&*unseen);
  ASSERT_TRUE(in_hand);
  EXPECT_EQ(in_hand->octets, "second");
  EXPECT_EQ(in_hand->connection, kConnection);
  ASSERT_EQ(estate.inherited().size(), 2U);
  EXPECT_EQ(estate.inherited()[0].skip, 12U);
  EXPECT_EQ(estate.inherited()[1].skip, 0U);
  EXPECT_FALSE(estate.repair(nullptr)) << "once";
  EXPECT_EQ(estate.inherited()[0].skip, 12U);
}

TEST(Estate, WhatHasBeenHandledIsSteppedOverToo) {
  Estate estate = new_estate();
  take_in_hand(estate, estate.stream_buffers().data(), 0, 300, 100);
  estate.hand().message = 0;  // between two messages
  DeadRing dead(0, 1);
  const auto unseen = UnseenCompletions::look(dead.ring);
  ASSERT_TRUE(unseen);
  EXPECT_FALSE(estate.repair(&*unseen));
  EXPECT_EQ(estate.inherited()[0].skip, 300U);
}

TEST(Estate, AMessageOfAPartialChunkIsSteppedOverThere) {
  Estate estate = new_estate();
  const ChunkArea area = estate.small();
  Chunk& chunk = area.heads[5];
  area.used->store(6);
  chunk.use = ChunkUse::kPartial;
  chunk.set(Chunk::Extent{.octets = 20, .count = 3});
  chunk.owner = Chunk::pack(kConnection);
  std::memcpy(area.octets(5), "first second and more", 21);
  take_in_hand(estate, area.octets(5), 0, 6, 6);
  estate.hand().partial = 6;
  const auto in_hand = estate.repair(nullptr);
  ASSERT_TRUE(in_hand);
  EXPECT_EQ(in_hand->octets, "second");
  EXPECT_EQ(chunk.progress().octets, 12U);
  EXPECT_EQ(chunk.extent().octets, 20U);
  estate.clear();
  EXPECT_FALSE(chunk.connection().valid());
}

TEST(Estate, AHandThatMakesNoSenseGivesNothingAway) {
  Estate estate = new_estate();
  for (const std::uint64_t message : {std::uint64_t{5} << 32 | 6, ~std::uint64_t{0}}) {
    take_in_hand(estate, estate.stream_buffers().data(), 0, 0, 1);
    estate.hand().message = message;
    const auto in_hand = estate.repair(nullptr);
    ASSERT_TRUE(in_hand);
    EXPECT_EQ(in_hand->octets, "");
  }
  take_in_hand(estate, estate.stream_buffers().data(), 0, 0, 1);
  estate.hand().place = ~std::uint64_t{0};
  estate.hand().partial = ~0U;
  const auto in_hand = estate.repair(nullptr);
  ASSERT_TRUE(in_hand);
  EXPECT_EQ(in_hand->octets, "");
}

}  // namespace
}  // namespace ktrunk::ipc
