// Upgrades under load: connections stay, no message is lost or doubled; and next versions that come to nothing: the old
// one goes on.
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <mutex>

#include "cli/control_client.h"
#include "system/caller.h"
#include "system/daemon_fixture.h"

namespace ktrunk::test {
namespace {

using testing::HasSubstr;

// As Echo, and knows what came more than once.
class CountingPbx {
 public:
  explicit CountingPbx(SipStream& stream)
      : thread_([this, &stream](const std::stop_token& stop) { serve(stream, stop); }) {}
  [[nodiscard]] std::size_t doubled() {
    thread_.request_stop();
    if (thread_.joinable()) thread_.join();
    return doubled_;
  }

 private:
  void serve(SipStream& stream, const std::stop_token& stop) {
    std::set<std::string> seen;
    while (!stop.stop_requested()) {
      const auto message = stream.receive_or_end(milliseconds(100));
      if (!message && message.error().code == ETIMEDOUT) continue;
      if (!message || !*message) return;
      if (!seen.insert((*message)->header("Call-ID")).second) ++doubled_;
      SipMessage response = make_response(**message, 200, "OK");
      response.body = (*message)->body;
      if (!stream.send(response)) return;
    }
  }
  std::size_t doubled_ = 0;
  std::jthread thread_;
};

class UpgradeTest : public DaemonTest {
 protected:
  // ktrunkd is run by a link in a folder: what the link names is the next version.
  void begin(const std::map<std::string, std::string>& env = {}) {
    next_is(built_program("ktrunkd"));
    ASSERT_NO_FATAL_FAILURE(start(
        {.ktrunk_lines = fmt::format("quarantine = \"{}\"\nhandshake_processes = 2\n", folder_.file("quarantine")),
         .program = link(),
         .env = env}));
  }
  [[nodiscard]] std::string link() const { return folder_.file("ktrunkd"); }
  void next_is(const std::filesystem::path& program) const {
    std::filesystem::create_symlink(program, folder_.file("next"));
    std::filesystem::rename(folder_.file("next"), link());
  }
  void next_is_script(const std::string& text) const { next_is(script("version/ktrunkd", text)); }
  // A next version of which one program is a script.
  void next_has(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories(folder_.file("version"));
    for (const std::string each : {"ktrunkd", "ktrunkd-handshake", "ktrunkd-worker"}) {
      const std::filesystem::path to = folder_.file("version/" + each);
      std::filesystem::remove(to);
      if (each == name) {
        (void)script("version/" + each, text);
      } else if (each == "ktrunkd") {
        std::filesystem::copy_file(built_program(each), to);  // where it is, its children are looked for
      } else {
        std::filesystem::create_symlink(built_program(each), to);
      }
    }
    next_is(folder_.file("version/ktrunkd"));
  }
  std::filesystem::path script(const std::string& name, const std::string& text) const {
    const std::filesystem::path path = folder_.file(name);
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << "#!/bin/sh\n" << text << "\n";
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
    return path;
  }
  Json upgrade() {
    const auto answer = cli::ask(daemon_->control_socket(), "upgrade", cli::kUpgradeTimeout);
    EXPECT_TRUE(answer) << answer.error().what << daemon_->log();
    return answer ? *answer : Json{{"upgrade", "none"}};
  }
  std::map<std::string, pid_t> pids() {
    std::map<std::string, pid_t> all;
    const Json now = status();
    for (const Json& process : now["processes"]) all[process["name"]] = process["pid"];
    return all;
  }
  // Nothing has happened: the same processes, the same connections.
  void expect_old_goes_on(const Json& before, SipStream& caller) {
    const Json now = status();
    EXPECT_EQ(now["version"], before["version"]);
    EXPECT_EQ(of_trunk(now, "pbx-tls").at(0)["peer"], of_trunk(before, "pbx-tls").at(0)["peer"]);
    Echo pbx(*pbx_tls_);
    EXPECT_TRUE(answers(caller, request_to("tls.test", "still here"), 200));
    auto another = call_in();
    ASSERT_NE(another, nullptr);
    SipStream sip(std::move(another));
    EXPECT_TRUE(answers(sip, request_to("tls.test", "new"), 200));
  }
  TempFolder folder_;
};

TEST_F(UpgradeTest, UnderLoadNothingEndsAndNothingIsLostOrDoubled) {
  ASSERT_NO_FATAL_FAILURE(begin());
  const pid_t self = daemon_->process().pid();
  const auto trunk = of_trunk(status(), "pbx-tls").at(0);
  const bool kernel = kernel_records();
  const auto descriptors = settled_descriptors();
  CountingPbx pbx(*pbx_tls_);
  CountingPbx pbx_tcp(*pbx_tcp_);
  std::vector<std::unique_ptr<Caller>> callers;
  for (unsigned i = 0; i < 3; ++i) {
    auto stream = call_in();
    ASSERT_NE(stream, nullptr);
    callers.push_back(std::make_unique<Caller>(std::move(stream), i));
  }
  auto tcp = call_in_tcp();
  ASSERT_NE(tcp, nullptr);
  callers.push_back(std::make_unique<Caller>(std::move(tcp), 7, "tcp.test"));
  const unsigned upgrades = std::max(3U, 20 / scale());
  for (unsigned i = 0; i < upgrades; ++i) {
    const auto before = pids();
    const Json answer = upgrade();
    ASSERT_EQ(answer["upgrade"], "done") << answer.dump(2) << daemon_->log();
    const auto after = pids();
    for (const char* name : {"handshake/0", "handshake/1", "worker/0", "worker/1"})
      EXPECT_NE(after.at(name), before.at(name)) << name;
    for (const auto& caller : callers) ASSERT_EQ(caller->problem, "") << daemon_->log();
    auto another = call_in();
    ASSERT_NE(another, nullptr);
    SipStream sip(std::move(another));
    ASSERT_TRUE(answers(sip, request_to("tls.test", "new"), 200));
  }
  std::size_t answered = 0;
  for (const auto& caller : callers) {
    caller->finish();
    EXPECT_EQ(caller->problem, "") << daemon_->log();
    EXPECT_EQ(caller->missing.size(), 0U);
    EXPECT_EQ(caller->doubled, 0U);
    answered += caller->answered;
  }
  EXPECT_EQ(pbx.doubled(), 0U);
  EXPECT_EQ(pbx_tcp.doubled(), 0U);
  EXPECT_FALSE(std::filesystem::exists(folder_.file("quarantine")));
  EXPECT_TRUE(daemon_->process().running());
  EXPECT_EQ(daemon_->process().pid(), self);
  EXPECT_EQ(of_trunk(status(), "pbx-tls").at(0)["id"], trunk["id"]) << "it is the same connection";
  callers.clear();
  EXPECT_TRUE(eventually(
      [&] {
        auto now = settled_descriptors();
        for (const auto& [name, count] : descriptors) {
          // Relayed, the trunk's connection has kept a former process.
          if (now[name] > count + (kernel ? 0 : 1)) return false;
        }
        return true;
      },
      kLong))
      << "descriptors are left open";
  fmt::print("{} upgrades, {} messages answered\n", upgrades, answered);
}

TEST_F(UpgradeTest, BySignalAndByTheCommand) {
  ASSERT_NO_FATAL_FAILURE(begin());
  const auto before = pids();
  ASSERT_EQ(::kill(daemon_->process().pid(), SIGUSR2), 0);
  EXPECT_TRUE(eventually([&] { return daemon_->log().find("upgrade done") != std::string::npos; }, kLong))
      << daemon_->log();
  EXPECT_NE(pids().at("worker/1"), before.at("worker/1"));
  const TempFolder out;
  auto command = Process::start({.argv = {built_program("ktrunk"), "upgrade", "--socket", daemon_->control_socket()},
                                 .env = {},
                                 .output = out.file("log")});
  ASSERT_TRUE(command);
  auto exit = command->wait(kLong);
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->code, 0) << command->output();
  EXPECT_THAT(command->output(), HasSubstr("upgraded"));
  next_is_script("exit 3");
  command = Process::start({.argv = {built_program("ktrunk"), "upgrade", "--socket", daemon_->control_socket()},
                            .env = {},
                            .output = out.file("log2")});
  ASSERT_TRUE(command);
  exit = command->wait(kLong);
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->code, 1);
  EXPECT_THAT(command->output(), HasSubstr("exit status 3"));
}

