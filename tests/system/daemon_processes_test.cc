// The life of the processes: ends in order, and deaths.
#include <signal.h>

#include <algorithm>
#include <filesystem>

#include "cli/control_client.h"
#include "system/daemon_fixture.h"

namespace ktrunk::test {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

class ProcessesTest : public DaemonTest {
 protected:
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
  // The handshake process that a peer's connection came from.
  [[nodiscard]] unsigned owner_of(const Json& now, SipStream& stream) const {
    const auto connection = with_peer(now, stream.stream());
    EXPECT_TRUE(connection) << now.dump(2);
    return connection ? (*connection)["handshake"].get<unsigned>() : 0;
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

class DaemonProcesses : public ProcessesTest {
 protected:
  void SetUp() override { ASSERT_NO_FATAL_FAILURE(start()); }
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

// Whichever it is: its connections, and the trunk's, carry on.
TEST_F(DaemonProcesses, EveryConnectionOutlivesEveryWorker) {
  auto streams = open_some(6);
  const Json before = status();
  Echo pbx(*pbx_tls_);
  for (const unsigned victim : {0U, 1U, 0U}) {
    ASSERT_NO_FATAL_FAILURE(kill_child(fmt::format("worker/{}", victim)));
    for (const auto& stream : streams) {
      ASSERT_NE(stream, nullptr);
      EXPECT_TRUE(answers(*stream, request_to("tls.test", "still here"), 200));
    }
  }
  const Json after = status();
  EXPECT_EQ(of_trunk(after, "pbx-tls").at(0)["peer"], of_trunk(before, "pbx-tls").at(0)["peer"]);
  for (const auto& stream : streams) EXPECT_TRUE(with_peer(after, stream->stream()));
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

class SeveralHandshakeProcesses : public ProcessesTest {
 protected:
  void SetUp() override { ASSERT_NO_FATAL_FAILURE(start({.ktrunk_lines = "handshake_processes = 3\n"})); }
  static constexpr unsigned kTrunkKeeper = 2;  // pbx-tls is the third trunk
};

TEST_F(SeveralHandshakeProcesses, ShareTheWork) {
  auto streams = open_some(12);
  calls_pass();
  const Json now = status();
  ASSERT_THAT(now["handshake_processes"], SizeIs(3));
  unsigned accepted = 0;
  for (const Json& process : now["handshake_processes"]) accepted += process["accepted"].get<unsigned>();
  EXPECT_EQ(now["handshakes"]["accepted"], accepted);
  EXPECT_GE(accepted, 16U);
  EXPECT_EQ(of_trunk(now, "pbx-tls").at(0)["handshake"], kTrunkKeeper);
  for (unsigned process = 0; process < 3; ++process)
    EXPECT_GT(daemon_->pid_of(fmt::format("handshake/{}", process)), 1);
}

// Connections of the kernel carry on whoever dies; relayed ones end with the process that relays them.
TEST_F(SeveralHandshakeProcesses, EachMayDie) {
  auto streams = open_some(9);
  const bool kernel = kernel_records();
  for (unsigned victim = 0; victim < 3; ++victim) {
    const Json now = status();
    std::vector<std::unique_ptr<SipStream>> ended;
    std::vector<std::unique_ptr<SipStream>> others;
    for (auto& stream : streams) {
      ASSERT_NE(stream, nullptr);
      const bool ends = !kernel && owner_of(now, *stream) == victim;
      (ends ? ended : others).push_back(std::move(stream));
    }
    streams = std::move(others);
    ASSERT_NO_FATAL_FAILURE(kill_child(fmt::format("handshake/{}", victim)));
    for (auto& stream : ended) EXPECT_TRUE(has_ended(*stream));
    if (!kernel && victim == kTrunkKeeper) {
      ASSERT_NO_FATAL_FAILURE(reconnect_pbx());
    }
    Echo pbx(*pbx_tls_);
    for (auto& stream : streams) EXPECT_TRUE(answers(*stream, request_to("tls.test", "still here"), 200));
  }
  calls_pass();
}

TEST_F(SeveralHandshakeProcesses, KilledOverAndOverWhileCallsGoOn) {
  auto streams = open_some(9);
  const bool kernel = kernel_records();
  const Json now = status();
  // Natively relayed ones end with their process: then only those of the others can be looked at.
  std::vector<SipStream*> stay;
  for (auto& stream : streams) {
    ASSERT_NE(stream, nullptr);
    if (kernel || owner_of(now, *stream) != 1) stay.push_back(stream.get());
  }
  Echo pbx(*pbx_tls_);
  std::jthread calls([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      for (SipStream* stream : stay) EXPECT_TRUE(answers(*stream, request_to("tls.test", "meanwhile"), 200));
    }
  });
  for (unsigned round = 0; round < 6; ++round)
    ASSERT_NO_FATAL_FAILURE(kill_child(fmt::format("handshake/{}", kernel ? round % 3 : 1)));
  calls.request_stop();
  calls.join();
  const Json then = status();
  for (SipStream* stream : stay) EXPECT_TRUE(with_peer(then, stream->stream()));
  EXPECT_EQ(of_trunk(then, "pbx-tls"), of_trunk(then, "pbx-tls"));
  for (auto& stream : open_some(3)) {
    ASSERT_NE(stream, nullptr);
    EXPECT_TRUE(answers(*stream, request_to("tls.test", "after"), 200));
  }
}

// A listener of its own, whose certificate the test changes.
class Reloading : public ProcessesTest {
 protected:
  void SetUp() override {
    put(one_);
    ASSERT_NO_FATAL_FAILURE(
        start({.tables = fmt::format("[[listen]]\nname = \"live\"\ntransport = \"tls\"\naddress = "
                                     "\"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
                                     address_.text(), folder_.file("live.pem"), folder_.file("live.key")),
               .ktrunk_lines = "handshake_processes = 3\n"}));
  }
  void put(const CertificateFiles& files) const {
    constexpr auto kReplace = std::filesystem::copy_options::overwrite_existing;
    std::filesystem::copy_file(files.certificate, folder_.file("live.pem"), kReplace);
    std::filesystem::copy_file(files.key, folder_.file("live.key"), kReplace);
  }
  Json reload() {
    const auto answer = cli::ask(daemon_->control_socket(), "reload", cli::kReloadTimeout);
    EXPECT_TRUE(answer) << answer.error().what;
    return answer ? *answer : Json();
  }
  // Every process, as good as certainly: they share the listener.
  testing::AssertionResult shows(const std::string& name) {
    for (int i = 0; i < 12; ++i) {
      auto stream =
          TlsStream::connect(address_, {.ca = authority_.file(), .server_name = name, .verify_name = name}, kLong);
      if (!stream) return testing::AssertionFailure() << stream.error().what;
      // Not closed before it is ktrunkd's workers'.
      SipStream sip(std::move(*stream));
      if (auto answered = answers(sip, options_to_us(), 200); !answered) return answered;
    }
    return testing::AssertionSuccess();
  }

  TempFolder folder_;
  CertificateAuthority authority_{folder_.path(), "ca"};
  CertificateFiles one_ = authority_.issue({.name = "one", .dns = {"one.test"}});
  CertificateFiles two_ = authority_.issue({.name = "two", .dns = {"two.test"}});
  Address address_ = fresh_address();
};

TEST_F(Reloading, NewHandshakesUseTheNewFilesAndOldConnectionsGoOn) {
  auto streams = open_some(3);
  ASSERT_TRUE(shows("one.test"));
  put(two_);
  EXPECT_TRUE(shows("one.test")) << "not before it is asked to";
  const Json answer = reload();
  EXPECT_EQ(answer["reload"], "done") << answer.dump(2);
  EXPECT_TRUE(shows("two.test"));
  EXPECT_FALSE(shows("one.test"));
  Echo pbx(*pbx_tls_);
  for (auto& stream : streams) EXPECT_TRUE(answers(*stream, request_to("tls.test", "still here"), 200));
}

TEST_F(Reloading, BadFilesChangeNothing) {
  ASSERT_TRUE(shows("one.test"));
  std::filesystem::copy_file(two_.key, folder_.file("live.key"), std::filesystem::copy_options::overwrite_existing);
  const Json mismatch = reload();
  EXPECT_EQ(mismatch["reload"], "failed") << mismatch.dump(2);
  EXPECT_THAT(mismatch["what"].dump(), testing::HasSubstr("live"));
  folder_.write("live.pem", "no PEM at all\n");
  const Json garbage = reload();
  EXPECT_EQ(garbage["reload"], "failed");
  EXPECT_THAT(garbage["what"].dump(), HasSubstr(folder_.file("live.pem")));
  EXPECT_TRUE(shows("one.test"));
  const TempFolder out;
  auto command = Process::start({.argv = {built_program("ktrunk"), "reload", "--socket", daemon_->control_socket()},
                                 .env = {},
                                 .output = out.file("log")});
  ASSERT_TRUE(command);
  const auto exit = command->wait(kLong);
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->code, 1);
  EXPECT_THAT(command->output(), HasSubstr("what was read before stays in force"));
  EXPECT_THAT(command->output(), HasSubstr(folder_.file("live.pem")));
  EXPECT_THAT(daemon_->log(), HasSubstr("reload failed"));
  put(two_);
  EXPECT_EQ(reload()["reload"], "done");
  EXPECT_TRUE(shows("two.test"));
}

TEST_F(Reloading, BySignalAndUnderLoad) {
  auto streams = open_some(4);
  Echo pbx(*pbx_tls_);
  std::jthread calls([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      for (auto& stream : streams) EXPECT_TRUE(answers(*stream, request_to("tls.test", "meanwhile"), 200));
    }
  });
  for (int i = 0; i < 5; ++i) {
    put(i % 2 == 0 ? two_ : one_);
    ASSERT_EQ(reload()["reload"], "done");
    folder_.write("live.pem", "");
    ASSERT_EQ(reload()["reload"], "failed");
  }
  calls.request_stop();
  calls.join();
  EXPECT_TRUE(shows("two.test"));
  put(one_);
  ASSERT_EQ(::kill(daemon_->process().pid(), SIGHUP), 0);
  EXPECT_TRUE(eventually([&] { return bool(shows("one.test")); }, kLong)) << daemon_->log();
}

// Keys of few records: what is relayed renews them by itself, the kernel by KeyUpdates where it can; else connections
// give way to others. Calls pass whatever happens.
TEST_F(ProcessesTest, KeysAreRenewedWhileCallsGoOn) {
  ASSERT_NO_FATAL_FAILURE(start({.limits = "key_records = 16\n"}));
  if (kernel_records()) GTEST_SKIP() << "the kernel's connections have tests of their own";
  auto streams = open_some(2);
  Echo pbx(*pbx_tls_);
  const auto renewals = [&] {
    const auto connection = with_peer(status(), streams[0]->stream());
    EXPECT_TRUE(connection);
    return connection ? (*connection)["transmit_key_renewals"].get<unsigned>() : 0;
  };
  EXPECT_TRUE(eventually(
      [&] {
        for (int i = 0; i < 20; ++i) EXPECT_TRUE(answers(*streams[0], request_to("tls.test", "more"), 200));
        return HasFailure() || renewals() >= 2;
      },
      kLong))
      << status().dump(2) << daemon_->log();
  EXPECT_FALSE(HasFailure()) << daemon_->log();
}

TEST_F(ProcessesTest, AnAddressHasSoManyConnectionsAndNoMore) {
  ASSERT_NO_FATAL_FAILURE(start({.limits = "connections_per_address = 4\n"}));
  auto streams = open_some(4);
  // Reset, maybe before it has been told that it is connected.
  if (auto fifth = TcpStream::connect(edge_tcp_, kLong)) {
    SipStream refused(std::move(*fifth));
    EXPECT_TRUE(has_ended(refused));
  }
  EXPECT_TRUE(
      eventually([&] { return daemon_->log().find("limits.connections_per_address") != std::string::npos; }, kLong));
  const Address gone_peer = streams.back()->stream().local();
  streams.pop_back();
  EXPECT_TRUE(gone(gone_peer));
  auto again = open();
  ASSERT_NE(again, nullptr);
  EXPECT_TRUE(answers(*again, options_to_us(), 200)) << "one has made room";
}

}  // namespace
}  // namespace ktrunk::test
