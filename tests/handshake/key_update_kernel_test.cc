// Key updates and tickets on the kernel's own TLS: the keeper, a home worker's and a supervisor's part in a few lines,
// and a peer in user space: OpenSSL, or records made by hand.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/tls.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <array>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "handshake/key_keeper.h"
#include "handshake/tls_carrier.h"
#include "handshake/tls_test_peer.h"
#include "handshake/tls_test_pki.h"
#include "ktls/control_record.h"
#include "support/ktls_available.h"

namespace ktrunk::test {
namespace {

using handshake::KeyKeeper;
using handshake::Resumption;
using handshake::Role;
using handshake::TicketReader;
using handshake::TlsContext;
using handshake::TlsSession;

constexpr const char* kName = "sip.example.com";
constexpr ConnectionId kConnection{{1}, {1}};

// Our end of a connection that the kernel carries.
class Home {
 public:
  Home() : vault_(ipc::Vault::map(ipc::Vault::create(4).value(), 4).value()), loop_(EventLoop::create().value()) {
    restart();
  }

  // The session goes into the kernel, and its secrets to the keeper.
  void take(TlsSession session) {
    auto handover = session.into_kernel();
    ASSERT_TRUE(handover.has_value()) << handover.error().error.what;
    std::optional<TicketReader> tickets = TicketReader::create(std::move(session), handover->secrets);
    socket_ = std::move(handover->socket).release();
    keeper_->admitted(
        kConnection,
        {.secrets = std::move(handover->secrets), .tickets = std::move(tickets), .trunk = {0}, .host = kName});
  }
  // The keeper dies, and another takes over with nothing but the vault.
  void restart() {
    keeper_.reset();
    keeper_ = std::make_unique<KeyKeeper>(
        vault_, HandshakeIndex{0}, ktls_support(), ktls::running_kernel(), stats, *loop_,
        KeyKeeper::Outlet{.send_control = [this](const ipc::SendControl& order) { orders_.push_back(order); },
                          .resume = [this](const ipc::Resume&) { ++resumes; },
                          .fault = [this](const ipc::Fault& fault) { faults.push_back(fault.reason); },
                          .learnt = [this](TrunkId, const std::string&, Resumption made) { memory = std::move(made); }},
        KeyKeeper::Limits{.records_burst = 100'000, .records_per_second = 100'000});
  }

  bool send(const std::string& text) {
    return ::send(socket_.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT) ==
           static_cast<ssize_t>(text.size());
  }
  // The next data; what comes before it is dealt with. Empty: none came, or a fault.
  std::string receive() {
    std::array<char, 16384> buffer = {};
    alignas(cmsghdr) std::array<std::byte, ktls::kControlBytes> control = {};
    for (int i = 0; i < 1000 && faults.empty(); ++i) {
      iovec part = {buffer.data(), buffer.size()};
      msghdr message = {};
      message.msg_iov = &part;
      message.msg_iovlen = 1;
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      const ssize_t count = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT);
      if (count < 0 && errno == EAGAIN) {
        if (!wait_readable(socket_.get())) return {};
        continue;
      }
      if (count <= 0) {
        ADD_FAILURE() << "recvmsg: " << (count < 0 ? errno_text(errno) : "end of stream");
        return {};
      }
      const std::string octets(buffer.data(), static_cast<std::size_t>(count));
      const auto type = ktls::record_type(std::span(control).first(message.msg_controllen), message.msg_flags);
      if (type && *type == ktls::RecordType::kApplicationData) return octets;
      if (std::exchange(read_on, false)) {
        wait_readable(socket_.get());
        char octet = 0;
        read_on_result = ::recv(socket_.get(), &octet, 1, MSG_DONTWAIT) < 0 ? errno : 0;
      }
      if (type && *type == ktls::RecordType::kHandshake) pass_on(octets, (message.msg_flags & MSG_EOR) != 0);
      obey();
    }
    return {};
  }
  // Renew, and what follows from it here.
  KeyKeeper::Update renew(ipc::Renew::Which which) {
    const auto update = keeper_->update(kConnection, which);
    obey();
    return update;
  }
  void obey() {
    while (!orders_.empty()) {
      const ipc::SendControl order = orders_.front();
      orders_.pop_front();
      send_record(order);
      if (order.after != ipc::SendControl::After::kHoldSends) continue;
      if (restart_always) restart();
      keeper_->install_transmit({.connection = kConnection}, copy());
    }
  }

