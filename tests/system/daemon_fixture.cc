#include "system/daemon_fixture.h"

#include <dirent.h>
#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <set>

namespace ktrunk::test {

Address fresh_address() {
  static std::set<std::uint16_t> given;
  for (;;) {  // ends while there are ports left
    const Address address = free_address();
    if (given.insert(address.port()).second) return address;
  }
}

const Certificates& certificates() {
  static const Certificates made;
  return made;
}

Leg::Leg(std::string transport, std::unique_ptr<ByteStream> stream)
    : transport_(std::move(transport)), sent_by_(stream->local().text()), stream_(std::move(stream)) {}

Leg::Leg(SipDatagrams datagrams, const Address& edge)
    : transport_("UDP"), sent_by_(datagrams.address().text()), datagrams_(std::move(datagrams)), edge_(edge) {}

Status Leg::send(const SipMessage& message) {
  return stream_ ? stream_->send(message) : datagrams_->send(message, edge_);
}

Result<SipMessage> Leg::receive(milliseconds timeout) {
  if (stream_) return stream_->receive(timeout);
  auto got = datagrams_->receive(timeout);
  if (!got) return std::unexpected(got.error());
  if (got->second.text() != edge_.text()) return fail("a datagram from {}", got->second.text());
  return std::move(got->first);
}

void Echo::serve(SipStream& stream, const Seen& seen, const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    const auto message = stream.receive_or_end(milliseconds(100));
    if (!message && message.error().code == ETIMEDOUT) continue;
    if (!message || !*message) return;
    if (seen) seen(**message);
    if (!(*message)->is_request() || (*message)->method() == "ACK") continue;
    SipMessage response = make_response(**message, 200, "OK");
    response.body = (*message)->body;
    if (!stream.send(response)) return;
  }
}

void DaemonTest::start(const Options& options) {
  const Certificates& files = certificates();
  auto tls = TcpListener::bind(fresh_address());
  auto tcp = TcpListener::bind(fresh_address());
  auto udp = SipDatagrams::bind(fresh_address());
  ASSERT_TRUE(tls && tcp && udp);
  pbx_tls_listener_ = std::move(*tls);
  pbx_tcp_listener_ = std::move(*tcp);
  pbx_udp_ = std::move(*udp);
  auto daemon = Daemon::launch(
      {.config = fmt::format(R"(
[limits]
handshake = "5m"
{}

[[listen]]
name = "edge-tls"
transport = "tls"
address = "{}"
certificate = "{}"
key = "{}"
ca = "{}"
verify_client = "require"

[[listen]]
name = "edge-tcp"
transport = "tcp"
address = "{}"

[[listen]]
name = "edge-udp"
transport = "udp"
address = "{}"

[[trunk]]
name = "carrier"
verify_name = "carrier.test"
listen = "edge-tls"

[[trunk]]
name = "absent"
verify_name = "absent.test"
listen = "edge-tls"

[[trunk]]
name = "pbx-tls"
targets = ["tls:{}"]
verify_name = "pbx.test"
ca = "{}"
certificate = "{}"
key = "{}"
listen = "edge-tls"
{}
[[trunk]]
name = "pbx-tcp"
targets = ["tcp:{}"]
listen = "edge-tcp"

[[trunk]]
name = "pbx-udp"
targets = ["udp:{}"]
listen = "edge-udp"

[[route]]
host = "tls.test"
to = "pbx-tls"

[[route]]
host = "tcp.test"
to = "pbx-tcp"

[[route]]
host = "udp.test"
to = "pbx-udp"

[[route]]
host = "absent.test"
to = "absent"

{}
)",
                             options.limits, edge_tls_.text(), files.edge.certificate, files.edge.key, files.ca.file(),
                             edge_tcp_.text(), edge_udp_.text(), pbx_tls_listener_->address().text(), files.ca.file(),
                             files.edge.certificate, files.edge.key, options.pbx_lines,
                             pbx_tcp_listener_->address().text(), pbx_udp_->address().text(), options.tables),
       .workers = options.workers.value_or(2),
       .ktrunk_lines = options.ktrunk_lines,
       .program = options.program,
       .env = options.env,
       .timeout = kLong});
  ASSERT_TRUE(daemon) << daemon.error().what;
  daemon_ = std::move(*daemon);
  auto pbx_tcp = pbx_tcp_listener_->accept(kLong);
  ASSERT_TRUE(pbx_tcp) << pbx_tcp.error().what << daemon_->log();
  pbx_tcp_ = std::make_unique<SipStream>(std::make_unique<TcpStream>(std::move(*pbx_tcp)));
  auto pbx_tls = accept_tls(*pbx_tls_listener_);
  ASSERT_NE(pbx_tls, nullptr) << daemon_->log();
  pbx_tls_ = std::make_unique<SipStream>(std::move(pbx_tls));
  const Status ready = daemon_->wait_ready();
  ASSERT_TRUE(ready) << ready.error().what;
}

