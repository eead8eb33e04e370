#include "handshake/keeper_bench.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "ktls/install.h"

namespace ktrunk::test {

using handshake::KeyKeeper;
using ktls::Direction;

int KeeperBench::DyingKernel::set_option(int fd, int level, int name, const void* value, socklen_t length) {
  bench_.point();
  const int code = bench_.kernel.set_option(fd, level, name, value, length);
  bench_.point();
  return code;
}

int KeeperBench::DyingKernel::get_option(int fd, int level, int name, void* value, socklen_t* length) {
  bench_.point();
  return bench_.kernel.get_option(fd, level, name, value, length);
}

KeeperBench::KeeperBench(Scene its_scene)
    : scene(its_scene),
      vault(ipc::Vault::map(ipc::Vault::create(8).value(), 8).value()),
      loop(EventLoop::create().value()),
      socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  kernel.has_rekey = scene.rekey;
  support.ulp = true;
  support.rekey = scene.rekey;
  transmit.resize(ktls::hash_bytes(scene.hash));
  receive.resize(ktls::hash_bytes(scene.hash));
  std::ranges::fill(transmit.writable(), std::byte{0x11});
  std::ranges::fill(receive.writable(), std::byte{0x22});
  make_keeper();

  handshake::KernelSecrets secrets{scene.version, scene.aead, scene.hash, scene.self, {}, {}};
  if (scene.version == ktls::Version::kTls13) {
    const auto tx = ktls::keys_from_secret<Direction::kTransmit>(scene.aead, scene.hash, transmit, {2}).value();
    const auto rx = ktls::keys_from_secret<Direction::kReceive>(scene.aead, scene.hash, receive, {0}).value();
    EXPECT_TRUE(ktls::rekey(socket.get(), tx, kernel).has_value());
    EXPECT_TRUE(ktls::rekey(socket.get(), rx, kernel).has_value());
    secrets.transmit = ktls::TrafficSecret(transmit.bytes());
    secrets.receive = ktls::TrafficSecret(receive.bytes());
  }
  keeper->admitted(kConnection, {.secrets = std::move(secrets), .tickets = {}, .trunk = {}, .host = {}});
}

void KeeperBench::make_keeper() {
  KeyKeeper::Outlet outlet{.send_control =
                               [this](const ipc::SendControl& message) {
                                 point();
                                 const bool holds = message.after == ipc::SendControl::After::kHoldSends;
                                 if (!holds || !std::exchange(under_way_, true)) controls.push_back(message);
                                 point();
                               },
                           .resume =
                               [this](const ipc::Resume& message) {
                                 point();
                                 resumes.push_back(message);
                                 if (message.what == ipc::Resume::What::kSendRekeyed) under_way_ = false;
                                 point();
                               },
                           .fault =
                               [this](const ipc::Fault& message) {
                                 point();
                                 faults.push_back(message);
                                 point();
                               },
                           .learnt = {}};
  keeper = std::make_unique<KeyKeeper>(vault, HandshakeIndex{0}, support, dying_, stats, *loop, std::move(outlet),
                                       scene.limits);
}

void KeeperBench::restart() {
  keeper.reset();
  make_keeper();
}

void KeeperBench::point() {
  if (points_++ != die_at_) return;
  died_ = true;
  throw Death();
}

// Once more for the successor, unless the answer came through before the death.
template <typename Call>
void KeeperBench::until_answered(const Call& call) {
  const std::size_t answers = resumes.size() + faults.size();
  for (int life = 0; life < 3; ++life) {
    try {
      return call();
    } catch (const Death&) {
      restart();
      if (resumes.size() + faults.size() > answers) return;
    }
  }
}

void KeeperBench::record(const std::string& octets, std::size_t piece) {
  kernel.carry(socket.get(), TLS_RX, 1);
  until_answered([&] {
    std::size_t at = 0;
    do {
      ipc::PostHandshake message{};
      message.record.connection = kConnection;
      const std::size_t size = std::min({octets.size() - at, piece, message.record.octets.size()});
      message.record.bytes = static_cast<std::uint16_t>(size);
      std::copy_n(std::as_bytes(std::span(octets)).begin() + static_cast<std::ptrdiff_t>(at), size,
                  message.record.octets.begin());
      at += size;
      message.record.place =
          at == octets.size() ? ipc::HandshakeOctets::Place::kEndOfRecord : ipc::HandshakeOctets::Place::kMore;
      keeper->post_handshake(message, Fd(::fcntl(socket.get(), F_DUPFD_CLOEXEC, 3)));
    } while (at < octets.size());
  });
}

void KeeperBench::control_sent() {
  kernel.carry(socket.get(), TLS_TX, 1);
  until_answered(
      [&] { keeper->install_transmit({.connection = kConnection}, Fd(::fcntl(socket.get(), F_DUPFD_CLOEXEC, 3))); });
}

void KeeperBench::ask(ipc::Renew::Which which) {
  for (int life = 0; life < 3; ++life) {
    try {
      EXPECT_EQ(keeper->update(kConnection, which), KeyKeeper::Update::kBegun);
      return;
    } catch (const Death&) {
      restart();
    }
  }
}

ktls::TrafficSecret KeeperBench::secret(const ktls::TrafficSecret& first, unsigned updates) const {
  ktls::TrafficSecret made(first.bytes());
  for (unsigned i = 0; i < updates; ++i) made = ktls::next_secret(scene.hash, made).value();
  return made;
}

template <Direction D>
bool KeeperBench::has_keys(int name, const ktls::TrafficSecret& first, unsigned updates) {
  const auto wanted = ktls::keys_from_secret<D>(scene.aead, scene.hash, secret(first, updates), {0}).value();
  const auto installed = ktls::installed_key(socket.get(), D, ktls::Version::kTls13, scene.aead, kernel);
  if (!installed || kernel.installed(socket.get(), name) == nullptr) return false;
  return std::ranges::equal(installed->key.bytes(), wanted.key.bytes());
}
bool KeeperBench::receives_under(unsigned updates) { return has_keys<Direction::kReceive>(TLS_RX, receive, updates); }
bool KeeperBench::sends_under(unsigned updates) { return has_keys<Direction::kTransmit>(TLS_TX, transmit, updates); }

int KeeperBench::installs(int name) const {
  return static_cast<int>(std::ranges::count_if(
      kernel.sets, [&](const FakeKernel::Set& set) { return set.level == SOL_TLS && set.name == name; }));
}

bool KeeperBench::octets_in_vault(const ktls::TrafficSecret& wanted) {
  const auto octets = std::as_bytes(std::span(&entry(), 1));
  return !std::ranges::search(octets, wanted.bytes()).empty();
}

std::string ticket(std::size_t size) {
  const std::size_t length = 8 + 1 + 2 + size + 2;
  std::string made("\4\0", 2);
  made += static_cast<char>(length >> 8);
  made += static_cast<char>(length);
  made.append(8, '\1').append(1, '\0');
  made += static_cast<char>(size >> 8);
  made += static_cast<char>(size);
  return made.append(size, 't').append(2, '\0');
}

}  // namespace ktrunk::test
