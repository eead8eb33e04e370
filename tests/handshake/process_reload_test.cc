// Reloading certificates, keys and CAs in the handshake process: two phases, and nobody who is connected notices.
#include <filesystem>

#include "process_fixture.h"

namespace ktrunk::test {
namespace {

class ProcessReloadTest : public HandshakeProcessTest {
 protected:
  // Puts another certificate (of that common name) and its key where the server's are.
  void renew(const std::string& common_name) {
    const auto files = authority_.issue(
        {.name = "server-" + common_name, .common_name = common_name, .dns = {"sip.example.com"}, .ips = {}});
    put(files.certificate, server_.certificate);
    put(files.key, server_.key);
  }
  static void put(const std::string& from, const std::string& to) {
    std::filesystem::copy_file(from, to, std::filesystem::copy_options::overwrite_existing);
  }
  // Whom a new connection gets to see.
  [[nodiscard]] std::string whom(const Address& address) const {
    auto stream = TlsStream::connect(address, client());
    return stream ? (*stream)->peer_common_name() : stream.error().what;
  }
  [[nodiscard]] std::string whom() const { return whom(address_); }
  static ipc::Reloaded prepare(FakeSupervisor& supervisor, std::uint32_t number) {
    supervisor.send(ipc::Reload{.step = ipc::Reload::Step::kPrepare, .number = number});
    const auto answer = supervisor.next<ipc::Reloaded>();
    EXPECT_TRUE(answer.has_value());
    EXPECT_EQ(answer ? answer->number : 0, number);
    return answer.value_or(ipc::Reloaded{.outcome = ipc::Reloaded::Outcome::kFailed});
  }
  static void say(FakeSupervisor& supervisor, ipc::Reload::Step step, std::uint32_t number) {
    supervisor.send(ipc::Reload{.step = step, .number = number});
    (void)prepare(supervisor, 9999);  // answered: it has heard the other too
  }
  using Step = ipc::Reload::Step;
  static constexpr auto kReady = ipc::Reloaded::Outcome::kReady;
  static constexpr auto kFailed = ipc::Reloaded::Outcome::kFailed;
};

TEST_F(ProcessReloadTest, NewHandshakesUseTheNewFilesOnceTheyAreCommitted) {
  renew("first");
  FakeSupervisor supervisor(base());
  supervisor.run();
  const auto old = connect(client());
  const auto handed = supervisor.established();
  ASSERT_TRUE(handed.has_value());
  EXPECT_EQ(whom(), "first");
  renew("second");
  EXPECT_EQ(whom(), "first");
  const ipc::Reloaded answer = prepare(supervisor, 1);
  EXPECT_EQ(answer.outcome, kReady) << answer.what.view();
  EXPECT_EQ(whom(), "first");
  say(supervisor, Step::kCommit, 1);
  EXPECT_EQ(whom(), "second");
  ASSERT_TRUE(old->write_all("unaffected"));
  EXPECT_EQ(receive_packet(handed->fd), "unaffected");
}

TEST_F(ProcessReloadTest, BadFilesChangeNothingAndAreNamed) {
  renew("first");
  const auto other = authority_.issue({.name = "other", .common_name = "", .dns = {"other.example"}});
  FakeSupervisor supervisor(base());
  supervisor.run();
  EXPECT_EQ(whom(), "first");
  put(other.key, server_.key);  // of another certificate
  ipc::Reloaded answer = prepare(supervisor, 1);
  EXPECT_EQ(answer.outcome, kFailed);
  EXPECT_NE(answer.what.view().find(server_.key), std::string_view::npos) << answer.what.view();
  say(supervisor, Step::kCommit, 1);
  EXPECT_EQ(whom(), "first");
  folder_.write(std::filesystem::path(server_.certificate).filename(), "no certificate at all");
  answer = prepare(supervisor, 2);
  EXPECT_EQ(answer.outcome, kFailed);
  EXPECT_NE(answer.what.view().find(server_.certificate), std::string_view::npos) << answer.what.view();
  EXPECT_EQ(whom(), "first");
}

TEST_F(ProcessReloadTest, DiscardedAndUnknownReloadsAreNotUsed) {
  renew("first");
  FakeSupervisor supervisor(base());
  supervisor.run();
  renew("second");
  EXPECT_EQ(prepare(supervisor, 1).outcome, kReady);
  supervisor.send(ipc::Reload{.step = Step::kDiscard, .number = 1});
  say(supervisor, Step::kCommit, 1);
  EXPECT_EQ(whom(), "first");
  EXPECT_EQ(prepare(supervisor, 2).outcome, kReady);
  supervisor.send(ipc::Reload{.step = Step::kDiscard, .number = 1});  // of another
  supervisor.send(ipc::Reload{.step = Step::kCommit, .number = 7});
  EXPECT_EQ(whom(), "first");
  supervisor.send(ipc::Reload{.step = Step::kCommit, .number = 2});
  say(supervisor, Step::kCommit, 2);  // twice
  EXPECT_EQ(whom(), "second");
}

TEST_F(ProcessReloadTest, SeveralErrorsComeOnePerLine) {
  const Address second = free_address();
  FakeSupervisor supervisor(base() + fmt::format("[[listen]]\nname = \"bad\"\ntransport = \"tls\"\naddress = \"{}\"\n"
                                                 "certificate = \"/nonexistent.pem\"\nkey = \"/nonexistent.key\"\n",
                                                 second.text()));
  supervisor.run();
  folder_.write(std::filesystem::path(server_.certificate).filename(), "no certificate at all");
  const ipc::Reloaded answer = prepare(supervisor, 1);
  EXPECT_EQ(answer.outcome, kFailed);
  const std::string_view what = answer.what.view();
  EXPECT_NE(what.find('\n'), std::string_view::npos) << what;
  EXPECT_NE(what.find("/nonexistent."), std::string_view::npos) << what;
  EXPECT_NE(what.find(server_.certificate), std::string_view::npos) << what;
}

TEST_F(ProcessReloadTest, AListenerAndATrunkWithoutFilesServeAfterAGoodReload) {
  const Address late = free_address();
  const auto target = TcpListener::bind(free_address());
  ASSERT_TRUE(target);
  const std::string certificate = folder_.file("late.pem");
  const std::string key = folder_.file("late.key");
  const std::string authorities = folder_.file("late-ca.pem");
  FakeSupervisor supervisor(
      base() +
      fmt::format("[[listen]]\nname = \"late\"\ntransport = \"tls\"\naddress = \"{}\"\ncertificate = \"{}\"\n"
                  "key = \"{}\"\n",
                  late.text(), certificate, key) +
      trunk(fmt::format("\"tls:{}\"", target->address().text()),
            fmt::format("ca = \"{}\"\nverify_name = \"sip.example.com\"\n", authorities)));
  supervisor.run();
  EXPECT_FALSE(target->accept(milliseconds(300)));
  EXPECT_EQ(prepare(supervisor, 1).outcome, kFailed);
  put(server_.certificate, certificate);
  put(server_.key, key);
  put(authority_.file(), authorities);
  const ipc::Reloaded answer = prepare(supervisor, 2);
  ASSERT_EQ(answer.outcome, kReady) << answer.what.view();
  supervisor.send(ipc::Reload{.step = Step::kCommit, .number = 2});
  auto socket = target->accept();
  ASSERT_TRUE(socket);
  const auto stream = TlsStream::accept(std::move(*socket), server());
  ASSERT_TRUE(stream) << stream.error().what;
  EXPECT_TRUE(supervisor.established().has_value());
  auto accepted = TlsStream::connect(late, client());
  EXPECT_TRUE(accepted) << accepted.error().what;
}

TEST_F(ProcessReloadTest, HandshakesInProgressGoOnWithWhatTheyBeganWith) {
  renew("first");
  const auto target = TcpListener::bind(free_address());
  ASSERT_TRUE(target);
  FakeSupervisor supervisor(base() + trunk(fmt::format("\"tls:{}\"", target->address().text()), trust()));
  supervisor.run();
  auto outbound = target->accept();
  auto inbound = TcpStream::connect(address_);
  ASSERT_TRUE(outbound && inbound);
  ASSERT_TRUE(eventually([&] { return supervisor.region().handshake().in_progress.read() == 2; }));
  for (std::uint32_t number = 1; number <= 3; ++number) {
    renew(fmt::format("later{}", number));
    ASSERT_EQ(prepare(supervisor, number).outcome, kReady);
    supervisor.send(ipc::Reload{.step = Step::kCommit, .number = number});
  }
  EXPECT_EQ(whom(), "later3");
  const auto server_end = TlsStream::accept(std::move(*outbound), server());
  EXPECT_TRUE(server_end) << server_end.error().what;
  auto client_end = TlsStream::handshake((*inbound)->take(), client());
  ASSERT_TRUE(client_end) << client_end.error().what;
  EXPECT_EQ((*client_end)->peer_common_name(), "first");
}

// A trunk waits for its next try, long: a reload may be what it needed.
TEST_F(ProcessReloadTest, WhatWaitsIsTriedAtOnceAfterAReload) {
  const Address address = free_address();
  FakeSupervisor supervisor(base() + trunk(fmt::format("\"tls:{}\"", address.text()), trust()));
  supervisor.timing.connector.first_wait = std::chrono::hours(1);
  supervisor.timing.connector.longest_wait = std::chrono::hours(2);
  supervisor.run();
  ASSERT_TRUE(eventually([&] { return supervisor.region().handshake().failed.read() == 1; }));
  const auto target = TcpListener::bind(address);
  ASSERT_TRUE(target);
  ASSERT_EQ(prepare(supervisor, 1).outcome, kReady);
  EXPECT_FALSE(target->accept(milliseconds(100)));
  supervisor.send(ipc::Reload{.step = Step::kCommit, .number = 1});
  EXPECT_TRUE(target->accept());
}

}  // namespace
}  // namespace ktrunk::test
