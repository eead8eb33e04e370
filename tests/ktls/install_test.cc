#include "ktls/install.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdint>

#include "ktls/fake_kernel.h"

namespace ktrunk::ktls {
namespace {

using test::FakeKernel;

template <Direction D>
Keys<D> some_keys(Version version = Version::kTls13, Aead aead = Aead::kAes128Gcm) {
  Keys<D> keys;
  keys.version = version;
  keys.aead = aead;
  keys.key.resize(key_bytes(aead));
  keys.nonce.resize(kNonceBytes);
  return keys;
}
SessionKeys both(Version version = Version::kTls13, Aead aead = Aead::kAes128Gcm) {
  return {some_keys<Direction::kTransmit>(version, aead), some_keys<Direction::kReceive>(version, aead)};
}
Fd any_fd() { return Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }

TEST(InstallKeys, SetsUlpThenTransmitThenReceive) {
  FakeKernel kernel;
  Fd fd = any_fd();
  const int number = fd.get();
  auto socket = install_keys(std::move(fd), both(Version::kTls12, Aead::kAes256Gcm), kernel);
  ASSERT_TRUE(socket.has_value()) << socket.error().error.what;
  EXPECT_EQ(socket->get(), number);
  EXPECT_EQ(socket->version(), Version::kTls12);
  EXPECT_EQ(socket->aead(), Aead::kAes256Gcm);
  ASSERT_EQ(kernel.sets.size(), 4u);
  EXPECT_EQ(kernel.sets[0].name, TCP_NODELAY);
  EXPECT_EQ(kernel.sets[1].name, TCP_ULP);
  EXPECT_EQ(kernel.sets[1].value, "tls");
  EXPECT_EQ(kernel.sets[2].name, TLS_TX);
  EXPECT_EQ(kernel.sets[3].name, TLS_RX);
  const Fd released = std::move(*socket).release();
  EXPECT_EQ(released.get(), number);
}

// Whichever call fails: the socket stays the caller's, and is called unusable exactly when one direction is in.
TEST(InstallKeys, EveryFailingCallLeavesAKnownState) {
  FakeKernel counting;
  ASSERT_TRUE(install_keys(any_fd(), both(), counting).has_value());
  for (int call = 0; call < counting.calls; ++call) {
    FakeKernel kernel;
    kernel.fail_call = call;
    kernel.fail_with = ENOMEM;
    Fd fd = any_fd();
    const auto socket = install_keys(std::move(fd), both(), kernel);
    ASSERT_FALSE(socket.has_value()) << call;
    EXPECT_TRUE(fd.valid()) << call;  // NOLINT(bugprone-use-after-move): a failure does not take it
    const bool transmit_is_in =
        std::ranges::any_of(kernel.sets, [](const auto& set) { return set.level == SOL_TLS && set.name == TLS_TX; });
    EXPECT_EQ(socket.error().socket, transmit_is_in ? SocketState::kUnusable : SocketState::kUntouched) << call;
    EXPECT_EQ(socket.error().error.code, ENOMEM) << call;
  }
}

TEST(InstallKeys, PreconditionsAreCheckedBeforeAnythingIsSet) {
  const auto refused = [](FakeKernel& kernel, const SessionKeys& keys) {
    Fd fd = any_fd();
    const auto socket = install_keys(std::move(fd), keys, kernel);
    EXPECT_FALSE(socket.has_value());
    EXPECT_TRUE(kernel.sets.empty());
    return socket.has_value() ? std::string() : socket.error().error.what;
  };
  FakeKernel closing;
  closing.tcp_state = TCP_CLOSE_WAIT;
  EXPECT_NE(refused(closing, both()).find("ESTABLISHED"), std::string::npos);
  FakeKernel udp;
  udp.protocol = IPPROTO_UDP;
  EXPECT_NE(refused(udp, both()).find("TCP"), std::string::npos);
  FakeKernel occupied;
  occupied.ulp = "mptcp";
  EXPECT_NE(refused(occupied, both()).find("mptcp"), std::string::npos);
  FakeKernel kernel;
  EXPECT_NE(refused(kernel, {some_keys<Direction::kTransmit>(Version::kTls12), some_keys<Direction::kReceive>()}), "");
  EXPECT_NE(refused(kernel, {some_keys<Direction::kTransmit>(), {}}), "");
  auto short_key = both();
  short_key.receive.key.resize(15);
  EXPECT_NE(refused(kernel, short_key), "");
  EXPECT_EQ(kernel.calls, 0);
}

TEST(InstallKeys, AKernelWithoutTlsSaysWhatToDo) {
  FakeKernel kernel;
  kernel.has_tls = false;
  const auto socket = install_keys(any_fd(), both(), kernel);
  ASSERT_FALSE(socket.has_value());
  EXPECT_EQ(socket.error().socket, SocketState::kUntouched);
  EXPECT_EQ(socket.error().error.code, ENOENT);
  EXPECT_NE(socket.error().error.what.find("modprobe tls"), std::string::npos);
}

TEST(InstallKeys, TheRealKernelRefusesWhatIsNoTcpSocket) {
  Fd fd = any_fd();
  const auto socket = install_keys(std::move(fd), both());
  ASSERT_FALSE(socket.has_value());
  EXPECT_EQ(socket.error().socket, SocketState::kUntouched);
  EXPECT_EQ(socket.error().error.code, ENOTSOCK);
}

TEST(Rekey, IsForTls13AndSaysEbusyOnOldKernels) {
  FakeKernel kernel;
  EXPECT_FALSE(rekey(3, some_keys<Direction::kTransmit>(Version::kTls12), kernel).has_value());
  EXPECT_EQ(kernel.calls, 0);
  ASSERT_TRUE(rekey(3, some_keys<Direction::kTransmit>(), kernel).has_value());
  EXPECT_EQ(rekey(3, some_keys<Direction::kTransmit>(), kernel).error().code, EBUSY);
  kernel.has_rekey = true;
  EXPECT_TRUE(rekey(3, some_keys<Direction::kTransmit>(), kernel).has_value());
}

// What key a socket has, is read back as it was set.
TEST(InstalledKey, IsTheOneThatWasSetLast) {
  for (const Aead aead : kAeads) {
    test::FakeKernel kernel;
    kernel.has_rekey = true;
    const Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto read = [&](Direction direction, Version version = Version::kTls13, Aead cipher = Aead::kAes128Gcm) {
      return installed_key(socket.get(), direction, version, cipher, kernel);
    };
    EXPECT_FALSE(read(Direction::kReceive, Version::kTls13, aead).has_value()) << "no keys yet";
    for (const std::uint64_t next : {std::uint64_t{0}, std::uint64_t{258}, ~std::uint64_t{0}}) {
      ReceiveKeys keys;
      keys.aead = aead;
      keys.key.resize(key_bytes(aead));
      keys.nonce.resize(kNonceBytes);
      for (std::size_t i = 0; i < keys.key.size(); ++i) keys.key.writable()[i] = static_cast<std::byte>(i + next);
      keys.next = {next};
      ASSERT_TRUE(rekey(socket.get(), keys, kernel).has_value());
      const auto installed = read(Direction::kReceive, Version::kTls13, aead);
      ASSERT_TRUE(installed.has_value()) << installed.error().what;
      EXPECT_TRUE(std::ranges::equal(installed->key.bytes(), keys.key.bytes()));
      EXPECT_EQ(installed->next, keys.next);
    }
    EXPECT_FALSE(read(Direction::kTransmit, Version::kTls13, aead).has_value());
    EXPECT_FALSE(read(Direction::kReceive, Version::kTls12, aead).has_value());
    for (const Aead other : kAeads) {
      EXPECT_EQ(read(Direction::kReceive, Version::kTls13, other).has_value(), other == aead);
    }
    kernel.fail_call = kernel.calls;
    kernel.fail_with = EIO;
    EXPECT_EQ(read(Direction::kReceive, Version::kTls13, aead).error().code, EIO);
  }
}

}  // namespace
}  // namespace ktrunk::ktls