TEST_F(UpgradeTest, NextVersionsThatDoNotGetThroughTheRehearsal) {
  ASSERT_NO_FATAL_FAILURE(begin({{"KTRUNK_MISBEHAVE", "layout"}}));
  auto stream = call_in();
  ASSERT_NE(stream, nullptr);
  SipStream caller(std::move(stream));
  const Json before = status();
  const auto refused = [&](const std::string& why) {
    const auto processes = pids();
    const Json answer = upgrade();
    EXPECT_EQ(answer["upgrade"], "failed") << answer.dump(2);
    EXPECT_THAT(answer.dump(), HasSubstr(why));
    EXPECT_EQ(pids(), processes);
    expect_old_goes_on(before, caller);
  };
  next_is_script("exit 1");
  refused("exit status 1");
  next_is_script("kill -SEGV $$");
  refused("signal 11");
  next_is_script("sleep 1000");
  refused("does not say within");
  std::filesystem::remove(link());
  refused("ktrunkd");
  next_is(built_program("ktrunkd_misbehaving"));
  refused("another layout");
  next_has("ktrunkd-worker", "echo other");
  refused("another layout");
  next_has("ktrunkd-handshake", "kill -ABRT $$");
  refused("does not say its layout");
  next_is(built_program("ktrunkd"));
  EXPECT_EQ(upgrade()["upgrade"], "done") << daemon_->log();
  expect_old_goes_on(before, caller);
}

