// The same with other people's clients: openssl s_client and gnutls-cli against a listener's context.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <stop_token>
#include <thread>

#include "handshake/ticket_keys.h"
#include "handshake/tls_test_peer.h"
#include "handshake/tls_test_pki.h"
#include "support/process.h"

namespace ktrunk::handshake {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// Accepts one connection after another on 127.0.0.1, says "hello" and how the session came about, ends with
// close_notify.
class Server {
 public:
  explicit Server(const TlsContext& context) : context_(context) {
    socket_ = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), length), 0);
    EXPECT_EQ(::listen(socket_.get(), 8), 0);
    EXPECT_EQ(::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
  }
  [[nodiscard]] std::string address() const { return fmt::format("127.0.0.1:{}", port_); }
  [[nodiscard]] std::string port() const { return std::to_string(port_); }

 private:
  static bool wait(int fd, short events) {
    pollfd entry{fd, events, 0};
    return ::poll(&entry, 1, 100) == 1;
  }
  void run(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      if (!wait(socket_.get(), POLLIN)) continue;
      Fd peer(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (peer.valid()) serve(std::move(peer), stop);
    }
  }
  void serve(Fd peer, const std::stop_token& stop) {
    auto session = TlsSession::accept(context_, std::move(peer));
    auto step = TlsSession::Step::kWantRead;
    while (!stop.stop_requested() && (step == TlsSession::Step::kWantRead || step == TlsSession::Step::kWantWrite)) {
      step = session->step();
      if (step == TlsSession::Step::kWantRead) wait(session->fd(), POLLIN);
    }
    if (step != TlsSession::Step::kDone) return;
    const std::string text = session->negotiated().resumed ? "hello, resumed\n" : "hello, new\n";
    (void)session->write(std::as_bytes(std::span(text)));
    (void)session->shutdown();
    std::array<std::byte, 1024> drop = {};
    for (int i = 0; i < 100 && !stop.stop_requested(); ++i) {  // until the client hangs up
      const auto outcome = session->read(drop).outcome;
      if (outcome == TlsSession::Io::kWantRead) {
        wait(session->fd(), POLLIN);
      } else if (outcome != TlsSession::Io::kBytes) {
        return;
      }
    }
  }

  const TlsContext& context_;
  Fd socket_;
  std::uint16_t port_ = 0;
  std::jthread thread_;  // last
};

class ProgramsTest : public testing::Test {
 protected:
  ProgramsTest() {
    listener_.tls.ocsp = pki_.write_file("default.ocsp", pki_.ocsp(default_));
    listener_.tls.alpn = config::Alpn::kAccept;
    listener_.certificates = {{rsa_.certificate, rsa_.key, "", {}}, {other_.certificate, other_.key, "", {}}};
  }
  std::string run(std::vector<std::string> argv) {
    const std::string output = folder_.file(fmt::format("{}.txt", ++runs_));
    auto process = test::Process::start({.argv = std::move(argv), .env = {}, .output = output});
    EXPECT_TRUE(process.has_value()) << process.error().what;
    if (!process) return {};
    EXPECT_TRUE(process->wait(std::chrono::seconds(30)).has_value());
    return process->output();
  }
  std::string s_client(const Server& server, const std::vector<std::string>& options) {
    std::vector<std::string> argv = {"openssl",        "s_client", "-ign_eof",           "-connect",
                                     server.address(), "-CAfile",  pki_.authority_file()};
    argv.insert(argv.end(), options.begin(), options.end());
    return run(std::move(argv));
  }
  TlsContext context(TicketKeys* keys = nullptr) {
    auto made = TlsContext::for_listener(listener_, keys);
    EXPECT_TRUE(made.has_value()) << made.error().what;
    return std::move(made.value());
  }

  test::TempFolder folder_;
  int runs_ = 0;
  test::Pki pki_;
  test::Pki::Files default_ = pki_.issue({.common_name = "default", .names = "DNS:a.example"});
  test::Pki::Files rsa_ = pki_.issue({.common_name = "default-rsa", .names = "DNS:a.example", .rsa = true});
  test::Pki::Files other_ = pki_.issue({.common_name = "other", .names = "DNS:*.b.example"});
  config::Listener listener_ = pki_.listener(default_);
};

TEST_F(ProgramsTest, OpensslAsksForNamesAndKindsOfKey) {
  const TlsContext with = context();
  const Server server(with);
  EXPECT_THAT(s_client(server, {"-noservername"}), HasSubstr("subject=CN = default\n"));
  EXPECT_THAT(
      s_client(server, {"-servername", "x.b.example", "-verify_hostname", "x.b.example", "-verify_return_error"}),
      AllOf(HasSubstr("subject=CN = other\n"), HasSubstr("Verification: OK")));
  EXPECT_THAT(s_client(server, {"-servername", "a.example", "-sigalgs", "RSA-PSS+SHA256:RSA+SHA256"}),
              HasSubstr("subject=CN = default-rsa\n"));
  EXPECT_THAT(s_client(server, {"-servername", "a.example", "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"}),
              HasSubstr("subject=CN = default-rsa\n"));
}

