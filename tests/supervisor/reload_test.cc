// Two phases over all handshake processes, with every way to fail.
#include "supervisor/reload.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

namespace ktrunk::supervisor {
namespace {

using Result = ReloadOutcome::Result;
using Words = std::vector<std::string>;
constexpr HandshakeIndex h0{0}, h1{1}, h2{2};

class ReloadTest : public testing::Test {
 protected:
  void begin(unsigned processes) {
    outcome.reset();
    reload.begin(Reload::Processes((1U << processes) - 1), [this](const ReloadOutcome& end) {
      EXPECT_FALSE(outcome) << "called twice";
      EXPECT_FALSE(reload.under_way());
      outcome = end;
    });
    ++number;
  }
  bool ready(HandshakeIndex process, const char* warnings = "") {
    return reload.reloaded(
        process, {.number = number, .outcome = ipc::Reloaded::Outcome::kReady, .what = ipc::Text<1024>(warnings)});
  }
  bool failed(HandshakeIndex process, const char* why) {
    return reload.reloaded(
        process, {.number = number, .outcome = ipc::Reloaded::Outcome::kFailed, .what = ipc::Text<1024>(why)});
  }
  Words take() { return std::exchange(told, {}); }

  Words told;
  std::optional<ReloadOutcome> outcome;
  std::uint32_t number = 0;
  Reload reload{[this](HandshakeIndex process, const ipc::Reload& message) {
    const char* const steps[] = {"prepare", "commit", "discard"};
    told.push_back(fmt::format("{} {} {}", steps[static_cast<int>(message.step)], process.value, message.number));
  }};
};

TEST_F(ReloadTest, CommitsWhenAllAreReady) {
  begin(3);
  EXPECT_EQ(take(), (Words{"prepare 0 1", "prepare 1 1", "prepare 2 1"}));
  EXPECT_TRUE(ready(h1, "a.pem expires in 3 days\n"));
  EXPECT_TRUE(ready(h0, "a.pem expires in 3 days"));
  EXPECT_EQ(take(), Words{});
  EXPECT_FALSE(outcome);
  EXPECT_TRUE(ready(h2, "b.pem\na.pem expires in 3 days"));
  EXPECT_EQ(take(), (Words{"commit 0 1", "commit 1 1", "commit 2 1"}));
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->result, Result::kDone);
  EXPECT_EQ(outcome->what, (Words{"a.pem expires in 3 days", "b.pem"})) << "each line once";
}

TEST_F(ReloadTest, OneFailureDiscardsForAll) {
  begin(2);
  take();
  EXPECT_TRUE(ready(h0, "a remark"));
  EXPECT_TRUE(failed(h1, "k.toml:3: key 'listen[0].certificate': no PEM"));
  EXPECT_EQ(take(), (Words{"discard 0 1", "discard 1 1"}));
  EXPECT_EQ(outcome->result, Result::kFailed);
  EXPECT_EQ(outcome->what, (Words{"k.toml:3: key 'listen[0].certificate': no PEM"}));
}

TEST_F(ReloadTest, AllAreWaitedForAlsoAfterAFailure) {
  begin(2);
  EXPECT_TRUE(failed(h1, "no PEM"));
  EXPECT_FALSE(outcome);
  EXPECT_TRUE(ready(h0, "a remark"));
  EXPECT_EQ(outcome->what, (Words{"no PEM"}));
}

TEST_F(ReloadTest, ADeathIsAFailure) {
  begin(2);
  EXPECT_TRUE(ready(h0));
  reload.ended(h1, "handshake/1");
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->result, Result::kFailed);
  EXPECT_EQ(outcome->what.size(), 1U);
  EXPECT_EQ(take().back(), "discard 0 1");
}

TEST_F(ReloadTest, ADeathAfterTheAnswerIsAFailureToo) {
  begin(2);
  EXPECT_TRUE(ready(h0));
  reload.ended(h0, "handshake/0");
  EXPECT_FALSE(outcome);
  EXPECT_FALSE(ready(h0)) << "its successor was not asked";
  EXPECT_TRUE(ready(h1));
  EXPECT_EQ(outcome->result, Result::kFailed);
  EXPECT_EQ(take().back(), "discard 1 1");
}

TEST_F(ReloadTest, TheOnlyProcessDies) {
  begin(1);
  take();
  reload.ended(h0, "handshake/0");
  EXPECT_EQ(outcome->result, Result::kFailed);
  EXPECT_EQ(take(), Words{});
}

TEST_F(ReloadTest, NobodyIsThere) {
  begin(0);
  EXPECT_EQ(outcome->result, Result::kFailed);
  EXPECT_EQ(outcome->what.size(), 1U);
}

TEST_F(ReloadTest, TakingTooLongIsAFailure) {
  begin(2);
  EXPECT_TRUE(ready(h0));
  take();
  reload.expired();
  EXPECT_EQ(outcome->result, Result::kFailed);
  EXPECT_EQ(take(), (Words{"discard 0 1", "discard 1 1"}));
  EXPECT_TRUE(ready(h1)) << "late, and of no consequence";
  begin(2);
  EXPECT_TRUE(reload.reloaded(h1, {.number = 1})) << "likewise";
  EXPECT_FALSE(outcome);
  EXPECT_TRUE(ready(h0));
  EXPECT_TRUE(ready(h1));
  EXPECT_EQ(outcome->result, Result::kDone);
}

TEST_F(ReloadTest, AnswersToNoQuestionAreRefused) {
  EXPECT_FALSE(reload.reloaded(h0, {.number = 0}));
  EXPECT_FALSE(reload.reloaded(h0, {.number = 1}));
  begin(1);
  EXPECT_FALSE(reload.reloaded(h0, {.number = 2}));
  EXPECT_FALSE(ready(h1));
  begin(2);
  EXPECT_TRUE(ready(h0));
  EXPECT_FALSE(ready(h0)) << "twice";
  reload.ended(h2, "handshake/2");
  EXPECT_FALSE(outcome) << "it was not asked";
}

}  // namespace
}  // namespace ktrunk::supervisor
