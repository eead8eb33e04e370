// CPU times and memory as /proc has them: of this process, of one that works, of one that is gone.
#include "bench/common/cpu_time.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>

#include "bench/common/subprocess.h"
#include "support/process.h"

namespace ktrunk::bench {
namespace {

using testing::HasSubstr;

int spin() {
  std::atomic<unsigned> count = 0;
  for (;;) ++count;
}

TEST(CpuTime, OfAProcessThatWorksGrows) {
  auto worker = Subprocess::start(spin);
  ASSERT_TRUE(worker);
  CpuMeter meter({{worker->pid(), "spinning"}});
  ASSERT_TRUE(meter.start());
  ASSERT_TRUE(test::eventually([&] { return meter.stop() && meter.total_ns() > 1'000'000; }));
  ASSERT_EQ(meter.shares().size(), 1u);
  EXPECT_EQ(meter.shares().front().process.name, "spinning");
  EXPECT_EQ(meter.shares().front().ns, meter.total_ns());
  EXPECT_TRUE(pss_kib(worker->pid()));
}

TEST(CpuTime, OfAProcessThatIsGoneIsAnError) {
  auto worker = Subprocess::start(spin);
  ASSERT_TRUE(worker);
  CpuMeter meter({{worker->pid(), ""}});
  ASSERT_TRUE(meter.start());
  worker->end();
  EXPECT_FALSE(worker->running());
  const Status stopped = meter.stop();
  ASSERT_FALSE(stopped);
  EXPECT_THAT(stopped.error().what, HasSubstr("has it ended?"));
}

TEST(CpuTime, OfThisProcess) {
  EXPECT_TRUE(cpu_nanoseconds(0));
  EXPECT_TRUE(cpu_nanoseconds(::getpid()));
  const auto all = pss_kib(0);
  const auto own = own_memory_kib(0);
  ASSERT_TRUE(all && own);
  EXPECT_GT(*own, 0u);
  EXPECT_LE(*own, *all);
}

TEST(CpuTime, ProcessNumbersAreChecked) {
  for (const char* text : {"", "a", "1,", ",1", "1,,2", "-1", "0", "1 2", "99999999999"}) {
    const auto parsed = parse_pids(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_THAT(parsed.error().what, HasSubstr("123,124"));
  }
  const auto two = parse_pids("12,34");
  ASSERT_TRUE(two);
  ASSERT_EQ(two->size(), 2u);
  EXPECT_EQ(two->back().pid, 34);
}

TEST(Subprocess, GivesItsStatus) {
  auto ended = Subprocess::start([] { return 7; });
  ASSERT_TRUE(ended);
  EXPECT_EQ(ended->wait(), 7);
  auto killed = Subprocess::start(spin);
  ASSERT_TRUE(killed);
  EXPECT_TRUE(killed->running());
  ::kill(killed->pid(), SIGTERM);
  EXPECT_EQ(killed->wait(), 128 + SIGTERM);
}

}  // namespace
}  // namespace ktrunk::bench
