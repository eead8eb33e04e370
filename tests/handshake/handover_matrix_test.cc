// The handover matrix: every version, side, number of tickets, fresh or resumed, and cipher; and a handover in the
// worst moments. One source, two programs: with KTRUNK_MATRIX_KERNEL the kernel carries the records, else user space
// does.
#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include <string>
#include <tuple>

#include "handshake/tls_carrier.h"
#include "handshake/tls_session.h"
#include "handshake/tls_test_peer.h"
#include "handshake/tls_test_pki.h"
#include "support/ktls_available.h"

namespace ktrunk::test {
#ifdef KTRUNK_MATRIX_KERNEL
std::unique_ptr<Carrier> hand_over(handshake::TlsSession& session) { return hand_over_to_kernel(session); }
#define REQUIRE_CARRIER(...) KTRUNK_REQUIRE_KTLS(__VA_ARGS__)
#else
std::unique_ptr<Carrier> hand_over(handshake::TlsSession& session) { return hand_over_to_user_space(session); }
#define REQUIRE_CARRIER(...) \
  do {                       \
  } while (false)
#endif

namespace {

using handshake::Resumption;
using handshake::Role;
using handshake::TlsContext;
using handshake::TlsSession;
using Step = TlsSession::Step;

constexpr const char* kName = "sip.example.com";

Pki& pki() {
  static Pki made;
  return made;
}
const Pki::Files& identity() {
  static const Pki::Files made = pki().issue({});
  return made;
}

const char* cipher_list(ktls::Aead aead) {
  switch (aead) {
    case ktls::Aead::kAes128Gcm:
      return "ECDHE-ECDSA-AES128-GCM-SHA256";
    case ktls::Aead::kAes256Gcm:
      return "ECDHE-ECDSA-AES256-GCM-SHA384";
    case ktls::Aead::kChaCha20Poly1305:
      break;
  }
  return "ECDHE-ECDSA-CHACHA20-POLY1305";
}

struct Point {
  ktls::Version version = ktls::Version::kTls13;
  Role role = Role::kAccept;
  unsigned tickets = 2;
  ktls::Aead aead = ktls::Aead::kAes128Gcm;
};

// One configuration of ours and of the peer, for as many connections as a test wants.
class Scene {
 public:
  explicit Scene(const Point& point) : point_(point) {
    config::Tls tls;
    tls.ciphers = cipher_list(point.aead);
    tls.ciphersuites = suite_of(point.aead);
    tls.allow_tls12 = point.version == ktls::Version::kTls12;
    tls.allow_tls13 = !tls.allow_tls12;
    if (point.role == Role::kAccept) {
      auto listener = pki().listener(identity(), point.tickets);
      tls.certificate = listener.tls.certificate;
      tls.key = listener.tls.key;
      listener.tls = tls;
      ours_.emplace(TlsContext::for_listener(listener).value());
      theirs_ = client_context(pki().authority_file());
    } else {
      auto trunk = pki().trunk();
      tls.ca = trunk.tls.ca;
      trunk.tls = tls;
      ours_.emplace(TlsContext::for_trunk(trunk).value());
      theirs_ = server_context(identity().certificate, identity().key);
    }
  }

  [[nodiscard]] SSL_CTX* theirs() { return theirs_.get(); }

  [[nodiscard]] TlsSession ours(Fd socket, Resumption memory = {}) {
    return point_.role == Role::kAccept
               ? TlsSession::accept(*ours_, std::move(socket)).value()
               : TlsSession::connect(*ours_, std::move(socket), kName, std::move(memory)).value();
  }
  [[nodiscard]] Peer peer(Fd socket) {
    Peer made(theirs_.get(), std::move(socket), point_.role == Role::kAccept ? Role::kConnect : Role::kAccept);
    if (point_.role == Role::kConnect) SSL_set_num_tickets(made.get(), point_.tickets);
    return made;
  }

