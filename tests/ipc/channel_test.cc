// The channel between processes: what is sent arrives whole and in order, with its descriptor, whatever the burst; what
// breaks the contract ends the peer.
#include "ipc/channel.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <span>

namespace ktrunk::ipc {
namespace {

using testing::HasSubstr;

// A raw end, for sending what no Channel would, and a channel that takes Offer and Held only.
struct Ends {
  Ends() : Ends(std::move(*Channel::pair())) {}
  explicit Ends(std::pair<Fd, Fd> pair)
      : raw(std::move(pair.first)), channel(std::move(pair.second), {Kind::kOffer, Kind::kHeld}) {}
  Fd raw;
  Channel channel;

  void send_raw(const void* bytes, std::size_t size, std::span<const int> descriptors = {}) const {
    iovec part{const_cast<void*>(bytes), size};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 8)] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (!descriptors.empty()) {
      message.msg_control = control;
      message.msg_controllen = CMSG_SPACE(sizeof(int) * descriptors.size());
      cmsghdr* rights = CMSG_FIRSTHDR(&message);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(sizeof(int) * descriptors.size());
      std::memcpy(CMSG_DATA(rights), descriptors.data(), sizeof(int) * descriptors.size());
    }
    ASSERT_EQ(::sendmsg(raw.get(), &message, 0), static_cast<ssize_t>(size));
  }
};

struct Wire {
  Header header;
  Held body;
};
Wire valid_held() {
  return {{.kind = Kind::kHeld, .body_bytes = sizeof(Held)}, {.connection = {SlotIndex{7}, Generation{3}}}};
}
static_assert(sizeof(Wire) == sizeof(Header) + sizeof(Held));

std::string error_of(Channel& channel) {
  Packet packet;
  auto outcome = channel.receive(packet);
  if (outcome) return "no error";
  return std::move(outcome.error().what);
}