void DaemonTest::launch(const std::string& config) {
  auto daemon = Daemon::launch({.config = config, .ktrunk_lines = "", .env = {}, .timeout = kLong});
  ASSERT_TRUE(daemon) << daemon.error().what;
  daemon_ = std::move(*daemon);
}

void DaemonTest::TearDown() {
  if (daemon_ == nullptr || !daemon_->process().running()) return;
  if (ktls_expected()) {
    const Json now = status();
    for (const Json& connection : now["connections"]) {
      if (connection["transport"] == "tls") {
        EXPECT_EQ(connection["record_layer"], "kernel") << connection.dump(2);
      }
    }
    EXPECT_EQ(now["handshakes"]["relayed"], 0) << "KTRUNK_EXPECT_KTLS=1\n" << daemon_->log();
  }
  const Status stopped = daemon_->stop();
  EXPECT_TRUE(stopped) << stopped.error().what;
  if (HasFailure()) std::fprintf(stderr, "%s\n", daemon_->log().c_str());
}

void DaemonTest::kill_child(const std::string& name) {
  const pid_t pid = daemon_->pid_of(name);
  ASSERT_GT(pid, 1) << name;
  ASSERT_EQ(::kill(pid, SIGKILL), 0);
  const Status restarted = daemon_->wait_status([&](const Json& now) {
    return std::ranges::any_of(now["processes"], [&](const Json& process) {
      return process["name"] == name && process["pid"] > 0 && process["pid"] != pid && process["restarts"] > 0;
    });
  });
  ASSERT_TRUE(restarted) << restarted.error().what;
}

TlsOptions DaemonTest::as_carrier() {
  const Certificates& files = certificates();
  return {.certificate = files.carrier.certificate,
          .key = files.carrier.key,
          .ca = files.ca.file(),
          .ciphers = "",
          .ciphersuites = "",
          .server_name = "edge.test",
          .verify_name = "edge.test"};
}

TlsOptions DaemonTest::as_pbx() {
  const Certificates& files = certificates();
  return {.certificate = files.pbx.certificate,
          .key = files.pbx.key,
          .ca = files.ca.file(),
          .ciphers = "",
          .ciphersuites = "",
          .server_name = "",
          .verify_name = ""};
}

std::unique_ptr<TlsStream> DaemonTest::call_in(const TlsOptions& options) const {
  auto stream = TlsStream::connect(edge_tls_, options, kLong);
  if (stream) return std::move(*stream);
  ADD_FAILURE() << stream.error().what << "\n" << daemon_->log();
  return nullptr;
}

std::unique_ptr<TcpStream> DaemonTest::call_in_tcp() const {
  auto stream = TcpStream::connect(edge_tcp_, kLong);
  if (stream) return std::move(*stream);
  ADD_FAILURE() << stream.error().what;
  return nullptr;
}