  ipc::HandshakeStats stats;
  std::vector<ipc::FaultReason> faults;
  Resumption memory;
  unsigned resumes = 0;
  bool restart_always = false;  // between any two messages
  bool read_on = false;         // once, behind a handshake record, before it is passed on
  int read_on_result = 0;

 private:
  [[nodiscard]] Fd copy() const { return Fd(::fcntl(socket_.get(), F_DUPFD_CLOEXEC, 3)); }
  void pass_on(const std::string& octets, bool complete) {
    for (std::size_t at = 0; at < octets.size();) {
      ipc::PostHandshake message{};
      message.record.connection = kConnection;
      const std::size_t size = std::min(octets.size() - at, message.record.octets.size());
      std::memcpy(message.record.octets.data(), octets.data() + at, size);
      message.record.bytes = static_cast<std::uint16_t>(size);
      at += size;
      message.record.place = complete && at == octets.size() ? ipc::HandshakeOctets::Place::kEndOfRecord
                                                             : ipc::HandshakeOctets::Place::kMore;
      keeper_->post_handshake(message, copy());
    }
    if (restart_always) restart();
  }
  void send_record(const ipc::SendControl& order) {
    auto octets = order.octets;
    iovec part = {octets.data(), order.bytes};
    alignas(cmsghdr) std::array<std::byte, ktls::kControlBytes> control = {};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* type = CMSG_FIRSTHDR(&message);
    type->cmsg_level = SOL_TLS;
    type->cmsg_type = TLS_SET_RECORD_TYPE;
    type->cmsg_len = CMSG_LEN(1);
    *CMSG_DATA(type) = order.record_type;
    EXPECT_EQ(::sendmsg(socket_.get(), &message, MSG_NOSIGNAL), order.bytes);
  }

  ipc::Vault vault_;
  std::unique_ptr<EventLoop> loop_;
  Fd socket_;
  std::deque<ipc::SendControl> orders_;
  std::unique_ptr<KeyKeeper> keeper_;
};

class KeyUpdateKernel : public testing::Test {
 protected:
  void SetUp() override { KTRUNK_REQUIRE_KTLS(ktls::Version::kTls13, ktls::Aead::kAes128Gcm); }

