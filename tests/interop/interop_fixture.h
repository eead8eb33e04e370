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
#include "support/conversation.h"
#include "support/daemon.h"
#include "support/ktls_available.h"
#include "support/process.h"
#include "support/sip_peer.h"
#include "support/tls_peer.h"

namespace ktrunk::test {

using Json = nlohmann::ordered_json;

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
  // Fatal failure when ktrunkd does not come up with every trunk connected. Tables: further trunks, and the routes;
  // ktrunk_lines: more of [ktrunk].
  void start(const std::string& tables = "", const std::string& ktrunk_lines = "", unsigned workers = 2);
  // Of two workers, one may overtake the other with the datagram that came after. SIP allows for that; SIPp's
  // scenarios and what they make of retransmissions do not.
  static constexpr unsigned kInOrder = 1;
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
  // Connections that their peer may have closed before the keys were in the kernel, which takes no key then: they are
  // relayed, for what the peer may have said before.
  unsigned closed_early_ = 0;
  std::unique_ptr<Daemon> daemon_;
};

}  // namespace ktrunk::test
