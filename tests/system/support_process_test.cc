#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <string>

#include "support/process.h"

namespace ktrunk::test {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

constexpr milliseconds kSoon{10'000};

TEST(ProcessTest, OutputAndExit) {
  const TempFolder folder;
  auto process = Process::start({.argv = {"sh", "-c", "echo out; echo $WORD >&2; exit 3"},
                                 .env = {{"WORD", "err"}},
                                 .output = folder.path() / "log"});
  ASSERT_TRUE(process) << process.error().what;
  const auto exit = process->wait(kSoon);
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit_text(*exit), "exited with 3");
  EXPECT_EQ(process->output(), "out\nerr\n");
  EXPECT_FALSE(process->running());
  EXPECT_FALSE(process->signal(SIGTERM));
}

TEST(ProcessTest, ASignalIsTold) {
  auto process = Process::start({.argv = {"sleep", "100"}});
  ASSERT_TRUE(process) << process.error().what;
  EXPECT_TRUE(process->running());
  EXPECT_FALSE(process->wait(milliseconds(1)));
  ASSERT_TRUE(process->signal(SIGTERM));
  const auto exit = process->wait(kSoon);
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit_text(*exit), "ended by SIGTERM");
}

TEST(ProcessTest, AProgramThatIsNotThere) {
  const auto process = Process::start({.argv = {"/no/such/program"}});
  ASSERT_FALSE(process);
  EXPECT_EQ(process.error().what, "cannot execute /no/such/program: ENOENT (No such file or directory)");
}

TEST(ProcessTest, ChildrenOfTheChildGoWithIt) {
  pid_t grandchild = -1;
  {
    auto process = Process::start({.argv = {"sh", "-c", "sleep 100 & exit 0"}});
    ASSERT_TRUE(process) << process.error().what;
    ASSERT_TRUE(process->wait(kSoon));
    const auto left = process->others_in_group();
    ASSERT_THAT(left, SizeIs(1)) << "the sleep outlives the shell";
    grandchild = left.front();
    EXPECT_EQ(::kill(grandchild, 0), 0);
  }
  EXPECT_TRUE(eventually([&] {
    std::error_code ignored;
    return !std::filesystem::exists(fmt::format("/proc/{}/exe", grandchild), ignored);
  }));
}

TEST(ProcessTest, MovingKeepsOneOwner) {
  auto first = Process::start({.argv = {"sleep", "100"}});
  ASSERT_TRUE(first);
  Process second(std::move(*first));
  EXPECT_TRUE(second.running());
  const pid_t pid = second.pid();
  auto third = Process::start({.argv = {"sleep", "100"}});
  ASSERT_TRUE(third);
  *third = std::move(second);
  EXPECT_EQ(third->pid(), pid);
  EXPECT_TRUE(third->running());
}

TEST(TempFolderTest, GoesWithItsOwner) {
  std::filesystem::path path;
  {
    const TempFolder folder;
    path = folder.path();
    folder.write("x", "text");
    EXPECT_TRUE(std::filesystem::exists(path / "x"));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace ktrunk::test
