// The life of the processes: ends in order, and deaths.
#include <signal.h>

#include <algorithm>

#include "system/daemon_fixture.h"

namespace ktrunk::test {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

class DaemonProcesses : public DaemonTest {
 protected:
  void SetUp() override { ASSERT_NO_FATAL_FAILURE(start()); }

  std::unique_ptr<SipStream> open() {
    auto stream = call_in();
    return stream ? std::make_unique<SipStream>(std::move(stream)) : nullptr;
  }
  std::vector<std::unique_ptr<SipStream>> open_some(int count) {
    std::vector<std::unique_ptr<SipStream>> streams;
    for (int i = 0; i < count; ++i) {
      streams.push_back(open());
      if (streams.back() != nullptr) {
        EXPECT_TRUE(answers(*streams.back(), options_to_us(), 200));
      }
    }
    return streams;
  }
  static testing::AssertionResult has_ended(SipStream& stream) {
    const auto end = stream.receive_or_end(kLong);
    if (end && *end) return testing::AssertionFailure() << (*end)->text();
    if (!end && end.error().code == ETIMEDOUT) return testing::AssertionFailure() << "it is still there";
    return testing::AssertionSuccess();
  }
  // Kills a child and waits until another has taken its place.
  void kill_child(const std::string& name) {
    const pid_t pid = daemon_->pid_of(name);
    ASSERT_GT(pid, 1);
    ASSERT_EQ(::kill(pid, SIGKILL), 0);
    const Status restarted = daemon_->wait_status([&](const Json& now) {
      return std::ranges::any_of(now["processes"], [&](const Json& process) {
        return process["name"] == name && process["pid"] > 0 && process["pid"] != pid && process["restarts"] == 1;
      });
    });
    ASSERT_TRUE(restarted) << restarted.error().what;
  }
  // The trunk's connection has ended, or does not last: takes the next one.
  void reconnect_pbx() {
    EXPECT_TRUE(has_ended(*pbx_tls_));
    auto again = accept_tls(*pbx_tls_listener_);
    ASSERT_NE(again, nullptr) << daemon_->log();
    pbx_tls_ = std::make_unique<SipStream>(std::move(again));
    const Status ready = daemon_->wait_ready();
    ASSERT_TRUE(ready) << ready.error().what;
  }
  void calls_pass() {
    Echo pbx(*pbx_tls_);
    for (auto& stream : open_some(4)) {
      ASSERT_NE(stream, nullptr);
      EXPECT_TRUE(answers(*stream, request_to("tls.test", "after"), 200));
    }
  }
};

TEST_F(DaemonProcesses, SigtermEndsEverythingInOrder) {
  auto streams = open_some(3);
  auto tcp = call_in_tcp();
  ASSERT_NE(tcp, nullptr);
  SipStream plain(std::move(tcp));
  ASSERT_TRUE(answers(plain, options_to_us(), 200));
  const Status stopped = daemon_->stop();  // exit status 0, no process left
  EXPECT_TRUE(stopped) << stopped.error().what;
  std::vector<SipStream*> all = {&plain, pbx_tls_.get(), pbx_tcp_.get()};
  for (const auto& stream : streams) all.push_back(stream.get());
  for (SipStream* stream : all) {
    ASSERT_NE(stream, nullptr);
    const auto end = stream->receive_or_end(kLong);
    ASSERT_TRUE(end) << end.error().what << "\n" << daemon_->log();
    EXPECT_FALSE(*end);
  }
  EXPECT_FALSE(std::filesystem::exists(daemon_->control_socket()));
}

TEST_F(DaemonProcesses, ASecondInstanceIsRefused) {
  const TempFolder folder;
  const std::string config = folder.write(
      "second.toml",
      fmt::format("[ktrunk]\nworkers = 1\ncontrol = \"{}\"\n[[listen]]\ntransport = \"tcp\"\naddress = \"{}\"\n",
                  daemon_->control_socket(), fresh_address().text()));
  auto second =
      Process::start({.argv = {built_program("ktrunkd"), "--config", config}, .env = {}, .output = folder.file("log")});
  ASSERT_TRUE(second);
  const auto exit = second->wait(kLong);
  ASSERT_TRUE(exit) << second->output();
  EXPECT_EQ(exit->code, 1);
  EXPECT_THAT(second->output(), HasSubstr(daemon_->control_socket()));
  EXPECT_THAT(second->output(), HasSubstr("another ktrunkd is running"));
  calls_pass();  // the first one goes on
}

TEST_F(DaemonProcesses, AWorkerDies) {
  auto streams = open_some(6);
  const Json now = status();
  const unsigned trunk_home = of_trunk(now, "pbx-tls").at(0)["home_worker"];
  const unsigned victim = 1 - trunk_home;
  std::vector<SipStream*> survivors;
  std::vector<SipStream*> victims;
  for (const auto& stream : streams) {
    ASSERT_NE(stream, nullptr);
    const auto connection = with_peer(now, stream->stream());
    ASSERT_TRUE(connection) << now.dump(2);
    ((*connection)["home_worker"] == victim ? victims : survivors).push_back(stream.get());
  }
  ASSERT_THAT(survivors, Not(IsEmpty()));
  ASSERT_THAT(victims, Not(IsEmpty()));
  ASSERT_NO_FATAL_FAILURE(kill_child(fmt::format("worker/{}", victim)));
  {
    Echo pbx(*pbx_tls_);
    for (SipStream* stream : survivors) EXPECT_TRUE(answers(*stream, request_to("tls.test", "still here"), 200));
  }
  for (SipStream* stream : victims) EXPECT_TRUE(has_ended(*stream));
  calls_pass();
}

TEST_F(DaemonProcesses, TheWorkerThatReceivesFromATrunkDies) {
  const unsigned home = of_trunk(status(), "pbx-tls").at(0)["home_worker"];
  ASSERT_NO_FATAL_FAILURE(kill_child(fmt::format("worker/{}", home)));
  ASSERT_NO_FATAL_FAILURE(reconnect_pbx());
  calls_pass();
}

TEST_F(DaemonProcesses, TheHandshakeProcessDies) {
  auto streams = open_some(4);
  const bool kernel = kernel_records();
  ASSERT_NO_FATAL_FAILURE(kill_child("handshake/0"));
  if (kernel) {
    Echo pbx(*pbx_tls_);
    for (const auto& stream : streams) EXPECT_TRUE(answers(*stream, request_to("tls.test", "still here"), 200));
  } else {
    for (const auto& stream : streams) EXPECT_TRUE(has_ended(*stream));
    ASSERT_NO_FATAL_FAILURE(reconnect_pbx());
  }
  calls_pass();
  // The new one knows what the trunk has.
  EXPECT_THAT(of_trunk(status(), "pbx-tls"), SizeIs(1));
  if (kernel) {
    pbx_tls_.reset();
    auto again = accept_tls(*pbx_tls_listener_);
    ASSERT_NE(again, nullptr) << daemon_->log();
    pbx_tls_ = std::make_unique<SipStream>(std::move(again));
    const Status ready = daemon_->wait_ready();
    ASSERT_TRUE(ready) << ready.error().what;
    calls_pass();
  }
}

}  // namespace
}  // namespace ktrunk::test
