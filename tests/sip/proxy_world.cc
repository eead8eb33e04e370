#include "sip/proxy_world.h"

#include <gtest/gtest.h>

namespace ktrunk::sip::testing {

std::string crlf(std::string_view text) {
  if (text.starts_with('\n')) text.remove_prefix(1);
  std::string out;
  for (const char c : text) {
    if (c == '\n') out += '\r';
    out += c;
  }
  return out;
}

std::vector<std::string> headers(std::string_view text, std::string_view name) {
  Message message;
  message.parse(text, Carrier::kDatagram);
  std::vector<std::string> values;
  for (std::size_t i = 0; i < message.header_count(); ++i)
    if (message.header(i).name == name) values.emplace_back(message.header(i).value);
  return values;
}

Flow stream_flow(std::uint32_t slot, TrunkId trunk, ListenerId listener, std::string_view ip, std::uint16_t port) {
  const auto transport = listener.value == 2 ? config::Transport::kTcp : config::Transport::kTls;
  return {.transport = transport,
          .connection = {SlotIndex{slot}, Generation{3}},
          .trunk = trunk,
          .listener = listener,
          .remote = Address::from_ip(ip, port).value()};
}

Flow udp_flow(TrunkId trunk, ListenerId listener, std::string_view ip, std::uint16_t port) {
  return {.transport = config::Transport::kUdp,
          .connection = {},
          .trunk = trunk,
          .listener = listener,
          .remote = Address::from_ip(ip, port).value()};
}

config::Config make_config() {
  config::Config config;
  const auto listener = [&](config::Transport transport, std::string_view address, std::string_view host,
                            std::uint16_t port) {
    config::Listener made;
    made.transport = transport;
    made.address = Address::parse(address).value();
    made.advertise_host = host;
    made.advertise_port = port;
    config.listeners.push_back(made);
  };
  listener(config::Transport::kTls, "0.0.0.0:5061", "edge.example.net", 5061);
  listener(config::Transport::kUdp, "192.0.2.10:5060", "192.0.2.10", 5060);
  listener(config::Transport::kTcp, "[2001:db8::10]:5060", "2001:db8::10", 5060);
  for (std::uint16_t i = 0; i < 3; ++i) {
    config::Trunk trunk;
    trunk.listener = ListenerId{i};
    config.trunks.push_back(trunk);
  }
  config.routes.push_back({.from_trunk = TrunkId{0}, .to = {TrunkId{1}}});
  config.routes.push_back(
      {.from_listener = ListenerId{1}, .methods = {"INVITE"}, .user_prefix = "+49", .to = {TrunkId{0}}});
  config.routes.push_back({.host = "six.example.net", .to = {TrunkId{2}}});
  return config;
}

TokenKey make_key() {
  TokenKey key;
  for (std::size_t i = 0; i < key.bytes.size(); ++i) key.bytes[i] = static_cast<unsigned char>(i * 37 + 11);
  return key;
}

int verdict(const Decision& decision) {
  if (const auto* reply = std::get_if<Reply>(&decision)) return reply->status;
  if (std::holds_alternative<ToTrunk>(decision)) return kSentToTrunk;
  return std::holds_alternative<ToFlow>(decision) ? kSentToFlow : kDropped;
}

std::string World::written() const {
  EXPECT_FALSE(edits.failed());
  std::string out(edits.size(message.bytes()), '\0');
  edits.write(message.bytes(), out.data());
  std::array<iovec, Edits::kMaxPieces> pieces;
  const std::size_t count = edits.gather(message.bytes(), pieces);
  std::string gathered;
  for (std::size_t i = 0; i < count; ++i) gathered.append(static_cast<char*>(pieces[i].iov_base), pieces[i].iov_len);
  EXPECT_EQ(out, gathered);
  return out;
}

Decision World::decide(std::string_view bytes, const Flow& source) {
  message.parse(bytes, source.transport == config::Transport::kUdp ? Carrier::kDatagram : Carrier::kStream);
  return proxy.decide(message, source, edits);
}

std::string World::forward(std::string_view bytes, const Flow& source, const Flow& destination) {
  const Decision decision = decide(bytes, source);
  EXPECT_TRUE(verdict(decision) == kSentToTrunk || verdict(decision) == kSentToFlow) << bytes << verdict(decision);
  const auto* to_trunk = std::get_if<ToTrunk>(&decision);
  proxy.forward_request(message, source, destination, edits, to_trunk != nullptr ? to_trunk->route : nullptr);
  return written();
}

std::string World::respond(std::string_view bytes, const Flow& source, Flow* to) {
  const Decision decision = decide(bytes, source);
  const auto* flow = std::get_if<ToFlow>(&decision);
  if (flow == nullptr) return {};
  if (to != nullptr) *to = flow->flow;
  return written();
}

std::string World::reply_to(std::string_view bytes, const Flow& source, const Reply& reply) {
  message.parse(bytes, source.transport == config::Transport::kUdp ? Carrier::kDatagram : Carrier::kStream);
  std::string out;
  proxy.build_reply(message, source, reply, out);
  return out;
}

std::string invite(std::string_view extra, std::string_view uri) {
  std::string text = "INVITE " + std::string(uri) + " SIP/2.0\n" + R"(Via: SIP/2.0/UDP 192.0.2.77;branch=z9hG4bKabc1
From: "Alice" <sip:alice@pbx.example.org>;tag=a1
To: <sip:+4930123@carrier.example.org>
Call-ID: call-1@pbx
CSeq: 10 INVITE
Contact: <sip:alice@192.0.2.77>
Max-Forwards: 70
)";
  text += extra;
  text += "Content-Length: 4\n\n";
  return crlf(text) + "v=0\n";
}

std::string response_to(std::string_view request, int status, std::string_view to_tag, std::string_view contact) {
  Message message;
  message.parse(request, Carrier::kDatagram);
  std::string out = "SIP/2.0 " + std::to_string(status) + " Whatever\r\n";
  for (std::size_t i = 0; i < message.header_count(); ++i) {
    const auto header = message.header(i);
    switch (header.id) {
      case HeaderId::kVia:
      case HeaderId::kRecordRoute:
      case HeaderId::kFrom:
      case HeaderId::kCallId:
      case HeaderId::kCSeq:
        out += std::string(header.name) + ": " + std::string(header.value) + "\r\n";
        break;
      case HeaderId::kTo:
        out += "To: " + std::string(header.value);
        if (!to_tag.empty() && header.value.find(";tag=") == std::string_view::npos)
          out += ";tag=" + std::string(to_tag);
        out += "\r\n";
        break;
      default:
        break;
    }
  }
  if (!contact.empty()) out += "Contact: <" + std::string(contact) + ">\r\n";
  return out + "Content-Length: 0\r\n\r\n";
}

}  // namespace ktrunk::sip::testing