  // What a first connection leaves for a second one: the peer's memory, or ours.
  struct Memories {
    Memory peer;
    Resumption ours;
  };
  [[nodiscard]] Memories remember() {
    auto [near, far] = tcp_pair();
    TlsSession session = ours(std::move(near));
    Peer other = peer(std::move(far));
    if (point_.role == Role::kConnect) SSL_set_num_tickets(other.get(), 1);
    EXPECT_EQ(shake(session, other), Step::kDone) << session.failure().error.what;
    EXPECT_TRUE(other.handshake());
    Memories memories;
    if (point_.role == Role::kAccept) {
      // The tickets came before this.
      EXPECT_EQ(session.write(std::as_bytes(std::span("x", 1))).outcome, TlsSession::Io::kBytes);
      EXPECT_EQ(other.receive(), "x");
      memories.peer = other.memory();
      SSL_set_shutdown(other.get(), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    } else {
      EXPECT_TRUE(other.send("x"));
      std::array<std::byte, 16> buffer = {};
      TlsSession::IoResult result;
      do {
        result = session.read(buffer);
      } while (result.outcome == TlsSession::Io::kWantRead && wait_readable(session.fd()));
      EXPECT_EQ(result.outcome, TlsSession::Io::kBytes);
      memories.ours = session.resumption();
      EXPECT_EQ(session.shutdown().outcome, TlsSession::Io::kClosed);
    }
    return memories;
  }

 private:
  Point point_;
  std::optional<TlsContext> ours_;
  Context theirs_;
};

// The next record that is not a NewSessionTicket; tickets are counted.
std::optional<Record> receive_data(Carrier& carrier, unsigned& tickets) {
  for (;;) {
    auto record = carrier.receive();
    if (!record || record->type != ktls::RecordType::kHandshake) return record;
    EXPECT_EQ(ktls::handshake_type(std::as_bytes(std::span(record->payload))), ktls::HandshakeType::kNewSessionTicket);
    ++tickets;
  }
}

// Three records each way, then both close_notify; tickets: how many came to us as control records.
void exchange(Carrier& carrier, Peer& peer, unsigned& tickets) {
  for (const std::size_t size : {std::size_t{1}, std::size_t{600}, std::size_t{16384}}) {
    const std::string text(size, static_cast<char>('a' + size % 26));
    ASSERT_TRUE(peer.send(text));
    const auto record = receive_data(carrier, tickets);
    ASSERT_TRUE(record.has_value()) << size;
    EXPECT_EQ(record->type, ktls::RecordType::kApplicationData);
    EXPECT_TRUE(record->payload == text) << size;
    const std::string answer(size, static_cast<char>('A' + size % 26));
    ASSERT_TRUE(carrier.send(ktls::RecordType::kApplicationData, answer));
    ASSERT_TRUE(peer.receive() == answer) << size << " error " << peer.error();
  }
  peer.close_notify();
  const auto record = receive_data(carrier, tickets);
  ASSERT_TRUE(record.has_value());
  EXPECT_EQ(record->type, ktls::RecordType::kAlert);
  EXPECT_EQ(ktls::parse_alert(std::as_bytes(std::span(record->payload))).value(), ktls::kCloseNotify);
  ASSERT_TRUE(carrier.send(ktls::RecordType::kAlert, std::string("\x01\x00", 2)));
  EXPECT_EQ(peer.receive(), "");
  EXPECT_EQ(peer.error(), SSL_ERROR_ZERO_RETURN);
}

enum class Start { kFresh, kResumed };
using Parameter = std::tuple<ktls::Version, Role, unsigned, Start, ktls::Aead>;

class HandoverMatrix : public testing::TestWithParam<Parameter> {};

TEST_P(HandoverMatrix, RecordsOpenOnBothSides) {
  const auto [version, role, tickets, start, aead] = GetParam();
  REQUIRE_CARRIER(version, aead);
  Scene scene({version, role, tickets, aead});
  Scene::Memories memories;
  if (start == Start::kResumed) memories = scene.remember();

  auto [near, far] = tcp_pair();
  Peer peer = scene.peer(std::move(far));
  if (memories.peer) SSL_set_session(peer.get(), memories.peer.get());
  TlsSession session = scene.ours(std::move(near), std::move(memories.ours));
  ASSERT_EQ(shake(session, peer), Step::kDone) << session.failure().error.what;
  ASSERT_TRUE(peer.handshake());
  EXPECT_EQ(session.negotiated().version, version);
  // Without tickets we remember nothing for a client.
  const bool resumed = start == Start::kResumed && (role == Role::kConnect || tickets > 0);
  EXPECT_EQ(session.negotiated().resumed, resumed);

  const auto carrier = hand_over(session);
  ASSERT_NE(carrier, nullptr);
  unsigned seen = 0;
  exchange(*carrier, peer, seen);
  if (version == ktls::Version::kTls13 && role == Role::kConnect) {
    EXPECT_EQ(seen, resumed ? std::min(tickets, 1u) : tickets);
  } else {
    EXPECT_EQ(seen, 0u);
  }
}

const char* name_of(ktls::Version version) { return version == ktls::Version::kTls12 ? "Tls12" : "Tls13"; }
const char* name_of(Role role) { return role == Role::kAccept ? "accept" : "connect"; }
std::string name_of(ktls::Aead aead) {
  std::string name(ktls::aead_name(aead));
  std::erase(name, '-');
  return name;
}

std::string point_name(const testing::TestParamInfo<Parameter>& info) {
  const auto [version, role, tickets, start, aead] = info.param;
  return fmt::format("{}_{}_{}tickets_{}_{}", name_of(version), name_of(role), tickets,
                     start == Start::kFresh ? "fresh" : "resumed", name_of(aead));
}

INSTANTIATE_TEST_SUITE_P(All, HandoverMatrix,
                         testing::Combine(testing::ValuesIn(ktls::kVersions),
                                          testing::Values(Role::kAccept, Role::kConnect), testing::Values(0u, 1u, 2u),
                                          testing::Values(Start::kFresh, Start::kResumed),
                                          testing::ValuesIn(ktls::kAeads)),
                         point_name);

class HandoverMoment : public testing::TestWithParam<std::tuple<ktls::Version, Role>> {
 protected:
  void SetUp() override { REQUIRE_CARRIER(std::get<ktls::Version>(GetParam()), ktls::Aead::kAes128Gcm); }
  [[nodiscard]] static Point point() {
    const auto [version, role] = GetParam();
    return {version, role, 2, ktls::Aead::kAes128Gcm};
  }
};

// The peer's last flight and its first request lie in the socket together when we read.
TEST_P(HandoverMoment, FinishedAndFirstRequestInOneSegment) {
  Scene scene(point());
  Line line;
  TlsSession session = scene.ours(line.take_near());
  Peer peer = scene.peer(line.take_far());
  const std::string request = "OPTIONS sip:a SIP/2.0\r\n\r\n";
  bool sent = false;
  Step step = Step::kWantRead;
  for (int i = 0; i < 50 && !(sent && step == Step::kDone); ++i) {
    if (!sent && peer.handshake()) sent = peer.send(request);
    line.wait();  // whatever the peer has sent is there now, and reaches us in one piece
    line.to_near(65536);
    step = session.step();
    ASSERT_NE(step, Step::kFailed) << session.failure().error.what;
    if (line.to_far(65536) != 0) wait_readable(peer.fd());
  }
  ASSERT_EQ(step, Step::kDone);
  ASSERT_TRUE(sent);
  const auto carrier = hand_over(session);
  ASSERT_NE(carrier, nullptr);
  unsigned tickets = 0;
  const auto record = receive_data(*carrier, tickets);
  ASSERT_TRUE(record.has_value());
  EXPECT_EQ(record->payload, request);
}

// The handover happens with a part of the peer's first record in the socket; every length of the part that matters.
TEST_P(HandoverMoment, HalfARecord) {
  for (const std::size_t part : {1u, 4u, 5u, 6u, 12u, 13u, 14u, 300u, 1000u}) {
    Scene scene({std::get<0>(GetParam()), std::get<1>(GetParam()), 0, ktls::Aead::kAes128Gcm});
    Line line;
    TlsSession session = scene.ours(line.take_near());
    Peer peer = scene.peer(line.take_far());
    for (int i = 0; i < 100; ++i) {
      const bool peer_done = peer.handshake();
      line.to_near(65536);
      const Step step = session.step();
      line.to_far(65536);
      if (peer_done && step == Step::kDone) break;
    }
    ASSERT_EQ(session.step(), Step::kDone);
    const std::string text(1000, 'r');
    ASSERT_TRUE(peer.send(text));
    std::size_t moved = 0;
    while (moved < part) moved += line.to_near(part - moved);
    ASSERT_TRUE(wait_readable(session.fd()));
    const auto carrier = hand_over(session);
    ASSERT_NE(carrier, nullptr);
    while (line.to_near(65536) != 0) {
    }
    unsigned tickets = 0;
    const auto record = receive_data(*carrier, tickets);
    ASSERT_TRUE(record.has_value()) << part;
    EXPECT_EQ(record->payload, text);
  }
}

// One octet at a time, and a step after each: nothing is read beyond the handshake.
TEST_P(HandoverMoment, ByteByByte) {
  Scene scene(point());
  Line line;
  TlsSession session = scene.ours(line.take_near());
  Peer peer = scene.peer(line.take_far());
  bool sent = false;
  const std::string request(100, 'q');
  Step step = Step::kWantRead;
  for (int i = 0; i < 200'000 && !(sent && step == Step::kDone); ++i) {
    if (!sent && peer.handshake()) sent = peer.send(request);
    line.to_near(1);
    step = session.step();
    ASSERT_NE(step, Step::kFailed) << session.failure().error.what;
    line.to_far(1);
  }
  ASSERT_EQ(step, Step::kDone);
  ASSERT_TRUE(sent);
  const auto carrier = hand_over(session);
  ASSERT_NE(carrier, nullptr);
  while (line.to_near(65536) != 0) {
  }
  unsigned tickets = 0;
  const auto record = receive_data(*carrier, tickets);
  ASSERT_TRUE(record.has_value());
  EXPECT_EQ(record->payload, request);
}

INSTANTIATE_TEST_SUITE_P(All, HandoverMoment,
                         testing::Combine(testing::ValuesIn(ktls::kVersions),
                                          testing::Values(Role::kAccept, Role::kConnect)),
                         [](const auto& point) {
                           return fmt::format("{}_{}", name_of(std::get<0>(point.param)),
                                              name_of(std::get<1>(point.param)));
                         });

class HandoverKeyUpdate : public testing::TestWithParam<ktls::Aead> {};

// The peer's KeyUpdate arrives as a control record; what follows is under application_traffic_secret_1, then _2.
TEST_P(HandoverKeyUpdate, IsFollowed) {
  REQUIRE_CARRIER(ktls::Version::kTls13, GetParam());
#ifdef KTRUNK_MATRIX_KERNEL
  if (!ktls_support().rekey) GTEST_SKIP() << "this kernel has no rekey (Linux 6.14)";
#endif
  Scene scene({ktls::Version::kTls13, Role::kAccept, 2, GetParam()});
  auto [near, far] = tcp_pair();
  Peer peer = scene.peer(std::move(far));
  TlsSession session = scene.ours(std::move(near));
  ASSERT_EQ(shake(session, peer), Step::kDone) << session.failure().error.what;
  const auto carrier = hand_over(session);
  ASSERT_NE(carrier, nullptr);
  for (const std::string text : {"first", "second"}) {
    ASSERT_EQ(SSL_key_update(peer.get(), SSL_KEY_UPDATE_NOT_REQUESTED), 1);
    ASSERT_TRUE(peer.send(text));
    auto record = carrier->receive();
    ASSERT_TRUE(record.has_value());
    ASSERT_EQ(record->type, ktls::RecordType::kHandshake);
    ASSERT_EQ(ktls::handshake_type(std::as_bytes(std::span(record->payload))), ktls::HandshakeType::kKeyUpdate);
    ASSERT_TRUE(carrier->update_receive_keys());
    record = carrier->receive();
    ASSERT_TRUE(record.has_value());
    EXPECT_EQ(record->payload, text);
  }
}

INSTANTIATE_TEST_SUITE_P(All, HandoverKeyUpdate, testing::ValuesIn(ktls::kAeads),
                         [](const auto& point) { return name_of(point.param); });

}  // namespace
}  // namespace ktrunk::test
