// What the proxy did not have to change is what it was, octet by octet: torture messages and generated ones, forward
// and back. The comparison (support/round_trip.h) knows neither our parser nor our edits.
#include "support/round_trip.h"

#include <gtest/gtest.h>

#include <random>

#include "sip/proxy_world.h"
#include "support/scale.h"
#include "support/torture.h"

namespace ktrunk::sip::testing {
namespace {

using test::unexplained_change;

// A response made of a request as it was sent, by copying octets: all its header fields but the Route set, odd spelling
// and all. `via` is our whole line in it.
std::string answer_to(std::string_view sent, std::string& via) {
  std::string out = "SIP/2.0 299 \xc3\xa4 \t ok\r\n";
  bool first = true;
  for (const std::string_view line : test::round_trip::header_lines(sent)) {
    if (std::exchange(first, false)) continue;
    if (via.empty() && line.starts_with("Via: SIP/2.0/") && line.find(";branch=z9hG4bKI") != std::string_view::npos)
      via = line;
    out += line;
  }
  return out + std::string(test::round_trip::body(sent));
}

// Forwards the request on every pair of flows, and a response back.
void expect_round_trip(World& world, const std::string& text, std::string_view what) {
  const Flow* const flows[] = {&world.carrier, &world.pbx, &world.six, &world.stranger};
  const std::string_view names[] = {"edge.example.net:5061", "192.0.2.10:5060", "[2001:db8::10]:5060",
                                    "edge.example.net:5061"};
  for (const Flow* source : flows) {
    for (std::size_t i = 0; i < 4; ++i) {
      const Flow& destination = *flows[i];
      const Carrier carrier = source->transport == config::Transport::kUdp ? Carrier::kDatagram : Carrier::kStream;
      world.message.parse(text, carrier);
      world.proxy.forward_request(world.message, *source, destination, world.edits);
      ASSERT_FALSE(world.edits.failed()) << what;
      const std::string sent = world.written();
      const std::string_view original(text.data(), world.message.bytes().size());
      // Record-Route names both sides; make it one name for the comparison.
      std::string known = sent;
      for (const std::string_view name : names)
        for (std::size_t at = known.find(name); at != std::string::npos; at = known.find(name, at + 1)) {
          const std::size_t line = known.rfind("\r\n", at);
          if (line != std::string::npos && (known.compare(line + 2, 7, "Record-") == 0))
            known.replace(at, name.size(), names[i]);
        }
      ASSERT_EQ(unexplained_change(original, known, names[i]), "") << what << "\n" << sent;

      std::string via;
      const std::string answer = answer_to(sent, via);
      ASSERT_FALSE(via.empty()) << what;
      Flow to;
      const std::string back = world.respond(answer, destination, &to);
      ASSERT_FALSE(back.empty()) << what << "\n" << answer;
      std::string expected = answer;
      expected.erase(expected.find(via), via.size());
      ASSERT_EQ(back, expected) << what;
      EXPECT_EQ(to.trunk, source->trunk) << what;
    }
  }
}

TEST(RoundTripTest, TortureMessages) {
  const auto messages = test::torture_messages();
  if (messages.empty()) GTEST_SKIP() << "no torture messages in " << test::torture_folder();
  World world;
  int forwarded = 0;
  for (const test::TortureMessage& message : messages) {
    if (message.framing != "exact" || test::torture_verdict(message.name) != test::kTortureForwarded) continue;
    ASSERT_NO_FATAL_FAILURE(expect_round_trip(world, message.bytes, message.name));
    ++forwarded;
  }
  EXPECT_GT(forwarded, 20);
}

// A request put together at random from what the grammar allows and programs do: white space round colons and commas,
// folds, compact forms, several values on a line or lines of their own, unknown fields, bodies with anything in them.
class Generator {
 public:
  explicit Generator(std::uint32_t seed) : random_(seed) {}