TEST_F(ProgramsTest, OpensslAsksForTheStapleAndTheProtocol) {
  const TlsContext with = context();
  const Server server(with);
  for (const char* version : {"-tls1_2", "-tls1_3"}) {
    EXPECT_THAT(s_client(server, {version, "-status", "-sigalgs", "ECDSA+SHA256", "-alpn", "h2,sip/2"}),
                AllOf(HasSubstr("OCSP Response Status: successful"), HasSubstr("Cert Status: good"),
                      HasSubstr("ALPN protocol: sip/2"), HasSubstr("hello")));
    EXPECT_THAT(s_client(server, {version, "-status", "-servername", "x.b.example"}),
                HasSubstr("OCSP response: no response sent"));
    EXPECT_THAT(s_client(server, {version, "-alpn", "h2"}),
                AllOf(HasSubstr("no application protocol"), Not(HasSubstr("hello"))));
  }
}

TEST_F(ProgramsTest, OpensslShowsARevokedCertificate) {
  const auto client = pki_.issue({.common_name = "client"});
  listener_.verify_client = config::ClientVerification::kRequire;
  listener_.tls.ca = pki_.authority_file();
  listener_.tls.crl = pki_.write_file("list.pem", pki_.revocations({client}));
  const TlsContext with = context();
  const Server server(with);
  EXPECT_THAT(s_client(server, {"-cert", client.certificate, "-key", client.key}),
              AllOf(HasSubstr("certificate revoked"), Not(HasSubstr("hello"))));
  EXPECT_THAT(s_client(server, {}), AllOf(HasSubstr("certificate required"), Not(HasSubstr("hello"))));
}

TEST_F(ProgramsTest, OpensslResumesInAnotherProcess) {
  ipc::TicketKeyRing ring{};
  auto first = TicketKeys::on(ring, HandshakeIndex{0}, std::chrono::hours(1)).value();
  auto second = TicketKeys::on(ring, HandshakeIndex{1}, std::chrono::hours(1)).value();
  ASSERT_TRUE(first.rotate_if_due(TicketKeys::Clock::now()));
  const TlsContext here = context(&first);
  const TlsContext there = context(&second);
  const Server one(here);
  const Server two(there);
  for (const char* version : {"-tls1_2", "-tls1_3"}) {
    const std::string session = folder_.file(fmt::format("session{}", version));
    EXPECT_THAT(s_client(one, {version, "-sess_out", session}), HasSubstr("hello, new"));
    EXPECT_THAT(s_client(two, {version, "-sess_in", session}),
                AllOf(HasSubstr("hello, resumed"), HasSubstr("Reused, ")));
  }
}

TEST_F(ProgramsTest, GnutlsAsksForNameProtocolAndResumption) {
  if (::access("/usr/bin/gnutls-cli", X_OK) != 0) GTEST_SKIP() << "no gnutls-cli (package gnutls-bin)";
  ipc::TicketKeyRing ring{};
  auto keys = TicketKeys::on(ring, HandshakeIndex{0}, std::chrono::hours(1)).value();
  ASSERT_TRUE(keys.rotate_if_due(TicketKeys::Clock::now()));
  const TlsContext with = context(&keys);
  const Server server(with);
  const auto client = [&](const std::vector<std::string>& options) {
    std::vector<std::string> argv = {"gnutls-cli", "--x509cafile", pki_.authority_file(), "--port", server.port()};
    argv.insert(argv.end(), options.begin(), options.end());
    argv.emplace_back("127.0.0.1");
    return run(std::move(argv));
  };
  EXPECT_THAT(client({"--sni-hostname=x.b.example", "--verify-hostname=x.b.example", "--alpn=sip/2"}),
              AllOf(HasSubstr("subject `CN=other'"), HasSubstr("The certificate is trusted"),
                    HasSubstr("Application protocol: sip/2")));
  EXPECT_THAT(client({"--sni-hostname=a.example", "--verify-hostname=a.example", "--save-ocsp=" + folder_.file("o")}),
              HasSubstr("subject `CN=default"));
  EXPECT_THAT(client({"--sni-hostname=a.example", "--verify-hostname=a.example", "--alpn=h2"}),
              HasSubstr("No supported application protocol"));
}

}  // namespace
}  // namespace ktrunk::handshake
