// Legs over IPv4 and IPv6, TLS, TCP and UDP in any mix: calls from each to each, ended inside their dialogs.
#include "system/daemon_fixture.h"
#include "system/trunk_peer.h"

namespace ktrunk::test {
namespace {

using Kind = TrunkPeer::Kind;

struct Side {
  const char* name;
  Kind kind;
  bool v6;
  [[nodiscard]] const char* transport() const {
    return kind == Kind::kTls ? "tls" : kind == Kind::kTcp ? "tcp" : "udp";
  }
  [[nodiscard]] const char* via_transport() const {
    return kind == Kind::kTls ? "TLS" : kind == Kind::kTcp ? "TCP" : "UDP";
  }
};
constexpr Side kSides[] = {{"tls4", Kind::kTls, false}, {"tcp4", Kind::kTcp, false}, {"udp4", Kind::kUdp, false},
                           {"tls6", Kind::kTls, true},  {"tcp6", Kind::kTcp, true},  {"udp6", Kind::kUdp, true}};

class IpVersions : public DaemonTest {
 protected:
  static Address address_for(const Side& side) {
    const Address v4 = fresh_address();
    return side.v6 ? *Address::from_ip("::1", v4.port()) : v4;
  }
  void launch_all() {
    const Certificates& files = certificates();
    std::string config;
    std::string routes;
    for (const Side& side : kSides) {
      const Address edge = edges_.emplace(side.name, address_for(side)).first->second;
      const Address at = address_for(side);
      peers_.emplace(side.name, std::make_unique<TrunkPeer>(side.kind, at, as_pbx()));
      const bool tls = side.kind == Kind::kTls;
      config += fmt::format(
          "[[listen]]\nname = \"{}\"\ntransport = \"{}\"\naddress = \"{}\"\n{}", side.name, side.transport(),
          edge.text(),
          tls ? fmt::format("certificate = \"{}\"\nkey = \"{}\"\n", files.edge.certificate, files.edge.key) : "");
      routes += fmt::format(
          "[[trunk]]\nname = \"{0}\"\ntargets = [\"{1}:{2}\"]\nlisten = \"{0}\"\n{3}[[route]]\nhost = "
          "\"{0}.test\"\nto = \"{0}\"\n",
          side.name, side.transport(), at.text(),
          tls ? fmt::format("ca = \"{}\"\nverify_name = \"pbx.test\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
                            files.ca.file(), files.edge.certificate, files.edge.key)
              : "");
    }
    ASSERT_NO_FATAL_FAILURE(launch(config + routes));
    const Status up = daemon_->wait_status([](const Json& now) {
      return std::ranges::all_of(now["trunks"], [](const Json& trunk) { return trunk["state"] == "up"; });
    });
    ASSERT_TRUE(up) << up.error().what;
  }
  [[nodiscard]] std::unique_ptr<Leg> leg_from(const Side& side) const {
    const Address& edge = edges_.at(side.name);
    if (side.kind == Kind::kUdp) {
      auto datagrams = SipDatagrams::bind(address_for(side));
      EXPECT_TRUE(datagrams) << datagrams.error().what;
      return datagrams ? std::make_unique<Leg>(std::move(*datagrams), edge) : nullptr;
    }
    std::unique_ptr<ByteStream> stream;
    if (side.kind == Kind::kTls) {
      auto tls = TlsStream::connect(edge, as_carrier(), kLong);
      EXPECT_TRUE(tls) << tls.error().what;
      if (tls) stream = std::move(*tls);
    } else {
      auto tcp = TcpStream::connect(edge, kLong);
      EXPECT_TRUE(tcp) << tcp.error().what;
      if (tcp) stream = std::move(*tcp);
    }
    return stream ? std::make_unique<Leg>(side.via_transport(), std::move(stream)) : nullptr;
  }

  std::map<std::string, Address> edges_;
  std::map<std::string, std::unique_ptr<TrunkPeer>> peers_;
};

TEST_F(IpVersions, EachReachesEachAndEndsItsCall) {
  if (!SipDatagrams::bind(*Address::parse("[::1]:0"))) GTEST_SKIP() << "loopback has no IPv6 here";
  ASSERT_NO_FATAL_FAILURE(launch_all());
  for (const Side& from : kSides) {
    const auto leg = leg_from(from);
    ASSERT_NE(leg, nullptr);
    for (const Side& to : kSides) {
      SCOPED_TRACE(std::string(from.name) + " to " + to.name);
      const int before = peers_.at(to.name)->requests;
      const SipMessage invite = make_request({.method = "INVITE",
                                              .uri = fmt::format("sip:bob@{}.test", to.name),
                                              .transport = leg->transport(),
                                              .sent_by = leg->sent_by(),
                                              .branch = "",
                                              .call_id = "",
                                              .body = ""});
      ASSERT_TRUE(leg->send(invite));
      const auto ok = leg->receive();
      ASSERT_TRUE(ok) << ok.error().what << daemon_->log();
      ASSERT_EQ(ok->status(), 200) << ok->text();
      EXPECT_EQ(ok->all("Via").size(), 1u);
      // Two where both sides are not the same listener's (RFC 5658), each with the address of its side.
      std::vector<std::string> routes = ok->all("Record-Route");
      ASSERT_EQ(routes.size(), &from == &to ? 1u : 2u);
      EXPECT_NE(routes.front().find("@" + edges_.at(to.name).text()), std::string::npos) << routes.front();
      EXPECT_NE(routes.back().find("@" + edges_.at(from.name).text()), std::string::npos) << routes.back();
      SipMessage bye = invite;
      bye.start_line = "BYE" + invite.start_line.substr(6);
      bye.set("CSeq", "2 BYE");
      bye.set("Via", fmt::format("SIP/2.0/{} {};branch=z9hG4bK{}bye{};rport", leg->transport(), leg->sent_by(),
                                 from.name, to.name));
      bye.set("To", ok->header("To"));
      std::ranges::reverse(routes);
      for (const std::string& route : routes) bye.add("Route", route);
      ASSERT_TRUE(leg->send(bye));
      const auto done = leg->receive();
      ASSERT_TRUE(done) << done.error().what << daemon_->log();
      EXPECT_EQ(done->status(), 200) << done->text();
      EXPECT_EQ(peers_.at(to.name)->requests, before + 2);
    }
  }
}

}  // namespace
}  // namespace ktrunk::test
