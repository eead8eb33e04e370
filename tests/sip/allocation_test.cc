// The forward path allocates nothing. A program of its own, because it replaces operator new.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

#include "sip/framer.h"
#include "sip/proxy_world.h"

namespace {
std::size_t allocations = 0;
}  // namespace

// Not inlined: the compiler would see malloc where it knows delete, and the other way round.
[[gnu::noinline]] void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace ktrunk::sip::testing {
namespace {

TEST(AllocationTest, FramingParsingDecidingForwardingAndWriting) {
  World world;
  Flow six = world.six;
  six.listener = ListenerId{1};
  const std::string first =
      invite("Route: <sip:edge.example.net;lr>\n", "sip:+4930@[2001:db8:1111:2222:3333:4444:5555:6666]");
  const std::string forwarded = world.forward(first, six, world.carrier);
  const std::string response = response_to(forwarded, 200, "t", "sip:b@c");
  std::string bye = first;
  bye.replace(0, 6, "BYE");
  bye.replace(bye.find("10 INVITE"), 9, "11 BYE");
  const auto routes = headers(forwarded, "Record-Route");
  bye.replace(bye.find("<sip:edge.example.net;lr>"), 25, routes[1] + "," + routes[0]);
  const std::string strict = invite("Route: <sip:strict.example.com>,<sip:loose;lr>\n" + [] {
    std::string more;
    for (int i = 0; i < 12; ++i) more += "Route: <sip:more;lr>\n";
    return more;
  }());
  std::string out(4096, '\0');
  Framer framer(65535);
  std::array<iovec, Edits::kMaxPieces> pieces;

  const std::size_t before = allocations;
  std::size_t sent = 0;
  for (const std::string* text :
       std::initializer_list<const std::string*>{&first, &bye, &response, &strict, &forwarded}) {
    const auto framed = framer.next(*text);
    world.message.parse(std::string_view(*text).substr(0, framed.length), Carrier::kStream);
    const Decision decision = world.proxy.decide(world.message, text == &response ? world.carrier : six, world.edits);
    if (world.message.is_request()) world.proxy.forward_request(world.message, six, world.carrier, world.edits);
    world.edits.write(world.message.bytes(), out.data());
    sent += static_cast<std::size_t>(verdict(decision)) * world.edits.gather(world.message.bytes(), pieces);
  }
  EXPECT_EQ(allocations, before);
  EXPECT_FALSE(world.edits.failed());
  EXPECT_GT(sent, 10u);
}

}  // namespace
}  // namespace ktrunk::sip::testing
