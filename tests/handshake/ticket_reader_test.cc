// Tickets that come after the handover: read by a session that has left its socket, and good for the next handshake.
#include "handshake/ticket_reader.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include <array>
#include <chrono>
#include <string>
#include <utility>

#include "handshake/keeper_bench.h"
#include "handshake/key_keeper.h"
#include "handshake/tls_carrier.h"
#include "handshake/tls_test_peer.h"
#include "handshake/tls_test_pki.h"

namespace ktrunk::test {
namespace {

using handshake::KernelSecrets;
using handshake::KeyKeeper;
using handshake::Resumption;
using handshake::Role;
using handshake::TicketReader;
using handshake::TlsContext;
using handshake::TlsSession;

constexpr const char* kName = "sip.example.com";

enum class Client { kWithoutCertificate, kWithCertificate };

// Our trunk and an OpenSSL server.
class TicketScene {
 public:
  explicit TicketScene(const char* suite, Client client = Client::kWithoutCertificate) {
    const Pki::Files files = pki_.issue({});
    config::Trunk trunk = pki_.trunk();
    trunk.tls.ciphersuites = suite;
    if (client == Client::kWithCertificate) {
      trunk.tls.certificate = files.certificate;
      trunk.tls.key = files.key;
    }
    ours_.emplace(TlsContext::for_trunk(trunk).value());
    theirs_ = server_context(files.certificate, files.key);
    SSL_CTX_set_session_id_context(theirs_.get(), reinterpret_cast<const unsigned char*>("test"), 4);
    if (client == Client::kWithCertificate) {
      SSL_CTX_load_verify_file(theirs_.get(), pki_.authority_file().c_str());
      SSL_CTX_set_verify(theirs_.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    }
  }

  // A connection that has been handed over to user space, and the reader of its tickets.
  struct Connection {
    handshake::Negotiated negotiated;
    std::unique_ptr<Carrier> carrier;
    std::optional<TicketReader> reader;
    std::unique_ptr<Peer> peer;
  };
  Connection connect(Resumption memory, unsigned tickets) {
    auto [near, far] = tcp_pair();
    Connection made;
    made.peer = std::make_unique<Peer>(theirs_.get(), std::move(far), Role::kAccept);
    SSL_set_num_tickets(made.peer->get(), tickets);
    Fd socket(::fcntl(near.get(), F_DUPFD_CLOEXEC, 3));
    TlsSession session = TlsSession::connect(*ours_, std::move(near), kName, std::move(memory)).value();
    EXPECT_EQ(shake(session, *made.peer), TlsSession::Step::kDone) << session.failure().error.what;
    EXPECT_TRUE(made.peer->handshake());
    made.negotiated = session.negotiated();
    auto keys = session.export_keys().value();
    const KernelSecrets secrets{keys.version(), keys.aead(), keys.hash,
                                keys.self,      {},          ktls::TrafficSecret(keys.receive_secret.bytes())};
    made.carrier = carry_in_user_space(std::move(socket), std::move(keys));
    made.reader = TicketReader::create(std::move(session), secrets);
    return made;
  }

 private:
  Pki pki_;
  std::optional<TlsContext> ours_;
  Context theirs_;
};

Result<Resumption> feed(TicketReader& reader, const std::string& message) {
  return reader.feed(std::as_bytes(std::span(message)));
}

using Parameter = std::tuple<const char*, Client>;
class TicketReaderTest : public testing::TestWithParam<Parameter> {};

TEST_P(TicketReaderTest, ResumesAgainAndAgain) {
  TicketScene scene(std::get<0>(GetParam()), std::get<1>(GetParam()));
  Resumption memory;
  for (int round = 0; round < 4; ++round) {
    auto connection = scene.connect(std::move(memory), 2);
    EXPECT_EQ(connection.negotiated.resumed, round > 0) << round;
    ASSERT_TRUE(connection.reader.has_value());
    for (int i = 0; i < (round == 0 ? 2 : 1); ++i) {  // OpenSSL sends one ticket on a resumed session
      const auto record = connection.carrier->receive();
      ASSERT_TRUE(record && record->type == ktls::RecordType::kHandshake);
      auto learnt = feed(*connection.reader, record->payload);
      ASSERT_TRUE(learnt.has_value()) << learnt.error().what;
      EXPECT_TRUE(learnt->valid());
      memory = std::move(*learnt);
    }
    ASSERT_TRUE(connection.peer->send("data goes on"));
    const auto record = connection.carrier->receive();
    ASSERT_TRUE(record.has_value());
    EXPECT_EQ(record->payload, "data goes on");
    ASSERT_TRUE(connection.carrier->send(ktls::RecordType::kApplicationData, "both ways"));
    EXPECT_EQ(connection.peer->receive(), "both ways");
    SSL_set_shutdown(connection.peer->get(), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
  }
}
INSTANTIATE_TEST_SUITE_P(All, TicketReaderTest,
                         testing::Combine(testing::Values("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384",
                                                          "TLS_CHACHA20_POLY1305_SHA256"),
                                          testing::Values(Client::kWithoutCertificate, Client::kWithCertificate)),
                         [](const auto& each) {
                           return std::string(std::get<0>(each.param)) +
                                  (std::get<1>(each.param) == Client::kWithCertificate ? "_mtls" : "");
                         });

TEST(TicketReader, EndsAfterFourTicketsAndAfterABadOne) {
  TicketScene scene("TLS_AES_128_GCM_SHA256");
  auto connection = scene.connect({}, 5);
  ASSERT_TRUE(connection.reader.has_value());
  std::string payload;
  for (unsigned i = 0; i < TicketReader::kTickets; ++i) {
    EXPECT_FALSE(connection.reader->done());
    const auto record = connection.carrier->receive();
    ASSERT_TRUE(record.has_value());
    payload = record->payload;
    ASSERT_TRUE(feed(*connection.reader, payload).has_value());
  }
  EXPECT_TRUE(connection.reader->done());
  EXPECT_FALSE(feed(*connection.reader, payload).has_value());

  for (const std::string& bad : {std::string("\4\0\0\1x", 5), std::string("\x18\0\0\1\7", 5), std::string("\0", 1)}) {
    auto other = scene.connect({}, 0);
    ASSERT_TRUE(other.reader.has_value());
    const auto learnt = feed(*other.reader, bad);
    EXPECT_FALSE(learnt.has_value() && learnt->valid() && !other.reader->done() && bad.size() > 1);
  }
}

TEST(TicketReader, TakesATicketOfManyRecords) {
  TicketScene scene("TLS_AES_256_GCM_SHA384");
  auto connection = scene.connect({}, 0);
  ASSERT_TRUE(connection.reader.has_value());
  const auto learnt = feed(*connection.reader, ticket(60000));
  ASSERT_TRUE(learnt.has_value()) << learnt.error().what;
  EXPECT_TRUE(learnt->valid());
}

// By way of the keeper: what it has learnt comes out with whose it is, and the reader goes when its time is up.
TEST(TicketReader, IsKeptByTheKeeperForAWhile) {
  TicketScene scene("TLS_AES_128_GCM_SHA256");
  auto connection = scene.connect({}, 2);
  ASSERT_TRUE(connection.reader.has_value());
  auto vault = ipc::Vault::map(ipc::Vault::create(8).value(), 8).value();
  ktls::Support support;
  FakeKernel kernel;
  ipc::HandshakeStats stats;
  auto loop = EventLoop::create().value();
  std::vector<Resumption> learnt;
  int resumes = 0;
  KeyKeeper keeper(vault, {0}, support, kernel, stats, *loop,
                   {.send_control = [](const auto&) {},
                    .resume = [&](const auto&) { ++resumes; },
                    .fault = [](const auto&) { ADD_FAILURE(); },
                    .learnt =
                        [&](TrunkId trunk, const std::string& host, Resumption memory) {
                          EXPECT_EQ(trunk, TrunkId{4});
                          EXPECT_EQ(host, "the.host");
                          learnt.push_back(std::move(memory));
                        }},
                   {.tickets_for = std::chrono::milliseconds(50)});
  keeper.admitted(kConnection, {.secrets = {.self = ktls::Endpoint::kClient},
                                .tickets = std::move(connection.reader),
                                .trunk = {4},
                                .host = "the.host"});
  EXPECT_EQ(keeper.ticket_readers(), 1u);
  const auto tell = [&](const std::string& octets, ipc::HandshakeOctets::Place place) {
    ipc::PostHandshake message{};
    message.record.connection = kConnection;
    message.record.place = place;
    message.record.bytes = static_cast<std::uint16_t>(octets.size());
    std::ranges::copy(std::as_bytes(std::span(octets)), message.record.octets.begin());
    keeper.post_handshake(message, Fd());
  };
  const auto record = connection.carrier->receive();
  ASSERT_TRUE(record.has_value());
  tell(record->payload.substr(0, 100), ipc::HandshakeOctets::Place::kMore);
  tell(record->payload.substr(100), ipc::HandshakeOctets::Place::kEndOfRecord);
  EXPECT_EQ(resumes, 1);
  EXPECT_EQ(learnt.size(), 1u);
  EXPECT_EQ(stats.tickets.read(), 1u);
  for (int i = 0; i < 100 && keeper.ticket_readers() != 0; ++i) EXPECT_TRUE(loop->turn(std::chrono::milliseconds(20)));
  EXPECT_EQ(keeper.ticket_readers(), 0u);
  const auto late = connection.carrier->receive();
  ASSERT_TRUE(late.has_value());
  tell(late->payload, ipc::HandshakeOctets::Place::kEndOfRecord);
  EXPECT_EQ(resumes, 2);
  EXPECT_EQ(learnt.size(), 1u);
}

TEST(TicketReader, IsForClientsUnderTls13) {
  Pki pki;
  const Pki::Files files = pki.issue({});
  const auto context = TlsContext::for_listener(pki.listener(files)).value();
  const Context theirs = client_context(pki.authority_file());
  auto [near, far] = tcp_pair();
  Peer peer(theirs.get(), std::move(far), Role::kConnect);
  TlsSession session = TlsSession::accept(context, std::move(near)).value();
  ASSERT_EQ(shake(session, peer), TlsSession::Step::kDone);
  auto keys = session.export_keys().value();
  EXPECT_FALSE(TicketReader::create(std::move(session), std::move(keys).secrets()).has_value());
}

}  // namespace
}  // namespace ktrunk::test
