// ktrunk.token_key_file: dialogs that outlive a restart of ktrunkd, and those that do not.
#include <sys/stat.h>

#include <filesystem>

#include "system/daemon_fixture.h"
#include "system/trunk_peer.h"

namespace ktrunk::test {
namespace {

using testing::HasSubstr;

class Restart : public DaemonTest {
 protected:
  [[nodiscard]] std::string config(const std::string& more = {}) const {
    return fmt::format(
        "[[listen]]\nname = \"edge-tcp\"\ntransport = \"tcp\"\naddress = \"{0}\"\n"
        "[[listen]]\nname = \"edge-udp\"\ntransport = \"udp\"\naddress = \"{1}\"\n"
        "{3}[[trunk]]\nname = \"a\"\nsources = [\"127.0.0.77\"]\nlisten = \"edge-tcp\"\n"
        "[[trunk]]\nname = \"b\"\ntargets = [\"udp:{2}\"]\nlisten = \"edge-udp\"\n[[route]]\nto = \"b\"\n",
        edge_tcp_.text(), edge_udp_.text(), peer_->address().text(), more);
  }
  // With the key file, unless `file` is another or none.
  void run(const std::string& text, const std::optional<std::string>& file = std::nullopt) {
    const std::string path = file.value_or(key_file_);
    auto daemon = Daemon::launch({.config = text,
                                  .ktrunk_lines = path.empty() ? "" : fmt::format("token_key_file = \"{}\"\n", path),
                                  .env = {},
                                  .timeout = kLong});
    ASSERT_TRUE(daemon) << daemon.error().what;
    daemon_ = std::move(*daemon);
    const Status up = daemon_->wait_status([](const Json& now) { return now["trunks"][1]["state"] == "up"; });
    ASSERT_TRUE(up) << up.error().what;
  }
  void stop() {
    const Status stopped = daemon_->stop();
    ASSERT_TRUE(stopped) << stopped.error().what;
  }
  [[nodiscard]] std::unique_ptr<SipStream> caller() const {
    return std::make_unique<SipStream>(connect_from(Address::from_ip("127.0.0.77", 0).value(), edge_tcp_));
  }
  [[nodiscard]] static SipMessage request(const std::string& method) {
    return make_request({.method = method,
                         .uri = "sip:bob@b.test",
                         .transport = "TCP",
                         .branch = "",
                         .call_id = "restart",
                         .body = ""});
  }
  // The INVITE as b gets it, answered.
  SipMessage begin_dialog(SipStream& from) {
    EXPECT_TRUE(from.send(request("INVITE")));
    const auto got = peer_->receive(kLong);
    EXPECT_TRUE(got) << daemon_->log();
    if (!got) return {};
    EXPECT_TRUE(peer_->send(make_response(got->first, 200, "OK"), got->second));
    const auto answer = from.receive(kLong);
    EXPECT_TRUE(answer);
    return got->first;
  }
  // The caller's BYE by the dialog's route set, which it has from the Record-Route in reverse; b's has it as it is.
  [[nodiscard]] static SipMessage bye(const SipMessage& invite, bool by_caller) {
    SipMessage made = request("BYE");
    made.set("To", "<sip:bob@b.test>;tag=b1");
    std::vector<std::string> routes = invite.all("Record-Route");
    if (by_caller) std::ranges::reverse(routes);
    for (const std::string& route : routes) made.add("Route", route);
    return made;
  }

  TempFolder folder_;
  std::string key_file_ = folder_.file("token.key");
  std::optional<SipDatagrams> peer_ = std::move(*SipDatagrams::bind(fresh_address()));
};

TEST_F(Restart, DialogsGoOnWithTheSameKey) {
  ASSERT_NO_FATAL_FAILURE(run(config()));
  struct stat file{};
  ASSERT_EQ(::stat(key_file_.c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777u, 0600u);
  EXPECT_EQ(file.st_size, 32);
  auto stream = caller();
  const SipMessage invite = begin_dialog(*stream);
  ASSERT_NO_FATAL_FAILURE(stop());
  ASSERT_NO_FATAL_FAILURE(run(config()));

  // From the caller's side, by a new connection.
  stream = caller();
  ASSERT_TRUE(stream->send(bye(invite, true)));
  const auto got = peer_->receive(kLong);
  ASSERT_TRUE(got) << daemon_->log();
  EXPECT_EQ(got->first.method(), "BYE");
  EXPECT_TRUE(got->first.all("Route").empty());
  ASSERT_TRUE(peer_->send(make_response(got->first, 200, "OK"), got->second));
  const auto answer = stream->receive(kLong);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status(), 200);
  // From the other side: to a connection of that trunk.
  ASSERT_TRUE(peer_->send(bye(invite, false), edge_udp_));
  const auto back = stream->receive(kLong);
  ASSERT_TRUE(back) << back.error().what << daemon_->log();
  EXPECT_EQ(back->method(), "BYE");
}

TEST_F(Restart, NotWithoutAKeyNorWithOtherTrunks) {
  for (const bool with_key : {false, true}) {
    const std::optional<std::string> file = with_key ? std::nullopt : std::optional<std::string>("");
    ASSERT_NO_FATAL_FAILURE(run(config(), file));
    auto stream = caller();
    const SipMessage invite = begin_dialog(*stream);
    ASSERT_NO_FATAL_FAILURE(stop());
    // The places of the others are new ones.
    ASSERT_NO_FATAL_FAILURE(
        run(config(with_key ? fmt::format("[[listen]]\nname = \"new\"\ntransport = \"tcp\"\naddress = \"{}\"\n",
                                          fresh_address().text())
                            : ""),
            file));
    stream = caller();
    EXPECT_TRUE(answers(*stream, bye(invite, true), 403));
    ASSERT_NO_FATAL_FAILURE(stop());
  }
}

TEST_F(Restart, AKeyThatOthersMayReadIsRefused) {
  ASSERT_NO_FATAL_FAILURE(run(config()));
  ASSERT_NO_FATAL_FAILURE(stop());
  ASSERT_EQ(::chmod(key_file_.c_str(), 0640), 0);
  auto refused = Daemon::launch({.config = config(),
                                 .ktrunk_lines = fmt::format("token_key_file = \"{}\"\n", key_file_),
                                 .env = {},
                                 .timeout = kLong});
  ASSERT_TRUE(refused) << refused.error().what;
  const auto exit = (*refused)->process().wait(kLong);
  ASSERT_TRUE(exit);
  EXPECT_NE(exit->code, 0);
  EXPECT_THAT((*refused)->log(), HasSubstr("others may read it, or it is no file; expected mode 0600"));
  ASSERT_EQ(::chmod(key_file_.c_str(), 0600), 0);
  std::filesystem::resize_file(key_file_, 31);
  refused = Daemon::launch({.config = config(),
                            .ktrunk_lines = fmt::format("token_key_file = \"{}\"\n", key_file_),
                            .env = {},
                            .timeout = kLong});
  ASSERT_TRUE(refused);
  ASSERT_TRUE((*refused)->process().wait(kLong));
  EXPECT_THAT((*refused)->log(), HasSubstr("is not a key of 32 octets"));
}

}  // namespace
}  // namespace ktrunk::test