  std::string request() {
    const std::string method =
        pick({"INVITE", "MESSAGE", "BYE", "OPTIONS", "SUBSCRIBE", "!odd%Method", "REFER", "ACK"});
    std::vector<std::string> fields = {
        field({"From", "f", "FROM"}, pick({"<sip:a@b>;tag=1", "\"Q\\\"uo, te\" <sip:a@b> ; tag=1", "sip:a@b;tag=x",
                                           "\xc3\xa4\xc3\xb6 <sips:%41@[::1]>;tag=1"})),
        field({"To", "t"}, pick({"<sip:c@d>", "<tel:+1-2>;tag=9", "\"\" <sip:c@d;x=y>"})),
        field({"Call-ID", "i"}, "call(" + std::to_string(random_()) + ")@h"),
        field({"CSeq"}, std::to_string(random_() % 1000) + lws() + method),
    };
    if (random_() % 4 != 0) fields.push_back(field({"Max-Forwards"}, pick({"70", "1", "255", "010"})));
    for (auto more = random_() % 6; more > 0; --more)
      fields.push_back(field({"X-Odd", "Subject", "s", "Contact", "m", "P-Asserted-Identity", "Supported"},
                             pick({"", ";;;,", "\"un", "value, value", "\xff\xfe", "<sip:x@y;lr>", ": :"})));
    if (random_() % 3 == 0)
      fields.push_back(field({"Route", "ROUTE"}, pick({"<sip:p;lr>", "<sip:p;lr>,\"a, b\" <sip:q;lr;x>"})));
    if (random_() % 3 == 0) fields.push_back(field({"Record-Route"}, "<sip:p1;lr>, <sip:p0;lr>"));
    std::string vias =
        field({"Via", "v", "VIA"},
              pick({"SIP/2.0/TLS h:5061;branch=z9hG4bKx", "SIP / 2.0 / UDP 192.0.2.1 ; rport;branch=z9hG4bKy",
                    "SIP/2.0/TCP [::1];rport=9;received=1.2.3.4;branch=z9hG4bKq,SIP/2.0/UDP old",
                    "SIP/2.0/UDP host ;a=\"q,\";branch=old, SIP/2.0/X y;z"}));
    fields.push_back(vias);
    std::shuffle(fields.begin(), fields.end(), random_);
    const std::string body = random_body();
    fields.push_back(field({"Content-Length", "l", "CONTENT-LENGTH"}, std::to_string(body.size())));
    std::string text =
        method + " " + pick({"sip:+49@x", "sip:x@y;p=1", "tel:+49-30;ext=1", "sip:[::1]:5070"}) + " SIP/2.0\r\n";
    for (const std::string& one : fields) text += one;
    return text + "\r\n" + body;
  }

 private:
  std::string pick(std::initializer_list<std::string> choices) { return choices.begin()[random_() % choices.size()]; }
  std::string lws() { return pick({" ", " ", "\t", "  \t", "\r\n ", " \r\n\t "}); }
  std::string field(std::initializer_list<std::string> names, const std::string& value) {
    return pick(names) + pick({"", "", " ", "\t "}) + ":" + (random_() % 3 == 0 ? lws() : " ") + value +
           pick({"", "", " ", " \t"}) + "\r\n";
  }
  std::string random_body() {
    std::string body(random_() % 3 == 0 ? 0 : random_() % 300, '\0');
    for (char& c : body) c = static_cast<char>(random_());
    return body;
  }

  std::mt19937 random_;
};

TEST(RoundTripTest, GeneratedMessages) {
  const char* given = std::getenv("KTRUNK_TEST_SEED");
  const auto seed =
      given != nullptr ? static_cast<std::uint32_t>(std::strtoul(given, nullptr, 0)) : std::random_device{}();
  const int rounds = std::max(1, 3000 / static_cast<int>(test::scale()));
  std::printf("KTRUNK_TEST_SEED=%u\n", seed);
  World world;
  Generator generator(seed);
  for (int round = 0; round < rounds; ++round) {
    const std::string text = generator.request();
    ASSERT_NO_FATAL_FAILURE(expect_round_trip(world, text, text)) << "round " << round << " of seed " << seed;
  }
}

}  // namespace
}  // namespace ktrunk::sip::testing
