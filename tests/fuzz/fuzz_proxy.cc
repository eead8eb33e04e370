// Proxy: parse, decide, forward and reply with arbitrary bytes. What is sent must be framed by the next hop as exactly
// one sound message. Input: one octet that picks source, destination and carrier, then the message; "{{TOKEN}}" and
// "{{BRANCH}}" in it become valid tokens, so that the fuzzer gets past the MAC.
#include <array>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "sip/framer.h"
#include "sip/proxy.h"
#include "sip/transaction.h"

namespace {

using namespace ktrunk;
using namespace ktrunk::sip;

void require(bool holds) {
  if (!holds) std::abort();
}

struct World {
  config::Config config;
  TokenKey key{};
  std::array<Flow, 3> flows;

  World() {
    const config::Transport transports[] = {config::Transport::kTls, config::Transport::kUdp, config::Transport::kTcp};
    const char* const addresses[] = {"192.0.2.1:5061", "192.0.2.1:5060", "[2001:db8::1]:5060"};
    for (std::uint16_t i = 0; i < 3; ++i) {
      config::Listener listener;
      listener.transport = transports[i];
      listener.address = Address::parse(addresses[i]).value();
      config.listeners.push_back(listener);
      config.trunks.emplace_back().listener = ListenerId{i};
      flows[i] = {.transport = transports[i],
                  .connection = {},
                  .trunk = TrunkId{i},
                  .listener = ListenerId{i},
                  .remote = Address::parse(i == 2 ? "[2001:db8::9]:7" : "198.51.100.7:777").value()};
      if (i != 1) flows[i].connection = {SlotIndex{i}, Generation{1}};
    }
    config::Route route;
    route.user_prefix = "no";
    route.to = {TrunkId{1}};
    config.routes.push_back(route);
    route.user_prefix.clear();
    route.to = {TrunkId{0}, TrunkId{2}};
    route.rewrite_user_prefix = {.from = "a", .to = "+"};
    route.rewrite_host = "[2001:db8::5]:5070";
    route.remove_headers = {config::header_name("Supported"), config::header_name("X-Odd")};
    route.add_headers = "X-Odd: 1\r\n";
    config.routes.push_back(route);
  }
};

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

void check_sent(std::string_view sent) {
  if (sent.size() > kMaxHeaderSectionBytes) return;  // our own lines may lift the header section over the limit
  Framer framer(1 << 20);
  const auto result = framer.next(sent);
  require(result.outcome == Framer::Outcome::kMessage && result.length == sent.size());
  static Message message;
  message.parse(sent, Carrier::kStream);
  // Our lines may be those beyond the limit on headers.
  require(message.defect().status == 0 || message.header_count() + 5 > kMaxHeaders);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const World world;
  static const Proxy proxy(world.config, world.key);
  static Message message;
  static Edits edits;
  if (size == 0) return 0;
  const Flow& source = world.flows[data[0] % 3];
  const Flow& destination = world.flows[data[0] / 3 % 3];
  std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  replace_all(text, "{{TOKEN}}", encode_token(RouteToken{source, destination}, world.key).view());
  replace_all(text, "{{TOKEN2}}",
              encode_token(RouteToken{destination, source, RouteToken::Lines::kTwo}, world.key).view());
  replace_all(
      text, "{{BRANCH}}",
      encode_token(ViaToken{.source = destination, .transaction = 42, .destination = peer_hash(source, world.key)},
                   world.key)
          .view());

  message.parse(text, (data[0] & 0x80) != 0 ? Carrier::kStream : Carrier::kDatagram);
  const Decision decision = proxy.decide(message, source, edits);
  std::string reply;
  proxy.build_reply(message, source, {420, "Bad Extension", "Retry-After: 1\r\n"}, reply);
  if (!reply.empty()) check_sent(reply);

  if (std::holds_alternative<Reply>(decision)) require(message.is_request() && message.method() != Method::kAck);
  if (!std::holds_alternative<ToTrunk>(decision) && !std::holds_alternative<ToFlow>(decision)) return 0;
  const auto* to_trunk = std::get_if<ToTrunk>(&decision);
  const config::Route* route = to_trunk != nullptr ? to_trunk->route : nullptr;
  if (message.is_request()) proxy.forward_request(message, source, destination, edits, route);
  if (edits.failed()) {  // too many header fields to remove
    require(route != nullptr && message.header_count() > kMaxEdits / 2);
    return 0;
  }
  std::string sent(edits.size(message.bytes()), '\0');
  edits.write(message.bytes(), sent.data());
  std::array<iovec, Edits::kMaxPieces> pieces;
  std::size_t gathered = 0;
  for (std::size_t i = 0, count = edits.gather(message.bytes(), pieces); i < count; ++i) gathered += pieces[i].iov_len;
  require(gathered == sent.size());
  check_sent(sent);
  return 0;
}
