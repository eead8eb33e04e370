#include "base/result.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace ktrunk {
namespace {

TEST(ResultTest, FailFormats) {
  const Status status = fail("port {}: {}", 5061, "taken");
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().what, "port 5061: taken");
  EXPECT_EQ(status.error().code, 0);
}

TEST(ResultTest, FailErrnoKeepsTheCode) {
  const Result<int> result = fail_errno(EPIPE, "send");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().what, "send: EPIPE (Broken pipe)");
  EXPECT_EQ(result.error().code, EPIPE);
}

TEST(ResultTest, UnknownErrnoIsStillText) {
  EXPECT_EQ(errno_text(0), "0 (Success)");
  EXPECT_FALSE(errno_text(99999).empty());
  EXPECT_FALSE(errno_text(-1).empty());
}

}  // namespace
}  // namespace ktrunk
