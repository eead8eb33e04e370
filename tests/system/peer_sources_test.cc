// Peers that are known by their address (trunk.sources), over TCP, TLS and UDP; and by certificate and address.
#include "system/daemon_fixture.h"
#include "system/trunk_peer.h"

namespace ktrunk::test {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;

class PeerSources : public DaemonTest {
 protected:
  // Requests of trunk "known" go to "out", which takes everything; strangers get 403.
  void launch_with(const std::string& known, const std::string& tls_lines = {}) {
    const Certificates& files = certificates();
    std::string listeners;
    for (const auto& [name, transport, address] :
         {std::tuple{"edge-tls", "tls", edge_tls_}, {"edge-tcp", "tcp", edge_tcp_}, {"edge-udp", "udp", edge_udp_}})
      listeners += fmt::format(
          "[[listen]]\nname = \"{}\"\ntransport = \"{}\"\naddress = \"{}\"\nstrangers = \"reject\"\n{}", name,
          transport, address.text(),
          address == edge_tls_
              ? fmt::format("certificate = \"{}\"\nkey = \"{}\"\n{}", files.edge.certificate, files.edge.key, tls_lines)
              : "");
    ASSERT_NO_FATAL_FAILURE(launch(fmt::format(
        "{}[[trunk]]\nname = \"known\"\n{}[[trunk]]\nname = \"out\"\ntargets = [\"udp:{}\"]\nlisten = "
        "\"edge-udp\"\n[[route]]\nfrom_trunk = \"known\"\nhost = \"out.test\"\nto = \"out\"\n[[route]]\nto = "
        "\"known\"\n",
        listeners, known, out_address_.text())));
    const bool first_too = known.find("targets") != std::string::npos;
    const Status up = daemon_->wait_status([&](const Json& now) {
      return now["trunks"][1]["state"] == "up" && (!first_too || now["trunks"][0]["state"] == "up");
    });
    ASSERT_TRUE(up) << up.error().what;
  }
  [[nodiscard]] static Address here() { return Address::from_ip(kHere, 0).value(); }
  [[nodiscard]] static Address elsewhere() { return Address::from_ip("127.0.0.78", 0).value(); }
  [[nodiscard]] std::unique_ptr<TlsStream> tls_from(const Address& from, const TlsOptions& options) const {
    auto stream = TlsStream::handshake(connect_from(from, edge_tls_)->take(), options, kLong);
    EXPECT_TRUE(stream) << stream.error().what << daemon_->log();
    return stream ? std::move(*stream) : nullptr;
  }
  [[nodiscard]] static SipMessage message(const std::string& host = "out.test", const std::string& transport = "TCP") {
    return make_request({.method = "MESSAGE",
                         .uri = "sip:bob@" + host,
                         .transport = transport,
                         .branch = "",
                         .call_id = "",
                         .body = ""});
  }
  // The status of the answer to a request over UDP from there.
  [[nodiscard]] int ask_by_udp(const Address& from) const {
    const auto socket = SipDatagrams::bind(from);
    EXPECT_TRUE(socket) << socket.error().what;
    if (!socket || !socket->send(message("out.test", "UDP"), edge_udp_)) return 0;
    const auto answer = socket->receive(kLong);
    return answer ? answer->first.status() : 0;
  }

