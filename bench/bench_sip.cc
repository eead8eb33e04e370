// What each step of a worker's message path costs: framing, parsing, deciding, editing, tokens, route lookup.
#include <benchmark/benchmark.h>
#include <sodium.h>

#include <array>
#include <string>
#include <string_view>

#include "sip/framer.h"
#include "sip/proxy.h"
#include "sip/siphash.h"

namespace {

using namespace ktrunk;
using namespace ktrunk::sip;

// A call as a telephone system sends it: 14 header fields and a session description, about 900 octets.
constexpr std::string_view kHead =
    "INVITE sip:+493012345678@carrier.example.com SIP/2.0\r\n"
    "Via: SIP/2.0/UDP 192.0.2.77:5060;rport;branch=z9hG4bK74bf9a1c0d\r\n"
    "Max-Forwards: 70\r\n"
    "From: \"Alice Example\" <sip:alice@pbx.example.org>;tag=9fxced76sl\r\n"
    "To: <sip:+493012345678@carrier.example.com>\r\n"
    "Call-ID: 3848276298220188511@pbx.example.org\r\n"
    "CSeq: 1 INVITE\r\n"
    "Contact: <sip:alice@192.0.2.77:5060>\r\n"
    "Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, UPDATE, PRACK\r\n"
    "Supported: replaces, timer, 100rel\r\n"
    "User-Agent: Example PBX 18.4.2\r\n"
    "P-Asserted-Identity: <sip:+4940987654@pbx.example.org>\r\n"
    "Session-Expires: 1800;refresher=uac\r\n"
    "Content-Type: application/sdp\r\n";
constexpr std::string_view kBody =
    "v=0\r\no=- 20518 0 IN IP4 192.0.2.77\r\ns=-\r\nc=IN IP4 192.0.2.77\r\nt=0 0\r\n"
    "m=audio 54400 RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n"
    "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n";

std::string invite() { return fmt::format("{}Content-Length: {}\r\n\r\n{}", kHead, kBody.size(), kBody); }

struct World {
  config::Config config;
  TokenKey key{};
  Flow tls{.transport = config::Transport::kTls,
           .connection = {SlotIndex{7}, Generation{1}},
           .trunk = TrunkId{0},
           .listener = ListenerId{0},
           .remote = Address::from_ip("203.0.113.5", 5061).value()};
  Flow udp{.transport = config::Transport::kUdp,
           .connection = {},
           .trunk = TrunkId{1},
           .listener = ListenerId{1},
           .remote = Address::from_ip("192.0.2.77", 5060).value()};

  explicit World(std::size_t other_routes = 0) {
    for (const char* address : {"192.0.2.10:5061", "192.0.2.10:5060"})
      config.listeners.emplace_back().address = Address::parse(address).value();
    config.listeners[1].transport = config::Transport::kUdp;
    config.trunks.resize(2);
    for (std::size_t i = 0; i < other_routes; ++i) {
      config::Route route;
      route.methods = {"INVITE"};
      route.user_prefix = fmt::format("+49{}", 40 + i);
      route.to = {TrunkId{1}};
      config.routes.push_back(route);
    }
    config::Route route;
    route.from_trunk = TrunkId{1};
    route.to = {TrunkId{0}};
    config.routes.push_back(route);
  }
};

void count(benchmark::State& state, std::size_t octets) {
  state.SetItemsProcessed(state.iterations());
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(octets));
}

void framer_whole(benchmark::State& state) {
  const std::string text = invite();
  Framer framer(65535);
  for (auto _ : state) benchmark::DoNotOptimize(framer.next(text));
  count(state, text.size());
}
BENCHMARK(framer_whole);

void framer_in_pieces(benchmark::State& state) {
  const std::string text = invite();
  const auto step = static_cast<std::size_t>(state.range(0));
  Framer framer(65535);
  for (auto _ : state)
    for (std::size_t fed = step; fed < text.size() + step; fed += step)
      benchmark::DoNotOptimize(framer.next(std::string_view(text).substr(0, fed)));
  count(state, text.size());
}
BENCHMARK(framer_in_pieces)->Arg(1)->Arg(64);

void parser(benchmark::State& state) {
  const std::string text = invite();
  Message message;
  for (auto _ : state) {
    message.parse(text, Carrier::kStream);
    benchmark::DoNotOptimize(message);
  }
  count(state, text.size());
}
BENCHMARK(parser);

