#include "interop/interop_fixture.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <ranges>

namespace ktrunk::test {
namespace {

constexpr milliseconds kGlance{100};  // how long a thread waits before it looks whether it is to stop

bool timed_out(const Error& error) { return error.code == ETIMEDOUT; }

}  // namespace

const Certificates& certificates() {
  static const Certificates made;
  return made;
}

Address Uas::address() const {
  if (const auto* stream = std::get_if<Stream>(&end_)) return stream->listener.address();
  return std::get<SipDatagrams>(end_).address();
}

std::vector<SipMessage> Uas::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

void Uas::run() {
  thread_ = std::jthread([this](const std::stop_token& stop) {
    if (const auto* stream = std::get_if<Stream>(&end_)) {
      serve_streams(*stream, stop);
    } else {
      serve_datagrams(std::get<SipDatagrams>(end_), stop);
    }
  });
}

void Uas::serve_streams(const Stream& end, const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    auto socket = end.listener.accept(kGlance);
    if (!socket) continue;
    auto tls = TlsStream::accept(std::move(*socket), end.tls);
    if (!tls) continue;
    SipStream stream(std::move(*tls));
    while (!stop.stop_requested()) {
      const auto message = stream.receive_or_end(kGlance);
      if (!message && timed_out(message.error())) continue;
      if (!message || !*message) break;
      const auto response = answer(**message);
      if (response && !stream.send(*response)) break;
    }
  }
}

void Uas::serve_datagrams(const SipDatagrams& end, const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    const auto got = end.receive(kGlance);
    if (!got) continue;
    if (const auto response = answer(got->first)) (void)end.send(*response, got->second);
  }
}

std::optional<SipMessage> Uas::answer(const SipMessage& message) {
  if (!message.is_request()) return std::nullopt;
  {
    const std::lock_guard lock(mutex_);
    requests_.push_back(message);
  }
  if (message.method() == "ACK") return std::nullopt;
  SipMessage response = make_response(message, 200, "OK");
  // RFC 3261 10.3: a registrar lists the bindings.
  if (message.method() == "REGISTER") response.add("Contact", message.header("Contact"));
  return response;
}

void InteropTest::start(const std::string& tables, const std::string& ktrunk_lines, unsigned workers) {
  const Certificates& files = certificates();
  auto daemon =
      Daemon::start({.config = fmt::format(R"(
[limits]
handshake = "5m"

[[listen]]
name = "edge-tls"
transport = "tls"
address = "{0}"
certificate = "{4}"
key = "{5}"
ca = "{6}"
verify_client = "optional"

[[listen]]
name = "edge-bare"
transport = "tls"
address = "{1}"
certificate = "{4}"
key = "{5}"
tickets = 0

[[listen]]
name = "edge-tcp"
transport = "tcp"
address = "{2}"

[[listen]]
name = "edge-udp"
transport = "udp"
address = "{3}"

[[trunk]]
name = "carrier"
verify_name = "carrier.test"
listen = "edge-tls"

{7}
)",
                                           edge_tls_.text(), edge_bare_.text(), edge_tcp_.text(), edge_udp_.text(),
                                           files.edge.certificate, files.edge.key, files.ca.file(), tables),
                     .workers = workers,
                     .ktrunk_lines = ktrunk_lines,
                     .env = {},
                     .timeout = kLong});
  ASSERT_TRUE(daemon) << daemon.error().what;
  daemon_ = std::move(*daemon);
}

std::string InteropTest::pbx_at(const Address& address) {
  const Certificates& files = certificates();
  return fmt::format(R"(
[[trunk]]
name = "pbx"
targets = ["tls:{}"]
verify_name = "pbx.test"
ca = "{}"
certificate = "{}"
key = "{}"
listen = "edge-tls"

[[route]]
to = "pbx"
)",
                     address.text(), files.ca.file(), files.edge.certificate, files.edge.key);
}

void InteropTest::TearDown() {
  if (daemon_ == nullptr) return;
  if (const auto status = daemon_->status(); status && ktls_expected()) {
    EXPECT_LE((*status)["handshakes"]["relayed"], closed_early_) << "KTRUNK_EXPECT_KTLS=1";
  }
  const Status stopped = daemon_->stop();
  EXPECT_TRUE(stopped) << stopped.error().what;
  if (HasFailure()) std::fprintf(stderr, "%s\n", daemon_->log().c_str());
}

SipMessage InteropTest::options_to_us() const {
  return make_request({.uri = "sip:" + edge_tls_.text(), .branch = "", .call_id = "", .body = ""});
}

std::vector<Json> InteropTest::tls_connections(std::string_view trunk) const {
  std::vector<Json> found;
  const auto status = daemon_->status();
  if (!status) {
    ADD_FAILURE() << status.error().what;
    return found;
  }
  for (const Json& connection : (*status)["connections"])
    if (connection["transport"] == "tls" && connection["state"] == "open" && connection["trunk"] == trunk)
      found.push_back(connection);
  return found;
}

testing::AssertionResult InteropTest::record_layer_fits(const Json& connection) {
  const std::string layer = connection.value("record_layer", "");
  if (layer == "kernel" || (layer == "relay" && !ktls_expected())) return testing::AssertionSuccess();
  return testing::AssertionFailure() << connection.dump(2);
}

TlsOptions InteropTest::as_pbx() {
  const Certificates& files = certificates();
  return {.certificate = files.pbx.certificate,
          .key = files.pbx.key,
          .ca = files.ca.file(),
          .ciphers = "",
          .ciphersuites = "",
          .server_name = "",
          .verify_name = ""};
}

}  // namespace ktrunk::test