TEST(Channel, CarriesAMessageAndItsDescriptor) {
  auto [left, right] = std::move(*Channel::pair());
  Channel sender(std::move(left), {});
  Channel receiver(std::move(right), {Kind::kOffer});
  Fd event(::eventfd(41, EFD_CLOEXEC));
  ASSERT_TRUE(sender.send(Offer{.connection = {SlotIndex{5}, Generation{9}}}, std::move(event)));

  Packet packet;
  ASSERT_EQ(receiver.receive(packet), Channel::Outcome::kMessage);
  EXPECT_EQ(packet.as<Offer>().connection, (ConnectionId{SlotIndex{5}, Generation{9}}));
  const Fd got = packet.take_descriptor();
  std::uint64_t value = 0;
  EXPECT_EQ(::read(got.get(), &value, sizeof value), 8);
  EXPECT_EQ(value, 41U);
  EXPECT_EQ(::fcntl(got.get(), F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(receiver.receive(packet), Channel::Outcome::kWouldBlock);
}

TEST(Channel, KeepsABurstThatTheSocketDoesNotTake) {
  auto [left, right] = std::move(*Channel::pair());
  Channel sender(std::move(left), {});
  Channel receiver(std::move(right), {Kind::kOffer});
  constexpr std::uint32_t kCount = 3000;
  for (std::uint32_t i = 0; i < kCount; ++i) {
    Fd event(::eventfd(i, EFD_CLOEXEC));
    ASSERT_TRUE(event.valid());
    ASSERT_TRUE(sender.send(Offer{.connection = {SlotIndex{i}, Generation{1}}}, std::move(event)));
    if (i == 900) {
      EXPECT_TRUE(sender.wants_write()) << "the burst was meant to fill the socket";
    }
    // Room for the descriptors that wait in this process.
    if (i < 900 || i % 2 != 0) continue;
    Packet drained;
    ASSERT_EQ(receiver.receive(drained), Channel::Outcome::kMessage);
    ASSERT_EQ(drained.as<Offer>().connection.slot.value, (i - 900) / 2);
  }
  for (std::uint32_t next = (kCount - 900 + 1) / 2; next < kCount;) {
    ASSERT_TRUE(sender.flush());
    Packet packet;
    ASSERT_EQ(receiver.receive(packet), Channel::Outcome::kMessage);
    ASSERT_EQ(packet.as<Offer>().connection.slot.value, next++);
  }
  EXPECT_FALSE(sender.wants_write());
}

TEST(Channel, TellsThatThePeerHasGone) {
  Ends ends;
  ends.raw.reset();
  Packet packet;
  EXPECT_EQ(ends.channel.receive(packet), Channel::Outcome::kClosed);
  EXPECT_FALSE(ends.channel.send(Drain{}));
}

TEST(Channel, RefusesWhatIsNoMessage) {
  Ends ends;
  ends.send_raw("abc", 3);
  EXPECT_THAT(error_of(ends.channel), HasSubstr("3 octets"));
}

TEST(Channel, RefusesAnotherVersion) {
  Ends ends;
  Wire wire = valid_held();
  wire.header.version = kProtocolVersion + 1;
  ends.send_raw(&wire, sizeof wire);
  EXPECT_THAT(error_of(ends.channel), HasSubstr("version"));
}

TEST(Channel, RefusesUnknownKindsAndThoseNotOnTheList) {
  Ends ends;
  Wire wire = valid_held();
  for (const std::uint16_t kind : {std::uint16_t{0}, std::uint16_t{18}, std::uint16_t{999}, std::uint16_t{0xffff}}) {
    wire.header.kind = static_cast<Kind>(kind);
    ends.send_raw(&wire, sizeof wire);
    EXPECT_THAT(error_of(ends.channel), HasSubstr("not for this process"));
  }
  wire.header.kind = Kind::kReleased;  // a known kind of the same shape, which this end does not take
  ends.send_raw(&wire, sizeof wire);
  EXPECT_THAT(error_of(ends.channel), HasSubstr("not for this process"));
}

TEST(Channel, RefusesEveryOtherLength) {
  std::array<std::byte, sizeof(Header) + kMaxBodyBytes + 64> bytes{};
  const Wire wire = valid_held();
  std::memcpy(bytes.data(), &wire, sizeof wire);
  for (std::size_t size = 1; size <= bytes.size(); ++size) {
    if (size == sizeof wire) continue;
    Ends ends;
    ends.send_raw(bytes.data(), size);
    EXPECT_NE(error_of(ends.channel), "no error") << size;
  }
  Ends ends;
  Wire lying = wire;
  lying.header.body_bytes += 1;
  ends.send_raw(&lying, sizeof lying);
  EXPECT_NE(error_of(ends.channel), "no error");
}

// The descriptor check of test_main sees to it that the refused ones are closed.
TEST(Channel, RefusesDescriptorsThatAKindDoesNotHave) {
  const Fd event(::eventfd(0, EFD_CLOEXEC));
  std::array<int, 8> same;
  same.fill(event.get());
  for (const std::size_t count : {std::size_t{1}, std::size_t{2}, std::size_t{4}}) {
    Ends ends;
    const Wire wire = valid_held();
    ends.send_raw(&wire, sizeof wire, std::span(same).first(count));
    EXPECT_THAT(error_of(ends.channel), HasSubstr("descriptors")) << count;
  }
  Ends ends;
  const Wire wire = valid_held();
  ends.send_raw(&wire, sizeof wire, same);
  EXPECT_THAT(error_of(ends.channel), HasSubstr("cut short"));
}

TEST(Channel, RefusesAMissingDescriptor) {
  Ends ends;
  struct {
    Header header;
    Offer body;
  } wire{{.kind = Kind::kOffer, .body_bytes = sizeof(Offer)}, {}};
  ends.send_raw(&wire, sizeof wire);
  EXPECT_THAT(error_of(ends.channel), HasSubstr("0 descriptors, not 1"));
}

TEST(Text, CutsWhatIsTooLong) {
  EXPECT_EQ(Text<8>("1234567").view(), "1234567");
  EXPECT_EQ(Text<8>("12345678").view(), "1234567");
  EXPECT_EQ(Text<8>("").view(), "");
}

}  // namespace
}  // namespace ktrunk::ipc