std::unique_ptr<TlsStream> DaemonTest::accept_tls(const TcpListener& listener, const TlsOptions& options) {
  auto socket = listener.accept(kLong);
  if (!socket) {
    ADD_FAILURE() << "ktrunkd does not connect: " << socket.error().what;
    return nullptr;
  }
  auto stream = TlsStream::accept(std::move(*socket), options, kLong);
  if (stream) return std::move(*stream);
  ADD_FAILURE() << stream.error().what;
  return nullptr;
}

SipMessage DaemonTest::request_to(std::string_view host, std::string_view body) {
  return make_request({.method = "MESSAGE",
                       .uri = fmt::format("sip:bob@{}", host),
                       .branch = "",
                       .call_id = "",
                       .body = std::string(body)});
}

SipMessage DaemonTest::options_to_us() const {
  return make_request({.uri = "sip:" + edge_tls_.text(), .branch = "", .call_id = "", .body = ""});
}

testing::AssertionResult DaemonTest::answers(SipStream& stream, const SipMessage& request, int status) {
  const auto response = stream.exchange(request, kLong);
  if (!response) return testing::AssertionFailure() << response.error().what;
  if (response->header("CSeq") != request.header("CSeq") || response->header("Call-ID") != request.header("Call-ID"))
    return testing::AssertionFailure() << "not the answer to this request: " << response->text();
  if (response->status() != status) return testing::AssertionFailure() << response->text();
  return testing::AssertionSuccess();
}

Json DaemonTest::status() const {
  auto now = daemon_->status();
  if (now) return *now;
  ADD_FAILURE() << now.error().what << "\n" << daemon_->log();
  return Json{{"connections", Json::array()}, {"trunks", Json::array()}, {"processes", Json::array()}};
}

std::vector<Json> DaemonTest::connections(const Json& status, const std::function<bool(const Json&)>& fits) {
  std::vector<Json> found;
  for (const Json& connection : status["connections"])
    if (fits(connection)) found.push_back(connection);
  return found;
}

std::vector<Json> DaemonTest::of_trunk(const Json& status, std::string_view trunk) {
  return connections(status, [&](const Json& c) { return c["trunk"] == trunk && c["state"] == "open"; });
}

std::optional<Json> DaemonTest::with_peer(const Json& status, const ByteStream& peer) {
  const auto found = connections(status, [&](const Json& c) { return c["peer"] == peer.local().text(); });
  return found.empty() ? std::nullopt : std::optional(found.front());
}

testing::AssertionResult DaemonTest::gone(const Address& peer_address) {
  const Status waited = daemon_->wait_status([&](const Json& now) {
    return connections(now, [&](const Json& c) { return c["peer"] == peer_address.text(); }).empty();
  });
  if (waited) return testing::AssertionSuccess();
  return testing::AssertionFailure() << waited.error().what;
}

bool DaemonTest::kernel_records() const {
  const auto found = of_trunk(status(), "pbx-tls");
  return !found.empty() && found.front()["record_layer"] == "kernel";
}

std::map<std::string, std::size_t> DaemonTest::descriptors() const {
  std::map<std::string, pid_t> processes = {{"supervisor", daemon_->process().pid()}};
  const Json now = status();
  for (const Json& process : now["processes"]) processes[process["name"]] = process["pid"];
  std::map<std::string, std::size_t> counts;
  for (const auto& [name, pid] : processes) {
    std::error_code error;
    for (std::filesystem::directory_iterator entry(fmt::format("/proc/{}/fd", pid), error), end; entry != end;
         entry.increment(error))
      ++counts[name];
  }
  return counts;
}

std::map<std::string, std::size_t> DaemonTest::settled_descriptors() const {
  auto counts = descriptors();
  const bool settled = eventually(
      [&] {
        std::this_thread::sleep_for(milliseconds(300));
        return std::exchange(counts, descriptors()) == counts;
      },
      kLong);
  EXPECT_TRUE(settled);
  return counts;
}

}  // namespace ktrunk::test
