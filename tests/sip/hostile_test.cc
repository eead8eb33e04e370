// What strangers send: every cut and many mutations of good messages. Nothing crashes, nothing is forwarded that the
// next hop would frame otherwise.
#include <gtest/gtest.h>

#include <random>

#include "sip/framer.h"
#include "sip/proxy_world.h"

namespace ktrunk::sip::testing {
namespace {

// Runs one message through everything, as a worker does, and checks what would be sent.
void run(World& world, std::string_view bytes, const Flow& source, const Flow& destination) {
  const Decision decision = world.decide(bytes, source);
  std::string reply;
  world.proxy.build_reply(world.message, source, {500, "x", {}}, reply);
  std::string sent;
  const bool is_response = world.message.is_response();
  if (verdict(decision) == kSentToFlow && is_response) {
    sent = world.written();
  } else if (verdict(decision) == kSentToFlow || verdict(decision) == kSentToTrunk) {
    world.proxy.forward_request(world.message, source, destination, world.edits);
    sent = world.written();
  }
  for (const std::string* out : {&reply, &sent}) {
    if (out->empty()) continue;
    Framer framer(1 << 20);
    const auto result = framer.next(*out);
    if (out->size() > kMaxHeaderSectionBytes) continue;  // our own headers may lift a message over the header limit
    ASSERT_EQ(result.outcome, Framer::Outcome::kMessage) << *out;
    ASSERT_EQ(result.length, out->size());
    Message again;
    again.parse(*out, Carrier::kStream);
    ASSERT_EQ(again.defect().status, 0) << again.defect().what << "\n" << *out;
  }
}

std::vector<std::string> samples(World& world) {
  std::vector<std::string> out;
  out.push_back(invite("Route: <sip:edge.example.net;lr>, \"q,\" <sip:next;lr>\nProxy-Require:\n"));
  out.push_back(world.forward(out[0], world.pbx, world.carrier));
  out.push_back(response_to(out[1], 200, "t", "sip:bob@host"));
  std::string bye = out[0];
  const auto routes = headers(out[1], "Record-Route");
  bye.replace(bye.find("<sip:edge.example.net;lr>"), 25, routes[1] + ", " + routes[0]);
  out.push_back(bye);
  return out;
}

TEST(HostileTest, EveryCut) {
  World world;
  for (const std::string& sample : samples(world)) {
    for (std::size_t size = 0; size <= sample.size(); ++size) {
      run(world, std::string(sample.substr(0, size)), world.pbx, world.carrier);
      run(world, std::string(sample.substr(size)), world.carrier, world.pbx);
    }
  }
}

TEST(HostileTest, EveryOctetReplaced) {
  World world;
  for (const std::string& sample : samples(world)) {
    for (std::size_t i = 0; i < sample.size(); ++i) {
      for (const char c : std::string_view("\0\r\n ,;<>\"\\:@[%\xff", 15)) {
        std::string changed = sample;
        changed[i] = c;
        run(world, changed, world.pbx, world.carrier);
      }
    }
  }
}

TEST(HostileTest, RandomSplices) {
  World world;
  const auto all = samples(world);
  std::mt19937 random(20240817);
  for (int round = 0; round < 20000; ++round) {
    std::string text = all[random() % all.size()];
    for (unsigned edits = random() % 4; edits > 0; --edits) {
      const std::string& other = all[random() % all.size()];
      const std::size_t from = random() % other.size();
      text.replace(random() % text.size(), random() % 30, other.substr(from, random() % 60));
    }
    run(world, text, random() % 2 != 0 ? world.pbx : world.carrier, random() % 2 != 0 ? world.six : world.carrier);
  }
}

TEST(HostileTest, HugeValues) {
  World world;
  for (const std::string& filler : {std::string(12000, ','), std::string(12000, '"'), std::string(12000, ';'),
                                    std::string(12000, '\\'), std::string(12000, '<'), std::string(12000, 'a')}) {
    for (const char* name : {"Route", "Via", "Record-Route", "X"})
      run(world, invite(std::string(name) + ": " + filler + "\n"), world.pbx, world.carrier);
    run(world, invite("", "sip:" + filler), world.pbx, world.carrier);
    run(world, invite("", "sip:+49" + filler + "@h"), world.pbx, world.carrier);
  }
}

}  // namespace
}  // namespace ktrunk::sip::testing