  TlsContext listener(ktls::Aead aead = ktls::Aead::kAes128Gcm) {
    config::Listener listener = pki_.listener(files_);
    listener.tls.ciphersuites = suite_of(aead);
    return TlsContext::for_listener(listener).value();
  }
  TlsContext trunk(ktls::Aead aead = ktls::Aead::kAes128Gcm) {
    config::Trunk trunk = pki_.trunk();
    trunk.tls.ciphersuites = suite_of(aead);
    trunk.tls.certificate = files_.certificate;
    trunk.tls.key = files_.key;
    return TlsContext::for_trunk(trunk).value();
  }
  // An OpenSSL server that wants a client certificate.
  Context server() {
    Context made = server_context(files_.certificate, files_.key);
    SSL_CTX_set_session_id_context(made.get(), reinterpret_cast<const unsigned char*>("test"), 4);
    SSL_CTX_load_verify_file(made.get(), pki_.authority_file().c_str());
    SSL_CTX_set_verify(made.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    return made;
  }
  // Both ends in one, ours accepted or connected.
  std::unique_ptr<Peer> join(Home& home, Role ours, ktls::Aead aead = ktls::Aead::kAes128Gcm) {
    context_.emplace(ours == Role::kAccept ? listener(aead) : trunk(aead));
    theirs_ = ours == Role::kAccept ? client_context(pki_.authority_file()) : server();
    auto [near, far] = tcp_pair();
    auto peer =
        std::make_unique<Peer>(theirs_.get(), std::move(far), ours == Role::kAccept ? Role::kConnect : Role::kAccept);
    auto session = ours == Role::kAccept ? TlsSession::accept(*context_, std::move(near)).value()
                                         : TlsSession::connect(*context_, std::move(near), kName).value();
    EXPECT_EQ(shake(session, *peer), TlsSession::Step::kDone) << session.failure().error.what;
    EXPECT_TRUE(peer->handshake());
    home.take(std::move(session));
    return peer;
  }
  // Records by hand at the other end.
  std::unique_ptr<Carrier> join_by_hand(Home& home) {
    context_.emplace(trunk());
    const TlsContext accepting = listener();
    auto [near, far] = tcp_pair();
    auto ours = TlsSession::connect(*context_, std::move(near), kName).value();
    Fd socket(::fcntl(far.get(), F_DUPFD_CLOEXEC, 3));
    auto theirs = TlsSession::accept(accepting, std::move(far)).value();
    for (int i = 0; i < 100; ++i) {
      const auto near_step = ours.step();
      const auto far_step = theirs.step();
      if (near_step == TlsSession::Step::kDone && far_step == TlsSession::Step::kDone) break;
    }
    home.take(std::move(ours));
    auto keys = theirs.export_keys();
    EXPECT_TRUE(keys.has_value()) << keys.error().what;
    return carry_in_user_space(std::move(socket), std::move(*keys));
  }
  static void exchange(Home& home, Peer& peer, const std::string& text) {
    ASSERT_TRUE(peer.send(text));
    ASSERT_EQ(home.receive(), text);
    ASSERT_TRUE(home.send(text + " back"));
    ASSERT_EQ(peer.receive(), text + " back");
  }

  Pki pki_;
  Pki::Files files_ = pki_.issue({});
  std::optional<TlsContext> context_;
  Context theirs_;
};

#define REQUIRE_REKEY() \
  if (!ktls_support().rekey) GTEST_SKIP() << "this kernel has no rekey (Linux 6.14)"

TEST_F(KeyUpdateKernel, AThousandUpdatesEachWay) {
  REQUIRE_REKEY();
  Home home;
  const auto peer = join(home, Role::kAccept);
  for (unsigned i = 1; i <= 1000 && !HasFailure(); ++i) {
    ASSERT_EQ(SSL_key_update(peer->get(), SSL_KEY_UPDATE_REQUESTED), 1);
    exchange(home, *peer, "after " + std::to_string(i));
    ASSERT_EQ(home.stats.receive_rekeyed.read(), i);
    ASSERT_EQ(home.stats.transmit_rekeyed.read(), i);
  }
}

TEST_F(KeyUpdateKernel, EveryCipherAndBothRoles) {
  REQUIRE_REKEY();
  for (const ktls::Aead aead : ktls::kAeads) {
    for (const Role role : {Role::kAccept, Role::kConnect}) {
      SCOPED_TRACE(ktls::aead_name(aead));
      Home home;
      const auto peer = join(home, role, aead);
      for (int i = 0; i < 5; ++i) {
        ASSERT_EQ(SSL_key_update(peer->get(), i % 2 != 0 ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED), 1);
        exchange(home, *peer, "theirs");
        ASSERT_EQ(home.renew(ipc::Renew::Which::kTransmit), KeyKeeper::Update::kBegun);
        exchange(home, *peer, "ours");
        ASSERT_EQ(home.renew(ipc::Renew::Which::kReceive), KeyKeeper::Update::kBegun);
        exchange(home, *peer, "both");
        exchange(home, *peer, "both, and the peer has answered");
      }
      EXPECT_EQ(home.stats.receive_rekeyed.read(), 10u);
      EXPECT_EQ(home.stats.transmit_rekeyed.read(), 12u);
    }
  }
}

TEST_F(KeyUpdateKernel, GoesOnWithASuccessorAtEveryStep) {
  REQUIRE_REKEY();
  Home home;
  home.restart_always = true;
  const auto peer = join(home, Role::kAccept, ktls::Aead::kAes256Gcm);
  for (int i = 0; i < 20 && !HasFailure(); ++i) {
    ASSERT_EQ(SSL_key_update(peer->get(), SSL_KEY_UPDATE_REQUESTED), 1);
    exchange(home, *peer, "after a death");
  }
}

TEST_F(KeyUpdateKernel, InPiecesAndBehindATicket) {
  REQUIRE_REKEY();
  Home home;
  const auto peer = join_by_hand(home);
  const std::string update("\x18\0\0\1\0", 5);
  for (std::size_t first = 1; first < update.size(); ++first) {
    SCOPED_TRACE(first);
    ASSERT_TRUE(peer->send(ktls::RecordType::kHandshake, update.substr(0, first)));
    ASSERT_TRUE(peer->send(ktls::RecordType::kHandshake, update.substr(first)));
    ASSERT_TRUE(peer->update_transmit_keys());
    // Only when the keeper has seen it: behind a record that does not begin with 24 the kernel does not wait.
    ASSERT_TRUE(home.receive().empty());
    ASSERT_TRUE(home.faults.empty());
    ASSERT_TRUE(peer->send(ktls::RecordType::kApplicationData, "under new keys"));
    ASSERT_EQ(home.receive(), "under new keys");
  }
  const std::string ticket = std::string("\4\0\0\x0e\0\0\0\x20\0\0\0\0\0\0\1t\0\0", 18);
  ASSERT_TRUE(peer->send(ktls::RecordType::kHandshake, ticket + update));
  ASSERT_TRUE(peer->update_transmit_keys());
  ASSERT_TRUE(home.receive().empty());
  ASSERT_TRUE(peer->send(ktls::RecordType::kApplicationData, "and again"));
  ASSERT_EQ(home.receive(), "and again");
  EXPECT_EQ(home.stats.receive_rekeyed.read(), 5u);
}

// Behind a KeyUpdate that does not begin its record the kernel does not wait: who reads on gets EBADMSG, and after the
// new keys are in, the record all the same.
TEST_F(KeyUpdateKernel, ARecordReadTooEarlyIsNotLost) {
  REQUIRE_REKEY();
  Home home;
  const auto peer = join_by_hand(home);
  ASSERT_TRUE(peer->send(ktls::RecordType::kApplicationData, "behind the tickets"));
  ASSERT_EQ(home.receive(), "behind the tickets");
  const std::string ticket = std::string("\4\0\0\x0e\0\0\0\x20\0\0\0\0\0\0\1t\0\0", 18);
  ASSERT_TRUE(peer->send(ktls::RecordType::kHandshake, ticket + std::string("\x18\0\0\1\0", 5)));
  ASSERT_TRUE(peer->update_transmit_keys());
  ASSERT_TRUE(peer->send(ktls::RecordType::kApplicationData, "one"));
  ASSERT_TRUE(peer->send(ktls::RecordType::kApplicationData, "two"));
  home.read_on = true;
  std::string received = home.receive();
  EXPECT_EQ(home.read_on_result, EBADMSG);
  if (received.size() < 6) received += home.receive();
  EXPECT_EQ(received, "onetwo");
}

TEST_F(KeyUpdateKernel, IsRefusedByAKernelWithoutRekey) {
  if (ktls_support().rekey) GTEST_SKIP() << "this kernel has rekey";
  Home home;
  const auto peer = join(home, Role::kAccept);
  exchange(home, *peer, "before");
  EXPECT_EQ(home.renew(ipc::Renew::Which::kTransmit), KeyKeeper::Update::kCannot);
  ASSERT_EQ(SSL_key_update(peer->get(), SSL_KEY_UPDATE_NOT_REQUESTED), 1);
  ASSERT_TRUE(peer->send("after"));
  EXPECT_EQ(home.receive(), "");
  ASSERT_EQ(home.faults.size(), 1u);
  EXPECT_EQ(home.faults[0], ipc::FaultReason::kNoRekey);
}

// The second connection of a trunk is resumed, with what came by way of the kernel.
TEST_F(KeyUpdateKernel, TicketsMakeTheNextHandshakeShort) {
  for (const ktls::Aead aead : ktls::kAeads) {
    SCOPED_TRACE(ktls::aead_name(aead));
    KTRUNK_REQUIRE_KTLS(ktls::Version::kTls13, aead);
    const TlsContext ours = trunk(aead);
    const Context theirs = server();
    Resumption memory;
    for (int round = 0; round < 3; ++round) {
      auto [near, far] = tcp_pair();
      Peer peer(theirs.get(), std::move(far), Role::kAccept);
      auto session = TlsSession::connect(ours, std::move(near), kName, std::move(memory)).value();
      ASSERT_EQ(shake(session, peer), TlsSession::Step::kDone) << session.failure().error.what;
      ASSERT_TRUE(peer.handshake());
      EXPECT_EQ(session.negotiated().resumed, round > 0);
      Home home;
      home.take(std::move(session));
      exchange(home, peer, "data behind the tickets");
      EXPECT_GE(home.stats.tickets.read(), 1u);
      EXPECT_TRUE(home.memory.valid());
      memory = std::move(home.memory);
      SSL_set_shutdown(peer.get(), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    }
  }
}

}  // namespace
}  // namespace ktrunk::test
