// The program itself, started as the supervisor starts it: channel on descriptor 3, Setup messages, Ready.
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "ipc/vault.h"
#include "process_fixture.h"

namespace ktrunk::test {
namespace {

class ProgramTest : public HandshakeProcessTest {
 protected:
  ~ProgramTest() override {
    channel_.reset();
    if (pid_ > 0) (void)end();
  }

  void start() {
    auto ends = ipc::Channel::pair();
    ASSERT_TRUE(ends);
    channel_.emplace(std::move(ends->first),
                     ipc::AcceptList{ipc::Kind::kHello, ipc::Kind::kUp, ipc::Kind::kEstablished});
    const Fd high(::fcntl(ends->second.get(), F_DUPFD_CLOEXEC, 100));  // dup2 onto itself would stay close-on-exec
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, high.get(), ipc::kChannelDescriptor);
    std::string program = KTRUNK_HANDSHAKE_PROGRAM;
    char* const argv[] = {program.data(), nullptr};
    ASSERT_EQ(::posix_spawn(&pid_, program.c_str(), &actions, nullptr, argv, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
  }
  // Waits for the program's end; its exit status as waitpid(2) tells it.
  [[nodiscard]] int end() {
    int status = -1;
    EXPECT_EQ(::waitpid(pid_, &status, 0), pid_);
    pid_ = -1;
    return status;
  }
  [[nodiscard]] std::optional<ipc::Packet> next() {
    pollfd entry = {.fd = channel_->descriptor(), .events = POLLIN, .revents = 0};
    if (::poll(&entry, 1, 15'000) <= 0) return {};
    std::optional<ipc::Packet> packet(std::in_place);
    const auto outcome = channel_->receive(*packet);
    if (!outcome || *outcome != ipc::Channel::Outcome::kMessage) return {};
    return packet;
  }
  void set_up(const std::string& text) {
    Fd memory(::memfd_create("config", MFD_CLOEXEC));
    ASSERT_EQ(::write(memory.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
    const ipc::Text<256> path("/etc/ktrunk.toml");
    ASSERT_TRUE(channel_->send(ipc::Setup{.what = ipc::Setup::What::kConfig, .path = path}, std::move(memory)));
    auto region = ipc::SharedRegion::create({.workers = 1, .max_connections = 512, .trunks = 0});
    ASSERT_TRUE(region);
    ASSERT_TRUE(channel_->send(ipc::Setup{.what = ipc::Setup::What::kRegion},
                               Fd(::fcntl(region->descriptor(), F_DUPFD_CLOEXEC, 0))));
    auto vault = ipc::Vault::create(512);
    ASSERT_TRUE(vault);
    ASSERT_TRUE(channel_->send(ipc::Setup{.what = ipc::Setup::What::kVault}, std::move(*vault)));
    Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(listener.get(), address_.data(), address_.size()), 0);
    ASSERT_EQ(::listen(listener.get(), 16), 0);
    ASSERT_TRUE(channel_->send(ipc::Setup{.what = ipc::Setup::What::kListener, .listener = ListenerId{0}},
                               std::move(listener)));
    ASSERT_TRUE(channel_->send(ipc::Ready{.worker = {}, .handshake = HandshakeIndex{0}}));
  }

  std::optional<ipc::Channel> channel_;
  pid_t pid_ = -1;
};

TEST_F(ProgramTest, ServesAndStops) {
  start();
  const auto hello = next();
  ASSERT_TRUE(hello && hello->kind() == ipc::Kind::kHello);
  EXPECT_EQ(hello->as<ipc::Hello>().role, ipc::Role::kHandshake);
  EXPECT_EQ(hello->as<ipc::Hello>().pid, pid_);
  set_up(base());
  const auto up = next();
  ASSERT_TRUE(up && up->kind() == ipc::Kind::kUp);
  const auto stream = connect(client());
  ASSERT_NE(stream, nullptr);
  auto established = next();
  ASSERT_TRUE(established && established->kind() == ipc::Kind::kEstablished);
  const Fd relay = established->take_descriptor();
  for (const int signal : {SIGINT, SIGTERM, SIGPIPE, SIGHUP}) EXPECT_EQ(::kill(pid_, signal), 0);
  ASSERT_TRUE(stream->write_all("unmoved by signals"));
  EXPECT_EQ(receive_packet(relay), "unmoved by signals");
  ASSERT_TRUE(channel_->send(ipc::Stop{}));
  EXPECT_EQ(stream->read_some(), "");
  const int status = end();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST_F(ProgramTest, EndsWhenTheChannelDoes) {
  start();
  ASSERT_TRUE(next());
  set_up(base());
  const auto up = next();
  ASSERT_TRUE(up && up->kind() == ipc::Kind::kUp);
  const auto stream = connect(client());
  ASSERT_TRUE(next());
  channel_.reset();
  const int status = end();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1) << status;
}

TEST_F(ProgramTest, EndsWhenItIsSetUpWithNonsense) {
  start();
  ASSERT_TRUE(next());
  set_up("[ktrunk]\nnonsense = 1\n");
  const int status = end();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1) << status;
}

TEST_F(ProgramTest, ChecksWhatOnlyItCan) {
  const auto run = [&](const std::string& text) {
    const std::string file = folder_.write("check.toml", text);
    auto process = Process::start(
        {.argv = {KTRUNK_HANDSHAKE_PROGRAM, "--check", file}, .env = {}, .output = folder_.file("check.out")});
    if (!process) return -1;
    const auto exit = process->wait(milliseconds(15'000));
    return exit ? exit->code : -1;
  };
  EXPECT_EQ(run(base()), 0);
  const auto other = authority_.issue({.name = "other", .common_name = "", .dns = {"other.example"}});
  server_.key = other.key;  // of another certificate
  EXPECT_EQ(run(base()), 1);
  EXPECT_EQ(run("nonsense"), 1);
}

}  // namespace
}  // namespace ktrunk::test
