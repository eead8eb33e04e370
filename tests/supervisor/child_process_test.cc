// How a child process is ended and when it is started again, with a real one. `cat` stays as long as its input does.
#include "supervisor/child_process.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/image.h"

namespace ktrunk::supervisor {
namespace {

using namespace std::chrono_literals;
using Life = ChildProcess::Life;

class ChildProcessTest : public testing::Test {
 protected:
  void SetUp() override {
    auto opened = Program::open("/bin/cat");
    ASSERT_TRUE(opened) << opened.error().what;
    program_ = std::move(*opened);
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    never_ending_ = Fd(ends[1]);
    own_input_ = Fd(::dup(STDIN_FILENO));
    ::dup2(ends[0], STDIN_FILENO);
    ::close(ends[0]);
  }
  void TearDown() override {
    child.kill();
    if (child.running()) ::waitpid(child.pid(), nullptr, 0);
    if (own_input_.valid()) ::dup2(own_input_.get(), STDIN_FILENO);
  }
  void start() { ASSERT_TRUE(child.start(program_, now)); }
  // By which signal it ended.
  int end() {
    int status = 0;
    EXPECT_EQ(::waitpid(child.pid(), &status, 0), child.pid());
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  }

  ChildProcess child{"child", ipc::Role::kWorker};
  Clock::time_point now = Clock::now();

 private:
  Program program_;
  Fd never_ending_;
  Fd own_input_;
};

TEST_F(ChildProcessTest, IsEndedWithoutBlame) {
  start();
  EXPECT_TRUE(child.running());
  child.kill();
  EXPECT_EQ(end(), SIGKILL);
  EXPECT_FALSE(child.condemned());
  for (int i = 0; i < 3; ++i) child.ended(now, Life::kKilled);
  EXPECT_FALSE(child.running());
  EXPECT_EQ(child.early_deaths(), 0U);
  EXPECT_EQ(*child.restart_due(), now + 50ms) << "however often: it is no crash loop";
}

TEST_F(ChildProcessTest, IsCondemnedForThisLifeAlone) {
  start();
  child.condemn();
  EXPECT_EQ(end(), SIGKILL);
  EXPECT_TRUE(child.condemned());
  child.ended(now);
  start();
  EXPECT_FALSE(child.condemned());
}

TEST_F(ChildProcessTest, WaitsLongerAfterEachEarlyDeathUntilItLives) {
  start();
  child.kill();
  EXPECT_EQ(end(), SIGKILL);
  for (const auto wait : {50ms, 100ms, 200ms, 400ms, 800ms, 1600ms, 3200ms, 5000ms, 5000ms}) {
    child.ended(now);
    EXPECT_EQ(*child.restart_due(), now + wait);
  }
  EXPECT_EQ(child.early_deaths(), 9U);
  child.ended(now, Life::kFruitful);
  EXPECT_EQ(child.early_deaths(), 0U);
  EXPECT_EQ(*child.restart_due(), now);
}

}  // namespace
}  // namespace ktrunk::supervisor