// The rehearsal was well: the take-over, or the children's start, is not.
class Relapse : public UpgradeTest {
 protected:
  void expect_roll_back(const std::string& why) {
    auto stream = call_in();
    ASSERT_NE(stream, nullptr);
    SipStream caller(std::move(stream));
    const Json before = status();
    const Json answer = upgrade();
    EXPECT_EQ(answer["upgrade"], "rolled back") << answer.dump(2) << daemon_->log();
    EXPECT_THAT(answer.dump(), HasSubstr(why));
    expect_old_goes_on(before, caller);
    next_is(built_program("ktrunkd"));
    EXPECT_EQ(upgrade()["upgrade"], "done") << daemon_->log();
    expect_old_goes_on(before, caller);
  }
  void take_over_fails(const std::string& how, const std::string& why) {
    ASSERT_NO_FATAL_FAILURE(begin({{"KTRUNK_MISBEHAVE", how}}));
    next_is(built_program("ktrunkd_misbehaving"));
    expect_roll_back(why);
  }
  void child_fails(const std::string& name, const std::string& text) {
    ASSERT_NO_FATAL_FAILURE(begin());
    next_has(name, fmt::format("case \"$1\" in -*) exec {} \"$@\";; esac\n{}", built_program(name), text));
    expect_roll_back(name == "ktrunkd-worker" ? "worker/0" : "handshake/0");
  }
};

TEST_F(Relapse, ItCrashesWhenItTakesOver) { take_over_fails("crash", "crashed"); }
TEST_F(Relapse, ItHangsWhenItTakesOver) { take_over_fails("hang", "in time"); }
TEST_F(Relapse, ItFailsWhenItTakesOver) { take_over_fails("refuse", "layout"); }
TEST_F(Relapse, ItsWorkerCrashes) { child_fails("ktrunkd-worker", "kill -SEGV $$"); }
TEST_F(Relapse, ItsWorkerEnds) { child_fails("ktrunkd-worker", "exit 0"); }
TEST_F(Relapse, ItsHandshakeProcessEnds) { child_fails("ktrunkd-handshake", "exit 1"); }
TEST_F(Relapse, ItsWorkerHangs) { child_fails("ktrunkd-worker", "exec sleep 1000"); }

// The configuration in force stays: what has become of its file is for reload and restart. Certificates are read again,
// and must be good.
TEST_F(UpgradeTest, FilesThatHaveChanged) {
  ASSERT_NO_FATAL_FAILURE(begin());
  auto stream = call_in();
  ASSERT_NE(stream, nullptr);
  SipStream caller(std::move(stream));
  const Json before = status();
  std::ofstream(daemon_->config_file()) << "[ktrunk]\nno_such_key = 1\n";
  EXPECT_EQ(upgrade()["upgrade"], "done") << daemon_->log();
  expect_old_goes_on(before, caller);
  const std::string certificate = certificates().edge.certificate;
  const std::string kept = folder_.file("kept.pem");
  std::filesystem::copy_file(certificate, kept);
  std::ofstream(certificate) << "no PEM\n";
  const Json answer = upgrade();
  std::filesystem::copy_file(kept, certificate, std::filesystem::copy_options::overwrite_existing);
  EXPECT_EQ(answer["upgrade"], "failed") << answer.dump(2);
  EXPECT_THAT(answer.dump(), HasSubstr("cannot be used"));
  expect_old_goes_on(before, caller);
}

}  // namespace
}  // namespace ktrunk::test
