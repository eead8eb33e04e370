// The shared region: what one process writes another finds, and nothing is mapped that does not fit.
#include "ipc/shared_region.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

namespace ktrunk::ipc {
namespace {

constexpr RegionSizes kSizes{.workers = 3, .max_connections = 100, .trunks = 2};

Fd copy_of(const SharedRegion& region) { return Fd(::fcntl(region.descriptor(), F_DUPFD_CLOEXEC, 0)); }

TEST(SharedRegion, IsTheSameInEveryProcess) {
  auto region = SharedRegion::create(kSizes);
  ASSERT_TRUE(region) << region.error().what;
  const pid_t child = ::fork();
  if (child == 0) {
    auto mapped = SharedRegion::map(copy_of(*region));
    if (!mapped) ::_exit(1);
    mapped->worker(WorkerIndex{2}).replies.add(42);
    mapped->sent(SlotIndex{99}, WorkerIndex{2}).messages.store(7);
    mapped->slot(SlotIndex{99}).word.store(SlotWord{Generation{5}, SlotState::kOpen, WorkerIndex{1}}.pack());
    ::_exit(mapped->secret().bytes == region->secret().bytes ? 0 : 2);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(region->worker(WorkerIndex{2}).replies.read(), 42U);
  EXPECT_EQ(region->sent(SlotIndex{99}, WorkerIndex{2}).messages.load(), 7U);
  EXPECT_TRUE(region->slot(SlotIndex{99}).open_for({SlotIndex{99}, Generation{5}}));
  EXPECT_FALSE(region->slot(SlotIndex{99}).open_for({SlotIndex{99}, Generation{4}}));
  EXPECT_EQ(region->slot(SlotIndex{99}).state().home, WorkerIndex{1});
}

TEST(SharedRegion, StartsEmptyWithARandomSecret) {
  auto one = SharedRegion::create(kSizes);
  auto two = SharedRegion::create(kSizes);
  ASSERT_TRUE(one && two);
  EXPECT_NE(one->secret().bytes, two->secret().bytes);
  EXPECT_EQ(one->slot(SlotIndex{0}).state().state, SlotState::kFree);
  EXPECT_FALSE(one->trunk(TrunkId{1}).connection(0).valid());
  EXPECT_TRUE(one->trunk(TrunkId{1}).udp_address(0).empty());
}

TEST(SharedRegion, CannotBeShrunkUnderAnotherProcess) {
  auto region = SharedRegion::create(kSizes);
  ASSERT_TRUE(region);
  EXPECT_EQ(::ftruncate(region->descriptor(), 4096), -1);
  EXPECT_EQ(errno, EPERM);
}

TEST(SharedRegion, RefusesMemoryThatIsNotOne) {
  Fd empty(::memfd_create("empty", MFD_CLOEXEC));
  EXPECT_FALSE(SharedRegion::map(std::move(empty)));
  Fd zeroes(::memfd_create("zeroes", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(zeroes.get(), 1 << 20), 0);
  const auto mapped = SharedRegion::map(std::move(zeroes));
  ASSERT_FALSE(mapped);
  EXPECT_THAT(mapped.error().what, testing::HasSubstr("layout"));
}

TEST(SlotWord, SurvivesPacking) {
  for (const std::uint32_t generation : {0U, 1U, 0x7fffffffU, 0xfffffffeU}) {
    for (const auto state : {SlotState::kFree, SlotState::kOffered, SlotState::kOpen, SlotState::kClosing}) {
      for (const std::uint8_t home : {std::uint8_t{0}, std::uint8_t{31}, std::uint8_t{255}}) {
        const SlotWord word{Generation{generation}, state, WorkerIndex{home}};
        const SlotWord back = SlotWord::unpack(word.pack());
        EXPECT_EQ(back.generation, word.generation);
        EXPECT_EQ(back.state, word.state);
        EXPECT_EQ(back.home, word.home);
      }
    }
  }
}

}  // namespace
}  // namespace ktrunk::ipc