void decide_by_table(benchmark::State& state) {
  const World world;
  const Proxy proxy(world.config, world.key);
  const std::string text = invite();
  Message message;
  Edits edits;
  message.parse(text, Carrier::kStream);
  for (auto _ : state) benchmark::DoNotOptimize(proxy.decide(message, world.udp, edits));
  count(state, text.size());
}
BENCHMARK(decide_by_table);

void edits_and_write(benchmark::State& state) {
  const World world;
  const Proxy proxy(world.config, world.key);
  const std::string text = invite();
  Message message;
  Edits edits;
  std::array<char, 4096> out;
  message.parse(text, Carrier::kStream);
  for (auto _ : state) {
    proxy.forward_request(message, world.udp, world.tls, edits);
    edits.write(message.bytes(), out.data());
    benchmark::DoNotOptimize(out);
  }
  count(state, text.size());
}
BENCHMARK(edits_and_write);

void whole_request_path(benchmark::State& state) {
  const World world;
  const Proxy proxy(world.config, world.key);
  const std::string text = invite();
  Framer framer(65535);
  Message message;
  Edits edits;
  std::array<char, 4096> out;
  for (auto _ : state) {
    message.parse(std::string_view(text).substr(0, framer.next(text).length), Carrier::kStream);
    benchmark::DoNotOptimize(proxy.decide(message, world.udp, edits));
    proxy.forward_request(message, world.udp, world.tls, edits);
    edits.write(message.bytes(), out.data());
    benchmark::DoNotOptimize(out);
  }
  count(state, text.size());
}
BENCHMARK(whole_request_path);

void token_encode_via(benchmark::State& state) {
  const World world;
  for (auto _ : state) benchmark::DoNotOptimize(encode_token(ViaToken{world.tls, 42}, world.key));
}
BENCHMARK(token_encode_via);

void token_verify_via(benchmark::State& state) {
  const World world;
  const TokenText token = encode_token(ViaToken{world.tls, 42}, world.key);
  for (auto _ : state) benchmark::DoNotOptimize(decode_via_token(token.view(), world.key));
}
BENCHMARK(token_verify_via);

void token_verify_route(benchmark::State& state) {
  const World world;
  const TokenText token = encode_token(RouteToken{world.tls, world.udp}, world.key);
  for (auto _ : state) benchmark::DoNotOptimize(decode_route_token(token.view(), world.key));
}
BENCHMARK(token_verify_route);

// The MAC alone, over a Via token's 22 octets: what flow_token.h says of SipHash and HMAC-SHA-256 comes from these.
constexpr std::size_t kTokenOctets = 22;

void token_mac_siphash(benchmark::State& state) {
  std::array<unsigned char, kTokenOctets> octets{};
  std::array<unsigned char, 16> key{};
  for (auto _ : state) {
    const auto mac = SipHash::hash128({reinterpret_cast<const char*>(octets.data()), octets.size()}, key);
    benchmark::DoNotOptimize(mac);
    octets[0] = static_cast<unsigned char>(mac.low);
  }
}
BENCHMARK(token_mac_siphash);

void token_mac_hmac_sha256(benchmark::State& state) {
  std::array<unsigned char, kTokenOctets> octets{};
  std::array<unsigned char, crypto_auth_hmacsha256_KEYBYTES> key{};
  std::array<unsigned char, crypto_auth_hmacsha256_BYTES> mac;
  for (auto _ : state) {
    crypto_auth_hmacsha256(mac.data(), octets.data(), octets.size(), key.data());
    benchmark::DoNotOptimize(mac);
    octets[0] = mac[0];
  }
}
BENCHMARK(token_mac_hmac_sha256);

void route_lookup(benchmark::State& state) {
  const World world(static_cast<std::size_t>(state.range(0)));
  const RouteTable table(world.config);
  for (auto _ : state)
    benchmark::DoNotOptimize(table.find({.from_trunk = TrunkId{1},
                                         .from_listener = ListenerId{1},
                                         .method = "INVITE",
                                         .user = "+493012345678",
                                         .host = "carrier.example.com"}));
}
BENCHMARK(route_lookup)->Arg(0)->Arg(10)->Arg(100);

}  // namespace

BENCHMARK_MAIN();
