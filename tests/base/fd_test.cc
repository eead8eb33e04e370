#include "base/fd.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <type_traits>

namespace ktrunk {
namespace {

static_assert(!std::is_copy_constructible_v<Fd> && !std::is_copy_assignable_v<Fd>);
static_assert(!std::is_convertible_v<Fd, int> && !std::is_convertible_v<Fd, bool> && !std::is_convertible_v<int, Fd>);

Fd open_null() { return Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }
bool is_open(int fd) { return ::fcntl(fd, F_GETFD) != -1; }

TEST(FdTest, ClosesWhenItGoes) {
  int number = -1;
  {
    const Fd fd = open_null();
    number = fd.get();
    EXPECT_TRUE(fd.valid());
    EXPECT_TRUE(is_open(number));
  }
  EXPECT_FALSE(is_open(number));
}

TEST(FdTest, MovesLeaveNothingBehind) {
  Fd first = open_null();
  const int number = first.get();
  Fd second(std::move(first));
  EXPECT_FALSE(first.valid());  // NOLINT(bugprone-use-after-move): that is what is tested
  EXPECT_EQ(second.get(), number);
  Fd third = open_null();
  const int closed = third.get();
  third = std::move(second);
  EXPECT_EQ(third.get(), number);
  EXPECT_FALSE(is_open(closed));
}

TEST(FdTest, MovingToItselfKeepsIt) {
  Fd fd = open_null();
  Fd& same = fd;
  fd = std::move(same);
  EXPECT_TRUE(fd.valid());
  EXPECT_TRUE(is_open(fd.get()));
}

TEST(FdTest, ReleaseGivesItAway) {
  Fd fd = open_null();
  const Fd owner(fd.release());
  EXPECT_FALSE(fd.valid());
  fd.reset();
  EXPECT_TRUE(is_open(owner.get()));
}

TEST(FdTest, ResetTwiceClosesOnce) {
  Fd fd = open_null();
  const int number = fd.get();
  fd.reset();
  const Fd other = open_null();  // takes the number again
  EXPECT_EQ(other.get(), number);
  fd.reset();
  EXPECT_TRUE(is_open(other.get()));
}

}  // namespace
}  // namespace ktrunk
