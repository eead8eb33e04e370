// What the kernel does with sockets on which keys were installed: data and control records over 127.0.0.1.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "ktls/control_record.h"
#include "ktls/install.h"
#include "ktls/key_schedule.h"
#include "ktls/tls_stat.h"
#include "support/ktls_available.h"

namespace ktrunk::ktls {
namespace {

std::pair<Fd, Fd> tcp_pair() {
  const Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  EXPECT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), length), 0);
  EXPECT_EQ(::listen(listener.get(), 1), 0);
  EXPECT_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
  Fd first(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(::connect(first.get(), reinterpret_cast<const sockaddr*>(&address), length), 0);
  Fd second(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  return {std::move(first), std::move(second)};
}

template <Direction D>
Keys<D> keys_of(Version version, Aead aead, unsigned char fill) {
  Keys<D> keys;
  keys.version = version;
  keys.aead = aead;
  keys.key.resize(key_bytes(aead));
  keys.nonce.resize(kNonceBytes);
  for (std::byte& byte : keys.key.writable()) byte = std::byte{fill};
  for (std::byte& byte : keys.nonce.writable()) byte = std::byte{fill};
  keys.next = {41};
  return keys;
}

struct Ends {
  KtlsSocket near;
  KtlsSocket far;
};
std::optional<Ends> connected(Version version, Aead aead) {
  auto [first, second] = tcp_pair();
  constexpr auto kT = Direction::kTransmit;
  constexpr auto kR = Direction::kReceive;
  auto near = install_keys(std::move(first), {keys_of<kT>(version, aead, 1), keys_of<kR>(version, aead, 2)});
  auto far = install_keys(std::move(second), {keys_of<kT>(version, aead, 2), keys_of<kR>(version, aead, 1)});
  if (!near || !far) {
    ADD_FAILURE() << (near ? far.error() : near.error()).error.what;
    return std::nullopt;
  }
  return Ends{std::move(*near), std::move(*far)};
}

struct Received {
  ssize_t count = 0;
  RecordType type = RecordType::kApplicationData;
  int flags = 0;
  std::string text;
};
Received receive(int fd) {
  pollfd entry = {.fd = fd, .events = POLLIN, .revents = 0};
  ::poll(&entry, 1, 2000);
  std::array<char, 16384> buffer = {};
  alignas(cmsghdr) std::array<std::byte, kControlBytes> control = {};
  iovec part = {buffer.data(), buffer.size()};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  Received received;
  received.count = ::recvmsg(fd, &message, MSG_DONTWAIT);
  if (received.count < 0) return received;
  received.flags = message.msg_flags;
  received.text.assign(buffer.data(), static_cast<std::size_t>(received.count));
  const auto type = record_type(std::span(control).first(message.msg_controllen), message.msg_flags);
  EXPECT_TRUE(type.has_value());
  if (type) received.type = *type;
  return received;
}

class KernelSuite : public testing::TestWithParam<std::tuple<Version, Aead>> {};

TEST_P(KernelSuite, CarriesDataBothWays) {
  const auto [version, aead] = GetParam();
  KTRUNK_REQUIRE_KTLS(version, aead);
  const auto ends = connected(version, aead);
  ASSERT_TRUE(ends.has_value());
  for (const std::size_t size : {std::size_t{1}, std::size_t{600}, kMaxRecordBytes}) {
    const std::string text(size, 'x');
    for (const auto& [from, to] : {std::pair(ends->near.get(), ends->far.get()), {ends->far.get(), ends->near.get()}}) {
      ASSERT_EQ(::send(from, text.data(), text.size(), 0), static_cast<ssize_t>(size));
      const Received received = receive(to);
      EXPECT_EQ(received.text, text);
      EXPECT_EQ(received.type, RecordType::kApplicationData);
      EXPECT_NE(received.flags & MSG_EOR, 0);
    }
  }
}

TEST_P(KernelSuite, CarriesAlerts) {
  const auto [version, aead] = GetParam();
  KTRUNK_REQUIRE_KTLS(version, aead);
  const auto ends = connected(version, aead);
  ASSERT_TRUE(ends.has_value());
  ASSERT_EQ(::send(ends->near.get(), "data", 4, 0), 4);
  const AlertMessage close_notify(kCloseNotify);
  ASSERT_EQ(::sendmsg(ends->near.get(), close_notify.header(), 0), static_cast<ssize_t>(AlertMessage::kPayloadBytes));
  EXPECT_EQ(receive(ends->far.get()).text, "data");  // never joined with the record behind it
  const Received alert = receive(ends->far.get());
  EXPECT_EQ(alert.type, RecordType::kAlert);
  EXPECT_EQ(parse_alert(std::as_bytes(std::span(alert.text))).value(), kCloseNotify);
}

INSTANTIATE_TEST_SUITE_P(All, KernelSuite, testing::Combine(testing::ValuesIn(kVersions), testing::ValuesIn(kAeads)));

TEST(KernelInstall, SetsNodelayAndKeepsTheDescriptor) {
  KTRUNK_REQUIRE_KTLS();
  auto ends = connected(Version::kTls13, Aead::kAes128Gcm);
  ASSERT_TRUE(ends.has_value());
  int on = 0;
  socklen_t length = sizeof on;
  ASSERT_EQ(::getsockopt(ends->near.get(), IPPROTO_TCP, TCP_NODELAY, &on, &length), 0);
  EXPECT_NE(on, 0);
  const Fd released = std::move(ends->near).release();
  EXPECT_EQ(::send(released.get(), "x", 1, 0), 1);
  EXPECT_EQ(receive(ends->far.get()).text, "x");
}

TEST(KernelInstall, ASecondInstallationIsRefusedAndChangesNothing) {
  KTRUNK_REQUIRE_KTLS();
  auto ends = connected(Version::kTls13, Aead::kAes128Gcm);
  ASSERT_TRUE(ends.has_value());
  Fd fd(std::move(ends->near).release());
  const auto again = install_keys(std::move(fd), {keys_of<Direction::kTransmit>(Version::kTls13, Aead::kAes128Gcm, 9),
                                                  keys_of<Direction::kReceive>(Version::kTls13, Aead::kAes128Gcm, 9)});
  ASSERT_FALSE(again.has_value());
  EXPECT_EQ(again.error().error.code, EEXIST);
  ASSERT_EQ(::send(fd.get(), "x", 1, 0), 1);  // NOLINT(bugprone-use-after-move): a failure does not take it
  EXPECT_EQ(receive(ends->far.get()).text, "x");
}

TEST(KernelInstall, APeerThatHasClosedIsRefusedUntouched) {
  KTRUNK_REQUIRE_KTLS();
  auto [first, second] = tcp_pair();
  ASSERT_EQ(::shutdown(second.get(), SHUT_WR), 0);
  pollfd entry = {.fd = first.get(), .events = POLLIN, .revents = 0};
  ASSERT_EQ(::poll(&entry, 1, 2000), 1);
  const auto socket =
      install_keys(std::move(first), {keys_of<Direction::kTransmit>(Version::kTls13, Aead::kAes128Gcm, 1),
                                      keys_of<Direction::kReceive>(Version::kTls13, Aead::kAes128Gcm, 1)});
  ASSERT_FALSE(socket.has_value());
  EXPECT_EQ(socket.error().error.code, ENOTCONN);
  EXPECT_EQ(socket.error().socket, SocketState::kUntouched);
}

TEST(KernelReceive, WrongKeysAreABadRecord) {
  KTRUNK_REQUIRE_KTLS();
  auto [first, second] = tcp_pair();
  constexpr auto kT = Direction::kTransmit;
  constexpr auto kR = Direction::kReceive;
  const auto version = Version::kTls13;
  const auto aead = Aead::kAes128Gcm;
  const auto near = install_keys(std::move(first), {keys_of<kT>(version, aead, 1), keys_of<kR>(version, aead, 2)});
  auto shifted = keys_of<kR>(version, aead, 1);
  shifted.next = {42};  // one record on
  const auto far = install_keys(std::move(second), {keys_of<kT>(version, aead, 2), std::move(shifted)});
  ASSERT_TRUE(near.has_value() && far.has_value());
  const auto before = read_tls_stat();
  ASSERT_TRUE(before.has_value());
  ASSERT_EQ(::send(near->get(), "x", 1, 0), 1);
  EXPECT_EQ(receive(far->get()).count, -1);
  EXPECT_EQ(errno, EBADMSG);
  EXPECT_GT(read_tls_stat().value().decrypt_errors(), before->decrypt_errors());
}

TEST(KernelRekey, BothDirectionsFollowOneKeyUpdate) {
  KTRUNK_REQUIRE_KTLS();
  if (!test::ktls_support().rekey) GTEST_SKIP() << "this kernel has no rekey (Linux 6.14)";
  const auto ends = connected(Version::kTls13, Aead::kAes256Gcm);
  ASSERT_TRUE(ends.has_value());
  // KeyUpdate, update_not_requested (RFC 8446 4.6.3), as a handshake record.
  std::array<char, 5> update = {24, 0, 0, 1, 0};
  AlertMessage like_this(kCloseNotify);
  alignas(cmsghdr) std::array<std::byte, kControlBytes> control = {};
  std::memcpy(control.data(), like_this.header()->msg_control, control.size());
  control[CMSG_LEN(0)] = static_cast<std::byte>(RecordType::kHandshake);
  iovec part = {update.data(), update.size()};
  msghdr message = *like_this.header();
  message.msg_iov = &part;
  message.msg_control = control.data();
  ASSERT_EQ(::sendmsg(ends->near.get(), &message, 0), 5);
  auto transmit = keys_of<Direction::kTransmit>(Version::kTls13, Aead::kAes256Gcm, 7);
  transmit.next = {0};
  ASSERT_TRUE(rekey(ends->near.get(), transmit).has_value());
  ASSERT_EQ(::send(ends->near.get(), "after", 5, 0), 5);

  EXPECT_EQ(receive(ends->far.get()).type, RecordType::kHandshake);
  EXPECT_EQ(receive(ends->far.get()).count, -1);
  EXPECT_EQ(errno, EKEYEXPIRED);
  auto keys = keys_of<Direction::kReceive>(Version::kTls13, Aead::kAes256Gcm, 7);
  keys.next = {0};
  ASSERT_TRUE(rekey(ends->far.get(), keys).has_value());
  EXPECT_EQ(receive(ends->far.get()).text, "after");
}

TEST(KernelProbe, SaysWhatThisMachineDoes) {
  KTRUNK_REQUIRE_KTLS();
  RecordProperty("kernel_tls", test::ktls_support().describe());
  EXPECT_TRUE(test::ktls_support().complete(Version::kTls13, Aead::kAes128Gcm)) << test::ktls_support().describe();
}

}  // namespace
}  // namespace ktrunk::ktls
