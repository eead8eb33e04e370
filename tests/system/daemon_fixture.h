// DaemonTest: a ktrunkd of the build with three listeners (TLS, TCP, UDP) and the peers around it. The host of a
// Request-URI says where a request goes: tls.test, tcp.test and udp.test are PBXs that the test plays, absent.test is a
// trunk that never comes up; anything else has no route.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "support/certificates.h"
#include "support/daemon.h"
#include "support/ktls_available.h"
#include "support/process.h"
#include "support/sip_peer.h"
#include "support/tls_peer.h"

namespace ktrunk::test {

using Json = nlohmann::ordered_json;

inline constexpr milliseconds kLong{90'000};  // for what many processes on an emulated machine must do first

// As free_address(), but never the same twice: ktrunkd binds it later.
[[nodiscard]] Address fresh_address();

// Made once for the whole program.
struct Certificates {
  TempFolder folder;
  CertificateAuthority ca{folder.path(), "ca"};
  CertificateAuthority stranger_ca{folder.path(), "stranger-ca"};
  CertificateFiles edge = ca.issue({.name = "edge", .dns = {"edge.test"}});
  CertificateFiles carrier = ca.issue({.name = "carrier", .dns = {"carrier.test"}});
  CertificateFiles pbx = ca.issue({.name = "pbx", .dns = {"pbx.test"}});
  CertificateFiles stranger = stranger_ca.issue({.name = "stranger", .dns = {"pbx.test"}});
};
[[nodiscard]] const Certificates& certificates();

// One end of a call, whatever the transport.
class Leg {
 public:
  Leg(std::string transport, std::unique_ptr<ByteStream> stream);
  Leg(SipDatagrams datagrams, const Address& edge);

  Status send(const SipMessage& message);
  [[nodiscard]] Result<SipMessage> receive(milliseconds timeout = kLong);
  [[nodiscard]] const std::string& transport() const { return transport_; }  // "TLS", as Via writes it
  [[nodiscard]] const std::string& sent_by() const { return sent_by_; }      // its own address

 private:
  std::string transport_;
  std::string sent_by_;
  std::optional<SipStream> stream_;
  std::optional<SipDatagrams> datagrams_;
  Address edge_;
};

// Answers every request on a stream with 200 and the request's body, until the stream ends or its owner goes.
class Echo {
 public:
  // Told of every message that comes, before its answer goes; called on another thread.
  using Seen = std::function<void(const SipMessage&)>;
  explicit Echo(SipStream& stream, Seen seen = {})
      : thread_([&stream, seen = std::move(seen)](const std::stop_token& stop) { serve(stream, seen, stop); }) {}

 private:
  static void serve(SipStream& stream, const Seen& seen, const std::stop_token& stop);
  std::jthread thread_;
};

class DaemonTest : public testing::Test {
 protected:
  struct Options {
    std::string limits;     // lines for [limits]
    std::string pbx_lines;  // for the trunk "pbx-tls"
    std::string tables;     // more tables
    std::string ktrunk_lines;
    std::optional<unsigned> workers;  // 2
    std::string program;              // ktrunkd; empty: that of the build
    std::map<std::string, std::string> env;
  };
  // Fatal failure when it does not come up with its PBXs connected.
  void start(const Options& options = {});
  // ktrunkd alone: for tests whose trunks are not to be connected at once.
  void launch(const std::string& config);
  void TearDown() override;
  // Kills a child and waits until another has taken its place.
  void kill_child(const std::string& name);

  [[nodiscard]] static TlsOptions as_carrier();
  [[nodiscard]] static TlsOptions as_pbx();
  // A new connection of the trunk "carrier"; null, and a failure noted, when there is none.
  [[nodiscard]] std::unique_ptr<TlsStream> call_in(const TlsOptions& options = as_carrier()) const;
  [[nodiscard]] std::unique_ptr<TcpStream> call_in_tcp() const;
  // The next connection that ktrunkd makes to the listener, secured; null and a failure if none comes.
  [[nodiscard]] static std::unique_ptr<TlsStream> accept_tls(const TcpListener& listener,
                                                             const TlsOptions& options = as_pbx());
  [[nodiscard]] static SipMessage request_to(std::string_view host, std::string_view body = {});
  [[nodiscard]] SipMessage options_to_us() const;
  // True if the request is answered with this status code.
  static testing::AssertionResult answers(SipStream& stream, const SipMessage& request, int status);

  [[nodiscard]] Json status() const;
  // The connections in the status that fit.
  [[nodiscard]] static std::vector<Json> connections(const Json& status, const std::function<bool(const Json&)>& fits);
  [[nodiscard]] static std::vector<Json> of_trunk(const Json& status, std::string_view trunk);
  [[nodiscard]] static std::optional<Json> with_peer(const Json& status, const ByteStream& peer);
  // True when the peer's connection has gone from the status.
  testing::AssertionResult gone(const Address& peer_address);
  [[nodiscard]] bool kernel_records() const;  // the record layer of the PBX's connection
  // Open descriptors by process, when they no longer change.
  [[nodiscard]] std::map<std::string, std::size_t> descriptors() const;
  [[nodiscard]] std::map<std::string, std::size_t> settled_descriptors() const;

  Address edge_tls_ = fresh_address();
  Address edge_tcp_ = fresh_address();
  Address edge_udp_ = fresh_address();
  std::optional<TcpListener> pbx_tls_listener_;
  std::optional<TcpListener> pbx_tcp_listener_;
  std::optional<SipDatagrams> pbx_udp_;
  std::unique_ptr<Daemon> daemon_;
  std::unique_ptr<SipStream> pbx_tls_;
  std::unique_ptr<SipStream> pbx_tcp_;
};

}  // namespace ktrunk::test
