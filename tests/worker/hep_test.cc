// HEPv3 datagrams, octet by octet and taken apart again; which calls are sampled; and the batch that packets go in.
#include "worker/hep.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cstring>
#include <string>
#include <vector>

#include "support/hep.h"
#include "worker/packet_batch.h"
#include "worker/tracer.h"

namespace ktrunk::worker {
namespace {

using test::HepDatagram;

HepMessage message(std::string_view payload) {
  return {.from = Address::parse("192.0.2.1:5061").value(),
          .to = Address::parse("198.51.100.2:40000").value(),
          .protocol = HepMessage::Protocol::kTcp,
          .seconds = 0x01020304,
          .microseconds = 999'999,
          .payload = payload};
}

std::string encoded(const HepEncoder& encoder, const HepMessage& message) {
  std::string octets(encoder.size(message), '#');
  encoder.encode(message, std::as_writable_bytes(std::span(octets)));
  return octets;
}

TEST(Hep, IsAsTheSpecificationSays) {
  using std::string_literals::operator""s;
  const std::string octets = encoded(HepEncoder(0x11223344, "key"), message("SIP"));
  EXPECT_EQ(octets,
            "HEP3\0\x6f"s                                        // 111 octets
            "\0\0\0\x01\0\x07\x02"s                              // AF_INET
            "\0\0\0\x02\0\x07\x06"s                              // TCP
            "\0\0\0\x03\0\x0a\xc0\0\x02\x01"s                    // from
            "\0\0\0\x04\0\x0a\xc6\x33\x64\x02"s                  // to
            "\0\0\0\x07\0\x08\x13\xc5\0\0\0\x08\0\x08\x9c\x40"s  // ports
            "\0\0\0\x09\0\x0a\x01\x02\x03\x04"s                  // seconds
            "\0\0\0\x0a\0\x0a\0\x0f\x42\x3f"s                    // microseconds
            "\0\0\0\x0b\0\x07\x01"s                              // SIP
            "\0\0\0\x0c\0\x0a\x11\x22\x33\x44"s                  // capture agent
            "\0\0\0\x0e\0\x09key"s
            "\0\0\0\x0f\0\x09SIP"s);
}

TEST(Hep, EveryChunkIsThereOnce) {
  HepMessage udp = message("OPTIONS");
  udp.protocol = HepMessage::Protocol::kUdp;
  const auto datagram = HepDatagram::parse(encoded(HepEncoder(7, ""), udp));
  ASSERT_TRUE(datagram) << datagram.error().what;
  EXPECT_EQ(datagram->chunks.size(), 11u);
  EXPECT_EQ(datagram->number(1), 2u);
  EXPECT_EQ(datagram->number(2), 17u);
  EXPECT_EQ(datagram->source(), "192.0.2.1:5061");
  EXPECT_EQ(datagram->destination(), "198.51.100.2:40000");
  EXPECT_EQ(datagram->number(9), 0x01020304u);
  EXPECT_EQ(datagram->number(10), 999'999u);
  EXPECT_EQ(datagram->number(11), 1u);
  EXPECT_EQ(datagram->number(12), 7u);
  EXPECT_FALSE(datagram->has(14)) << "no key, no chunk";
  EXPECT_EQ(datagram->payload(), "OPTIONS");
}

TEST(Hep, Ipv6) {
  HepMessage ipv6 = message("x");
  ipv6.from = Address::parse("[2001:db8::1]:5061").value();
  ipv6.to = Address::parse("[::1]:1").value();
  const auto datagram = HepDatagram::parse(encoded(HepEncoder(7, "k"), ipv6));
  ASSERT_TRUE(datagram) << datagram.error().what;
  EXPECT_EQ(datagram->number(1), 10u);
  EXPECT_EQ(datagram->source(), "[2001:db8::1]:5061");
  EXPECT_EQ(datagram->destination(), "[::1]:1");
  EXPECT_FALSE(datagram->has(3) || datagram->has(4));
}

TEST(Hep, AnAddressThatIsNotKnownIsZero) {
  HepMessage half = message("x");
  half.from = {};
  half.to = Address::parse("[2001:db8::1]:5061").value();
  auto datagram = HepDatagram::parse(encoded(HepEncoder(7, ""), half));
  ASSERT_TRUE(datagram) << datagram.error().what;
  EXPECT_EQ(datagram->source(), "[::]:0");
  EXPECT_EQ(datagram->destination(), "[2001:db8::1]:5061");
  half.to = {};
  datagram = HepDatagram::parse(encoded(HepEncoder(7, ""), half));
  ASSERT_TRUE(datagram) << datagram.error().what;
  EXPECT_EQ(datagram->source(), "0.0.0.0:0");
  // Of two families, which no socket has, the source's counts.
  half.from = Address::parse("192.0.2.1:1").value();
  half.to = Address::parse("[2001:db8::1]:5061").value();
  datagram = HepDatagram::parse(encoded(HepEncoder(7, ""), half));
  ASSERT_TRUE(datagram) << datagram.error().what;
  EXPECT_EQ(datagram->destination(), "0.0.0.0:5061");
}

TEST(Hep, EverySizeUpToTheLongest) {
  const HepEncoder encoder(1, std::string(config::kMaxHepKeyBytes, 'k'));
  const std::size_t around = encoder.size(message(""));
  const std::string payload(HepEncoder::kMaxBytes - around + 1, 'p');
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{1400}, payload.size() - 1}) {
    const auto datagram = HepDatagram::parse(encoded(encoder, message(std::string_view(payload).substr(0, bytes))));
    ASSERT_TRUE(datagram) << datagram.error().what;
    EXPECT_EQ(datagram->payload().size(), bytes);
    EXPECT_EQ(datagram->text(14).size(), config::kMaxHepKeyBytes);
  }
  EXPECT_EQ(encoder.size(message(std::string_view(payload).substr(1))), HepEncoder::kMaxBytes);
  EXPECT_GT(encoder.size(message(payload)), HepEncoder::kMaxBytes) << "and that is for the caller to see";
}

TEST(Sampling, IsByCallAndByShare) {
  constexpr unsigned kCalls = 20'000;
  unsigned tenth = 0;
  unsigned half = 0;
  for (unsigned i = 0; i < kCalls; ++i) {
    const std::string call_id = fmt::format("{}@192.0.2.1", i);
    const bool in_tenth = is_sampled({100'000}, call_id);
    const bool in_half = is_sampled({500'000}, call_id);
    EXPECT_EQ(is_sampled({100'000}, call_id), in_tenth);
    EXPECT_TRUE(is_sampled({config::Share::kAll}, call_id));
    EXPECT_FALSE(is_sampled({0}, call_id));
    EXPECT_TRUE(!in_tenth || in_half) << "whom a smaller share has, a larger one has too";
    tenth += in_tenth ? 1 : 0;
    half += in_half ? 1 : 0;
  }
  EXPECT_NEAR(tenth, kCalls / 10, kCalls / 100);
  EXPECT_NEAR(half, kCalls / 2, kCalls / 50);
  EXPECT_FALSE(is_sampled({0}, ""));
}

struct Pair {
  Fd near, far;
};
Pair pair(int type) {
  int ends[2];
  EXPECT_EQ(::socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
  return {Fd(ends[0]), Fd(ends[1])};
}

void put(PacketBatch& batch, std::string_view octets) {
  const auto room = batch.add(octets.size());
  if (!room.empty()) std::memcpy(room.data(), octets.data(), octets.size());
}

std::vector<std::string> received(const Fd& socket) {
  std::vector<std::string> all;
  std::string buffer(100'000, '\0');
  for (;;) {
    const ssize_t got = ::recv(socket.get(), buffer.data(), buffer.size(), 0);
    if (got <= 0) return all;
    all.push_back(buffer.substr(0, static_cast<std::size_t>(got)));
  }
}

TEST(PacketBatch, KeepsPacketsApartAndInOrder) {
  auto [near, far] = pair(SOCK_SEQPACKET);
  PacketBatch batch(std::move(near), 4096);
  std::vector<std::string> expected;
  for (unsigned i = 0; i < 200; ++i) {  // more than go in one system call, and than the memory holds
    expected.push_back(std::string(i + 1, static_cast<char>('a' + i % 26)));
    put(batch, expected.back());
  }
  EXPECT_FALSE(batch.empty());
  batch.flush();
  EXPECT_TRUE(batch.empty());
  EXPECT_EQ(received(far), expected);
  EXPECT_EQ(batch.sent(), 200u);
  EXPECT_EQ(batch.dropped(), 0u);
  batch.flush();
  EXPECT_EQ(batch.sent(), 200u);
}

TEST(PacketBatch, DropsAndCountsWhatNobodyTakes) {
  auto [near, far] = pair(SOCK_SEQPACKET);
  const int small = 4096;
  ASSERT_EQ(::setsockopt(near.get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
  PacketBatch batch(std::move(near), 1 << 16);
  const std::string packet(1000, 'x');
  for (unsigned i = 0; i < 1000; ++i) put(batch, packet);
  batch.flush();
  EXPECT_GT(batch.sent(), 0u);
  EXPECT_EQ(batch.sent() + batch.dropped(), 1000u);
  const std::uint64_t dropped = batch.dropped();
  EXPECT_EQ(received(far).size(), batch.sent());
  // It goes on when it is read again.
  put(batch, "later");
  batch.flush();
  EXPECT_EQ(batch.dropped(), dropped);
  EXPECT_EQ(received(far), std::vector<std::string>{"later"});
  // The reader has gone.
  far.reset();
  put(batch, "a");
  put(batch, "b");
  batch.flush();
  EXPECT_EQ(batch.dropped(), dropped + 2);
}

TEST(PacketBatch, OneThatIsTooLongTakesNoOtherWithIt) {
  auto [near, far] = pair(SOCK_SEQPACKET);
  const int small = 8192;
  ASSERT_EQ(::setsockopt(near.get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
  PacketBatch batch(std::move(near), 1 << 16);
  EXPECT_TRUE(batch.add((1 << 16) + 1).empty()) << "no batch holds it";
  put(batch, "before");
  put(batch, std::string(40'000, 'x'));  // no packet of this socket holds it: EMSGSIZE
  put(batch, "behind");
  batch.flush();
  EXPECT_EQ(received(far), (std::vector<std::string>{"before", "behind"}));
  EXPECT_EQ(batch.sent(), 2u);
  EXPECT_EQ(batch.dropped(), 2u);
}

TEST(PacketBatch, ACollectorThatIsNotThereCostsItsPacketsAlone) {
  Fd near(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  Fd far(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  Address address = Address::parse("127.0.0.1:0").value();
  ASSERT_EQ(::bind(far.get(), address.data(), address.size()), 0);
  sockaddr_in bound{};
  socklen_t size = sizeof bound;
  ASSERT_EQ(::getsockname(far.get(), reinterpret_cast<sockaddr*>(&bound), &size), 0);
  ASSERT_EQ(::connect(near.get(), reinterpret_cast<sockaddr*>(&bound), size), 0);
  PacketBatch batch(std::move(near), 4096);
  far.reset();
  for (unsigned i = 0; i < 20; ++i) {
    put(batch, "x");
    batch.flush();
  }
  EXPECT_EQ(batch.sent() + batch.dropped(), 20u);
  EXPECT_GT(batch.dropped(), 0u) << "ICMP says that the port is not open";
  far = Fd(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(far.get(), reinterpret_cast<sockaddr*>(&bound), size), 0);
  const std::uint64_t dropped = batch.dropped();
  put(batch, "y");
  put(batch, "y");
  batch.flush();
  EXPECT_GE(received(far).size(), 1u);
  EXPECT_LE(batch.dropped(), dropped + 1) << "an error that is still to be told";
}

}  // namespace
}  // namespace ktrunk::worker
