// Whole dialogs through the proxy, with the bytes of every hop: what comes back finds its way, whichever worker has it.
#include <gtest/gtest.h>

#include "sip/proxy_world.h"

namespace ktrunk::sip::testing {
namespace {

// A request inside a dialog, with the route set as its sender knows it.
std::string in_dialog(std::string_view method, std::string_view uri, const std::vector<std::string>& routes,
                      std::string_view branch, int cseq) {
  std::string text = std::string(method) + " " + std::string(uri) +
                     " SIP/2.0\nVia: SIP/2.0/TLS peer.example.com;branch=" + std::string(branch) +
                     "\nFrom: <sip:a@b>;tag=1\nTo: <sip:c@d>;tag=2\nCall-ID: c\nCSeq: " + std::to_string(cseq) + " " +
                     std::string(method) + "\nMax-Forwards: 70\n";
  for (const auto& route : routes) text += "Route: " + route + "\n";
  return crlf(text + "Content-Length: 0\n\n");
}

std::vector<std::string> reversed(std::vector<std::string> values) { return {values.rbegin(), values.rend()}; }

struct Pair {
  const char* name;
  Flow World::* a;
  Flow World::* b;
  std::size_t record_routes;
};

class DialogTest : public ::testing::TestWithParam<Pair> {
 protected:
  void expect_way(const Decision& decision, const Flow& wanted) {
    const auto* flow = std::get_if<ToFlow>(&decision);
    ASSERT_NE(flow, nullptr) << verdict(decision);
    EXPECT_EQ(flow->flow.connection, wanted.connection);
    EXPECT_EQ(flow->flow.trunk, wanted.trunk);
    if (world.message.is_response() && wanted.trunk.valid() && wanted.transport != config::Transport::kUdp) {
      EXPECT_FALSE(flow->flow.listener.valid()) << "the branch of a trunk's request holds the trunk alone";
      return;
    }
    EXPECT_EQ(flow->flow.transport, wanted.transport);
    EXPECT_EQ(flow->flow.listener, wanted.listener);
    if (wanted.transport == config::Transport::kUdp) {
      EXPECT_EQ(flow->flow.remote, wanted.remote);
    }
  }
  World world;
  Flow a = world.*GetParam().a;
  Flow b = world.*GetParam().b;
};

TEST_P(DialogTest, InviteRingOkAckByeInBothDirections) {
  const std::string sent = invite("", "sip:+4930@six.example.net");
  world.message.parse(sent, Carrier::kStream);
  world.proxy.forward_request(world.message, a, b, world.edits);
  const std::string forwarded = world.written();
  const auto record_routes = headers(forwarded, "Record-Route");
  ASSERT_EQ(record_routes.size(), GetParam().record_routes);
  ASSERT_EQ(headers(forwarded, "Via").size(), 2u);

  // Responses come back by the Via alone, and leave as if we had not been there.
  for (const int status : {100, 180, 200, 404}) {
    Flow to;
    const std::string back = world.respond(response_to(forwarded, status, "b2", "sip:bob@203.0.113.9"), b, &to);
    ASSERT_FALSE(back.empty());
    expect_way(ToFlow{to, 0}, a);
    EXPECT_EQ(headers(back, "Via").size(), 1u);
    EXPECT_TRUE(headers(back, "Via")[0].starts_with("SIP/2.0/UDP 192.0.2.77;branch=z9hG4bKabc1"));
    EXPECT_EQ(headers(back, "Record-Route"), record_routes);
  }

  // The caller's route set is the Record-Route reversed, the callee's is as it stands (12.1).
  const std::string ack = in_dialog("ACK", "sip:bob@203.0.113.9", reversed(record_routes), "z9hG4bKack", 10);
  expect_way(world.decide(ack, a), b);
  const std::string ack_sent = world.forward(ack, a, b);
  EXPECT_TRUE(headers(ack_sent, "Route").empty());
  EXPECT_TRUE(headers(ack_sent, "Record-Route").empty());
  EXPECT_TRUE(ack_sent.starts_with("ACK sip:bob@203.0.113.9 SIP/2.0\r\n"));

  const std::string bye = in_dialog("BYE", "sip:alice@192.0.2.77", record_routes, "z9hG4bKbye", 77);
  expect_way(world.decide(bye, b), a);
  const std::string bye_sent = world.forward(bye, b, a);
  EXPECT_TRUE(headers(bye_sent, "Route").empty());
  Flow to;
  const std::string bye_ok = world.respond(response_to(bye_sent, 200, "x", ""), a, &to);
  expect_way(ToFlow{to, 0}, b);
  EXPECT_EQ(headers(bye_ok, "Via").size(), 1u);

  // Further Routes are the next hop's, even if they are ours too.
  auto further = reversed(record_routes);
  further.push_back("<sip:next.example.com;lr>");
  further.push_back(further[0]);
  const std::string info = in_dialog("INFO", "sip:bob@203.0.113.9", further, "z9hG4bKinfo", 11);
  EXPECT_EQ(headers(world.forward(info, a, b), "Route"),
            (std::vector<std::string>{"<sip:next.example.com;lr>", further[0]}));
}

TEST_P(DialogTest, OnlyTheTwoSidesMayUseIt) {
  const std::string first = invite();
  world.message.parse(first, Carrier::kStream);
  world.proxy.forward_request(world.message, a, b, world.edits);
  const auto routes = reversed(headers(world.written(), "Record-Route"));
  const std::string bye = in_dialog("BYE", "sip:bob@203.0.113.9", routes, "z9hG4bKbye", 11);
  Flow other = world.stranger;
  other.connection.slot.value = 31;
  EXPECT_EQ(verdict(world.decide(bye, other)), 403);
  EXPECT_EQ(verdict(world.decide(in_dialog("ACK", "sip:bob@x", routes, "z9hG4bKbye", 11), other)), kDropped);
  // A slot's next life is another connection; but another connection of the same trunk is the same side.
  Flow reborn = a;
  if (a.transport != config::Transport::kUdp) {
    reborn.connection.generation.value++;
  } else {
    reborn.remote = Address::from_ip("192.0.2.78", 5060).value();
  }
  if (a.trunk.valid()) {
    expect_way(world.decide(bye, reborn), b);
  } else {
    EXPECT_EQ(verdict(world.decide(bye, reborn)), 403);
  }
}

TEST_P(DialogTest, AStrictRouterInFrontOfUs) {
  const std::string first = invite();
  world.message.parse(first, Carrier::kStream);
  world.proxy.forward_request(world.message, a, b, world.edits);
  auto routes = reversed(headers(world.written(), "Record-Route"));
  const std::string ours = routes[0].substr(1, routes[0].size() - 2);
  std::vector<std::string> rest(routes.begin() + 1, routes.end());
  const std::string target = "sip:bob@203.0.113.9:5070;x=y";

  rest.push_back("<sip:next.example.com;lr>, <" + target + ">");
  std::string bye = in_dialog("BYE", ours, rest, "z9hG4bKbye", 11);
  expect_way(world.decide(bye, a), b);
  std::string sent = world.forward(bye, a, b);
  EXPECT_TRUE(sent.starts_with("BYE " + target + " SIP/2.0\r\n")) << sent;
  EXPECT_EQ(headers(sent, "Route"), std::vector<std::string>{"<sip:next.example.com;lr>"});

  rest.back() = "<" + target + ">";
  bye = in_dialog("BYE", ours, rest, "z9hG4bKbye", 11);
  sent = world.forward(bye, a, b);
  EXPECT_TRUE(sent.starts_with("BYE " + target + " SIP/2.0\r\n")) << sent;
  EXPECT_TRUE(headers(sent, "Route").empty());

  EXPECT_EQ(verdict(world.decide(in_dialog("BYE", ours, {}, "z9hG4bKbye", 11), a)), 400);
  EXPECT_EQ(verdict(world.decide(in_dialog("BYE", ours, {"rubbish"}, "z9hG4bKbye", 11), a)), 400);
}

INSTANTIATE_TEST_SUITE_P(Flows, DialogTest,
                         ::testing::Values(Pair{"UdpToTls", &World::pbx, &World::carrier, 2},
                                           Pair{"TlsToUdp", &World::carrier, &World::pbx, 2},
                                           Pair{"TlsToTcp6", &World::carrier, &World::six, 2},
                                           Pair{"StrangerToTls", &World::stranger, &World::carrier, 1}),
                         [](const auto& pair) { return pair.param.name; });

std::string branch_of(std::string_view message) {
  const std::string via = headers(message, "Via").at(0);
  const std::size_t at = via.find("branch=");
  return via.substr(at, via.find(';', at) - at);
}

// RFC 3261 16.11: what belongs to one transaction has one branch, for both kinds of peer.
TEST(TransactionTest, InviteCancelAckAndRetransmissions) {
  World world;
  for (const char* via_branch : {";branch=z9hG4bKabc1", ";branch=z9hG4bK", ";branch=old", ""}) {
    const auto with = [&](std::string_view method, std::string_view to_tag) {
      return crlf(std::string(method) + " sip:+4930@x SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.77" + via_branch +
                  "\nFrom: <sip:a@b>;tag=1\nTo: <sip:c@d>" + std::string(to_tag) + "\nCall-ID: c\nCSeq: 10 " +
                  std::string(method) + "\nContent-Length: 0\n\n");
    };
    const auto affinity = [&](std::string_view bytes) {
      const Decision decision = world.decide(bytes, world.pbx);
      const auto* trunk = std::get_if<ToTrunk>(&decision);
      EXPECT_NE(trunk, nullptr);
      return trunk == nullptr ? 0 : trunk->affinity;
    };
    const std::string first = with("INVITE", "");
    const std::string branch = branch_of(world.forward(first, world.pbx, world.carrier));
    const auto first_affinity = affinity(first);
    for (const std::string& same : {first, with("CANCEL", ""), with("ACK", ";tag=9")}) {
      EXPECT_EQ(affinity(same), first_affinity) << same;
      EXPECT_EQ(branch_of(world.forward(same, world.pbx, world.carrier)), branch) << same;
    }
    std::string other = first;
    if (*via_branch == '\0' || std::string_view(via_branch) != ";branch=z9hG4bKabc1") {
      other.replace(other.find("CSeq: 10"), 8, "CSeq: 11");
    } else {
      other.replace(other.find("abc1"), 4, "abc2");
    }
    EXPECT_NE(affinity(other), first_affinity);
    EXPECT_NE(branch_of(world.forward(other, world.pbx, world.carrier)), branch);
    // The same words from somewhere else are another transaction to the next hop.
    Flow elsewhere = world.pbx;
    elsewhere.remote = Address::from_ip("192.0.2.79", 5060).value();
    EXPECT_NE(branch_of(world.forward(first, elsewhere, world.carrier)), branch);
  }
}

// Several Via values on one line: only ours goes, the rest stays as it was written.
TEST(ResponseTest, ViasThatShareALine) {
  World world;
  const std::string forwarded = world.forward(invite(), world.pbx, world.carrier);
  const auto vias = headers(forwarded, "Via");
  const std::string tail =
      crlf("From: <sip:a@b>;tag=1\nTo: <sip:c@d>;tag=2\ni: c\nCSeq: 1 INVITE\nContent-Length: 0\n\n");
  const std::string start = "SIP/2.0 200 OK\r\n";
  const std::string rest = "SIP/2.0/UDP  second ;branch=x,\r\n SIP/2.0/UDP third";
  EXPECT_EQ(world.respond(start + "v:" + vias[0] + " ,\r\n\t" + rest + "\r\n" + tail, world.carrier),
            start + "v:" + rest + "\r\n" + tail);
  EXPECT_EQ(world.respond(start + "Via: " + vias[0] + "\r\nSubject: x\r\nVIA: " + rest + "\r\n" + tail, world.carrier),
            start + "Subject: x\r\nVIA: " + rest + "\r\n" + tail);
}

// A datagram's response may go on over a stream, which cannot do without Content-Length.
TEST(ResponseTest, ADatagramIsMadeFitForAStream) {
  World world;
  const std::string forwarded = world.forward(invite(), world.carrier, world.pbx);
  std::string response = response_to(forwarded, 200, "t", "sip:b@c");
  response.replace(response.find("Content-Length: 0\r\n\r\n"), std::string::npos, "\r\nbody");
  Flow to;
  const std::string sent = world.respond(response, world.pbx, &to);
  EXPECT_EQ(to.connection, world.carrier.connection);
  EXPECT_EQ(headers(sent, "Content-Length"), std::vector<std::string>{"4"});
  EXPECT_TRUE(sent.ends_with("\r\n\r\nbody")) << sent;
}

// Over UDP the way back is the port that the peer asked for (RFC 3581), and it is in the token.
TEST(ResponseTest, UdpPortsForResponses) {
  World world;
  Flow nat = world.pbx;
  nat.remote = Address::from_ip("192.0.2.77", 61234).value();
  Flow to;
  std::string text = invite();
  world.respond(response_to(world.forward(text, nat, world.carrier), 200, "t", "sip:b@c"), world.carrier, &to);
  EXPECT_EQ(to.remote.text(), "192.0.2.77:5060");
  text.replace(text.find(";branch"), 0, ";rport");
  const std::string forwarded = world.forward(text, nat, world.carrier);
  EXPECT_NE(forwarded.find("192.0.2.77;rport=61234;branch=z9hG4bKabc1;received=192.0.2.77"), std::string::npos);
  world.respond(response_to(forwarded, 200, "t", "sip:b@c"), world.carrier, &to);
  EXPECT_EQ(to.remote.text(), "192.0.2.77:61234");
}

}  // namespace
}  // namespace ktrunk::sip::testing