  static constexpr const char* kHere = "127.0.0.77";
  Address out_address_ = fresh_address();
  TrunkPeer out_{TrunkPeer::Kind::kUdp, out_address_};
};

TEST_F(PeerSources, TcpPeersByTheirAddress) {
  const Address address = fresh_address();
  TrunkPeer target(TrunkPeer::Kind::kTcp, address);
  ASSERT_NO_FATAL_FAILURE(launch_with(
      fmt::format("targets = [\"tcp:{}\"]\nsources = [\"127.0.0.77/32\", \"192.0.2.0/24\"]\n", address.text())));
  SipStream known(connect_from(here(), edge_tcp_));
  EXPECT_TRUE(answers(known, message(), 200));
  EXPECT_EQ(out_.requests, 1);
  const auto connection = with_peer(status(), known.stream());
  ASSERT_TRUE(connection.has_value());
  EXPECT_EQ((*connection)["trunk"], "known");
  SipStream stranger(connect_from(elsewhere(), edge_tcp_));
  EXPECT_TRUE(answers(stranger, message(), 403));
  EXPECT_EQ((*with_peer(status(), stranger.stream()))["trunk"], "");
  // Our requests go by our own connection, not by one that it has made from a port of chance.
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(answers(known, message("known.test"), 200));
  EXPECT_EQ(target.requests, 20);
}

TEST_F(PeerSources, WhereWeNeverConnectRequestsGoByTheirConnection) {
  ASSERT_NO_FATAL_FAILURE(launch_with("sources = [\"127.0.0.77\"]\naccept_on = [\"edge-tcp\"]\n"));
  SipStream known(connect_from(here(), edge_tcp_));
  ASSERT_TRUE(daemon_->wait_status([](const Json& now) { return now["trunks"][0]["connections"] == 1; }));
  ASSERT_TRUE(known.send(message("known.test")));
  const auto back = known.receive(kLong);  // to itself
  ASSERT_TRUE(back) << back.error().what;
  EXPECT_EQ(back->method(), "MESSAGE");
  // By another listener it is a stranger.
  EXPECT_EQ(ask_by_udp(here()), 403);
}

TEST_F(PeerSources, UdpPeersByTheirAddressWhateverTheirPort) {
  const Address address = fresh_address();
  ASSERT_NO_FATAL_FAILURE(
      launch_with(fmt::format("targets = [\"udp:{}\"]\nlisten = \"edge-udp\"\nsources = "
                              "[\"127.0.0.77\"]\n",
                              address.text())));
  EXPECT_EQ(ask_by_udp(here()), 200);
  EXPECT_EQ(ask_by_udp(elsewhere()), 403);
  EXPECT_EQ(ask_by_udp(address), 200);  // where the target is
  EXPECT_EQ(out_.requests, 2);
}

// Of a trunk with sources an answer may come from any of them; else from the address that was asked alone.
TEST_F(PeerSources, AUdpPeerMayAnswerFromAnotherOfItsAddresses) {
  const auto target = SipDatagrams::bind(fresh_address());
  const auto other = SipDatagrams::bind(here());
  const auto outsider = SipDatagrams::bind(elsewhere());
  ASSERT_TRUE(target && other && outsider);
  ASSERT_NO_FATAL_FAILURE(
      launch_with(fmt::format("targets = [\"udp:{}\"]\nlisten = \"edge-udp\"\nsources = "
                              "[\"127.0.0.77\"]\n",
                              target->address().text())));
  const auto caller = SipDatagrams::bind(here());
  ASSERT_TRUE(caller);
  ASSERT_TRUE(caller->send(message("known.test", "UDP"), edge_udp_));
  const auto request = target->receive(kLong);
  ASSERT_TRUE(request) << request.error().what;
  SipMessage forged = make_response(request->first, 486, "Busy Here");
  ASSERT_TRUE(outsider->send(forged, edge_udp_));
  ASSERT_TRUE(other->send(make_response(request->first, 200, "OK"), edge_udp_));
  const auto answer = caller->receive(kLong);
  ASSERT_TRUE(answer) << answer.error().what;
  EXPECT_EQ(answer->first.status(), 200);
}

TEST_F(PeerSources, TlsPeersWithoutCertificateByTheirAddress) {
  ASSERT_NO_FATAL_FAILURE(launch_with("sources = [\"127.0.0.77\"]\n"));
  const TlsOptions client{.ca = certificates().ca.file(), .server_name = "edge.test", .verify_name = "edge.test"};
  SipStream known(tls_from(here(), client));
  EXPECT_TRUE(answers(known, message(), 200));
  EXPECT_EQ((*with_peer(status(), known.stream()))["trunk"], "known");
  SipStream stranger(tls_from(elsewhere(), client));
  EXPECT_TRUE(answers(stranger, message(), 403));
}

TEST_F(PeerSources, ACertificateCountsFromItsSourcesAlone) {
  const std::string asks = fmt::format("ca = \"{}\"\nverify_client = \"require\"\n", certificates().ca.file());
  ASSERT_NO_FATAL_FAILURE(launch_with("verify_name = \"carrier.test\"\nsources = [\"127.0.0.77\"]\n", asks));
  SipStream known(tls_from(here(), as_carrier()));
  EXPECT_TRUE(answers(known, message(), 200));
  SipStream displaced(tls_from(elsewhere(), as_carrier()));
  EXPECT_TRUE(answers(displaced, message(), 403));
  EXPECT_THAT(daemon_->log(), HasSubstr("shows the certificate of trunk 'known', which does not take it from there"));
  // The address alone does not do.
  SipStream other(tls_from(here(), as_pbx()));
  EXPECT_TRUE(answers(other, message(), 403));
  SipStream plain(connect_from(here(), edge_tcp_));
  EXPECT_TRUE(answers(plain, message(), 403));
  EXPECT_EQ(ask_by_udp(here()), 403);
  EXPECT_THAT(of_trunk(status(), "known"), SizeIs(1));
}

}  // namespace
}  // namespace ktrunk::test
