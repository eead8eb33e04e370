// What the tests with other people's programs share: a ktrunkd with a listener of each transport, programs to talk to,
// and a user agent behind a trunk.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <variant>
#include <vector>

#include "support/certificates.h"
#include "support/daemon.h"
#include "support/ktls_available.h"
#include "support/process.h"
#include "support/sip_peer.h"
#include "support/tls_peer.h"

namespace ktrunk::test {

using Json = nlohmann::ordered_json;

inline constexpr milliseconds kLong{120'000};  // for a program's whole job, on an emulated machine

// Made once for the whole program.
struct Certificates {
  TempFolder folder;
  CertificateAuthority ca{folder.path(), "ca"};
  std::string ip = free_address().ip();  // of every address of this process
  CertificateFiles edge = ca.issue({.name = "edge", .common_name = "edge", .dns = {"edge.test"}, .ips = {ip}});
  CertificateFiles carrier = ca.issue({.name = "carrier", .common_name = "carrier", .dns = {"carrier.test"}});
  CertificateFiles pbx = ca.issue({.name = "pbx", .common_name = "pbx", .dns = {"pbx.test"}});
};
[[nodiscard]] const Certificates& certificates();

// Empty when the program is in PATH, else what to install.
[[nodiscard]] std::string missing_program(const std::string& program, const std::string& package);

// A program that the test talks to. Its standard input stays open until hang_up() or the end.
class Conversation {
 public:
  // Fatal failure of the test, and null, if it cannot be started.
  [[nodiscard]] static std::unique_ptr<Conversation> start(const std::vector<std::string>& argv);

  Status say(std::string_view text);
  void hang_up() { input_.reset(); }
  // True once its output has the text; false when it ended without, or at the time limit.
  [[nodiscard]] bool heard(std::string_view text, milliseconds timeout = kLong);
  // The first message in its output that begins with this text, once it is there.
  [[nodiscard]] Result<SipMessage> message(std::string_view start, milliseconds timeout = kLong);
  // True if it ends by itself with this code.
  testing::AssertionResult ends_with(int code, milliseconds timeout = kLong);
  [[nodiscard]] std::string output() const { return process_->output(); }

 private:
  Conversation() = default;
  TempFolder folder_;
  Fd input_;  // the writing end of a FIFO
  std::optional<Process> process_;
};

// A user agent server behind a trunk: answers every request but ACK with 200, and keeps what it got.
class Uas {
 public:
  Uas(TcpListener listener, TlsOptions tls) : end_(Stream{std::move(listener), std::move(tls)}) { run(); }
  explicit Uas(SipDatagrams datagrams) : end_(std::move(datagrams)) { run(); }

  [[nodiscard]] Address address() const;
  [[nodiscard]] std::vector<SipMessage> requests() const;

 private:
  struct Stream {
    TcpListener listener;
    TlsOptions tls;
  };
  void run();
  void serve_streams(const Stream& end, const std::stop_token& stop);
  void serve_datagrams(const SipDatagrams& end, const std::stop_token& stop);
  [[nodiscard]] std::optional<SipMessage> answer(const SipMessage& message);

  std::variant<Stream, SipDatagrams> end_;
  mutable std::mutex mutex_;
  std::vector<SipMessage> requests_;
  std::jthread thread_;  // last: it uses what is above
};

class InteropTest : public testing::Test {
 protected:
  // Fatal failure when ktrunkd does not come up with every trunk connected. Tables: further trunks, and the routes.
  void start(const std::string& tables = "");
  // A trunk "pbx" over TLS to this address, which gets every request that has no other route.
  [[nodiscard]] static std::string pbx_at(const Address& address);
  void TearDown() override;

  // OPTIONS to ktrunkd itself.
  [[nodiscard]] SipMessage options_to_us() const;
  // The status's open TLS connections of a trunk; "" is no trunk.
  [[nodiscard]] std::vector<Json> tls_connections(std::string_view trunk) const;
  // The record layer is the kernel's if it must be, or one of the two that there are.
  static testing::AssertionResult record_layer_fits(const Json& connection);
  [[nodiscard]] static TlsOptions as_pbx();

  Address edge_tls_ = free_address();
  Address edge_bare_ = free_address();  // TLS without session tickets
  Address edge_tcp_ = free_address();
  Address edge_udp_ = free_address();
  std::unique_ptr<Daemon> daemon_;
};

}  // namespace ktrunk::test

// At the start of a test body: returns from it when the program is not installed; a failure in continuous integration.
#define KTRUNK_REQUIRE(missing_text)                                        \
  do {                                                                      \
    const std::string ktrunk_missing = (missing_text);                      \
    if (!ktrunk_missing.empty()) {                                          \
      if (std::getenv("CI") != nullptr) FAIL() << "CI: " << ktrunk_missing; \
      GTEST_SKIP() << ktrunk_missing;                                       \
    }                                                                       \
  } while (false)
