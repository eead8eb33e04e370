// ktrunk drain and SIGTERM: nothing new, what is under way goes on, and every connection ends in order.
#include <atomic>

#include "cli/control_client.h"
#include "system/daemon_fixture.h"

namespace ktrunk::test {
namespace {

using testing::HasSubstr;

class DrainTest : public DaemonTest {
 protected:
  void SetUp() override { ASSERT_NO_FATAL_FAILURE(start({.limits = "drain = \"60s\"\n"})); }
  [[nodiscard]] std::unique_ptr<SipStream> open() {
    auto stream = call_in();
    return stream == nullptr ? nullptr : std::make_unique<SipStream>(std::move(stream));
  }
  void begin_drain() {
    const auto answer = cli::ask(daemon_->control_socket(), "drain");
    ASSERT_TRUE(answer) << answer.error().what;
    EXPECT_EQ((*answer)["drain"], "begun");
    const Status draining = daemon_->wait_status([](const Json& now) { return now["state"] == "draining"; });
    ASSERT_TRUE(draining) << draining.error().what;
  }
  static void ends_in_order(SipStream& stream) {
    const auto end = stream.receive_or_end(kLong);
    ASSERT_TRUE(end) << end.error().what;
    EXPECT_FALSE(*end);
  }
};

TEST_F(DrainTest, WhatIsUnderWayGoesOnAndWhatIsNewIsRefused) {
  auto caller = open();
  auto talker = open();
  ASSERT_NE(caller, nullptr);
  ASSERT_NE(talker, nullptr);
  {
    Echo pbx(*pbx_tls_);
    std::atomic<unsigned> within = 0;
    // In a dialog, without a pause: as long as this goes on ktrunkd does.
    std::jthread talk([&](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
        SipMessage in_dialog = request_to("tls.test", "within");
        in_dialog.set("To", in_dialog.header("To") + ";tag=there");
        ASSERT_TRUE(answers(*talker, in_dialog, 200));
        ++within;
      }
    });
    ASSERT_TRUE(eventually([&] { return within > 0; }, kLong));
    begin_drain();
    const unsigned before = within;
    EXPECT_TRUE(eventually([&] { return !TcpStream::connect(edge_tls_, milliseconds(5'000)); }, kLong));
    EXPECT_FALSE(TcpStream::connect(edge_tcp_, milliseconds(5'000))) << "nobody listens any more";
    EXPECT_TRUE(answers(*caller, request_to("tls.test", "new"), 503));
    EXPECT_TRUE(answers(*caller, options_to_us(), 503)) << "a ping is told, too";
    EXPECT_TRUE(eventually([&] { return within > before + 10; }, kLong));
  }
  ends_in_order(*caller);
  ends_in_order(*talker);
  ends_in_order(*pbx_tls_);
  ends_in_order(*pbx_tcp_);
  const auto exit = daemon_->process().wait(kLong);
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->code, 0) << daemon_->log();
}

TEST_F(DrainTest, TheCommandWaits) {
  auto caller = open();
  ASSERT_NE(caller, nullptr);
  const TempFolder out;
  auto command =
      Process::start({.argv = {built_program("ktrunk"), "drain", "--wait", "--socket", daemon_->control_socket()},
                      .env = {},
                      .output = out.file("log")});
  ASSERT_TRUE(command);
  ends_in_order(*caller);
  const auto exit = command->wait(kLong);
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->code, 0) << command->output();
  EXPECT_THAT(command->output(), HasSubstr("ktrunkd has ended"));
  const auto ended = daemon_->process().wait(milliseconds(5'000));
  ASSERT_TRUE(ended);
  EXPECT_EQ(ended->code, 0);
}

}  // namespace
}  // namespace ktrunk::test
