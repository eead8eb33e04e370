// Handshakes that fail, each with its reason and remedy; what a finished one tells; and sessions that stay in OpenSSL.
#include "handshake/tls_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

#include "handshake/tls_test_peer.h"
#include "handshake/tls_test_pki.h"
#include "ktls/fake_kernel.h"

namespace ktrunk::handshake {
namespace {

using ktls::AlertDescription;
using test::FakeKernel;
using test::Peer;
using test::tcp_pair;
using testing::AllOf;
using testing::HasSubstr;
using Step = TlsSession::Step;
using Io = TlsSession::Io;

constexpr const char* kName = "sip.example.com";

test::Pki& pki() {
  static test::Pki made;
  return made;
}
test::Pki& strangers() {
  static test::Pki made("Unknown CA");
  return made;
}
const test::Pki::Files& files() {
  static const auto made = pki().issue({});
  return made;
}
TlsContext listener() { return TlsContext::for_listener(pki().listener(files())).value(); }
TlsContext trunk() { return TlsContext::for_trunk(pki().trunk()).value(); }
TlsContext verifying(config::ClientVerification verification) {
  auto wanted = pki().listener(files());
  wanted.tls.ca = pki().authority_file();
  wanted.verify_client = verification;
  return TlsContext::for_listener(wanted).value();
}

struct Connection {
  TlsSession ours;
  Peer peer;
};
Connection accepted(const TlsContext& context, SSL_CTX* client) {
  auto [near, far] = tcp_pair();
  return {TlsSession::accept(context, std::move(near)).value(), Peer(client, std::move(far), Role::kConnect)};
}
Connection connected(const TlsContext& context, SSL_CTX* server, std::string_view host = kName) {
  auto [near, far] = tcp_pair();
  return {TlsSession::connect(context, std::move(near), host).value(), Peer(server, std::move(far), Role::kAccept)};
}
// The failure's line; empty when the handshake succeeded.
std::string failure_of(Connection& connection) {
  return shake(connection.ours, connection.peer) == Step::kFailed ? connection.ours.failure().error.what : "";
}
// What our accepting end says when a peer sends these bytes and closes.
HandshakeFailure failure_after(std::string_view bytes) {
  auto [near, far] = tcp_pair();
  auto session = TlsSession::accept(listener(), std::move(near)).value();
  EXPECT_EQ(::send(far.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  ::shutdown(far.get(), SHUT_WR);
  for (int i = 0; i < 50; ++i) {
    if (session.step() == Step::kFailed) return session.failure();
    test::wait_readable(session.fd());
  }
  ADD_FAILURE() << "no end";
  return {};
}

TEST(TlsSession, AServerTellsWhatWasAgreedOn) {
  const auto client = test::client_context(pki().authority_file());
  const TlsContext context = listener();
  auto connection = accepted(context, client.get());
  EXPECT_EQ(connection.ours.step(), Step::kWantRead);
  ASSERT_EQ(shake(connection.ours, connection.peer), Step::kDone);
  EXPECT_EQ(connection.ours.step(), Step::kDone);
  const Negotiated& agreed = connection.ours.negotiated();
  EXPECT_EQ(agreed.version, ktls::Version::kTls13);
  EXPECT_EQ(agreed.cipher, "TLS_AES_128_GCM_SHA256");
  EXPECT_FALSE(agreed.resumed);
  EXPECT_FALSE(agreed.peer.has_value());
  EXPECT_TRUE(connection.ours.kernel_suite().has_value());
}

TEST(TlsSession, AClientTellsWhomItReached) {
  const auto server = test::server_context(files().certificate, files().key);
  const TlsContext context = trunk();
  auto connection = connected(context, server.get());
  ASSERT_EQ(failure_of(connection), "");
  ASSERT_TRUE(connection.ours.negotiated().peer.has_value());
  EXPECT_TRUE(connection.ours.negotiated().peer->matches(kName));
  while (!connection.peer.handshake() && test::wait_readable(connection.peer.fd())) {
  }
  EXPECT_STREQ(SSL_get_servername(connection.peer.get(), TLSEXT_NAMETYPE_host_name), kName);
}

TEST(TlsSession, AnAddressIsVerifiedAndNotSentAsServerName) {
  const auto by_address = pki().issue({.names = "IP:192.0.2.7"});
  const auto server = test::server_context(by_address.certificate, by_address.key);
  const TlsContext context = trunk();
  auto good = connected(context, server.get(), "192.0.2.7");
  EXPECT_EQ(failure_of(good), "");
  EXPECT_EQ(SSL_get_servername(good.peer.get(), TLSEXT_NAMETYPE_host_name), nullptr);
  auto bad = connected(context, server.get(), "192.0.2.8");
  EXPECT_THAT(failure_of(bad), HasSubstr("192.0.2.7"));
}

TEST(TlsSession, TheTrunksVerifyNameComesBeforeTheTarget) {
  auto wanted = pki().trunk();
  wanted.verify_name = kName;
  const TlsContext context = TlsContext::for_trunk(wanted).value();
  const auto server = test::server_context(files().certificate, files().key);
  auto connection = connected(context, server.get(), "192.0.2.1");
  EXPECT_EQ(failure_of(connection), "");
}

TEST(TlsSession, NoNameNoSession) {
  auto [near, far] = tcp_pair();
  EXPECT_FALSE(TlsSession::connect(trunk(), std::move(near), "").has_value());
}

TEST(TlsFailure, NameMismatch) {
  const auto server = test::server_context(files().certificate, files().key);
  const TlsContext context = trunk();
  auto connection = connected(context, server.get(), "other.example.com");
  EXPECT_THAT(failure_of(connection),
              AllOf(HasSubstr("trunk 'carrier'"), HasSubstr("for sip.example.com, not for 'other"),
                    HasSubstr("trunk.verify_name"), HasSubstr("sent alert bad_certificate")));
  EXPECT_EQ(connection.ours.failure().sent->description, AlertDescription::kBadCertificate);
  EXPECT_EQ(connection.ours.step(), Step::kFailed);
  EXPECT_FALSE(connection.ours.export_keys().has_value());
}

TEST(TlsFailure, UnknownCa) {
  const auto foreign = strangers().issue({});
  const auto server = test::server_context(foreign.certificate, foreign.key);
  const TlsContext context = trunk();
  auto connection = connected(context, server.get());
  EXPECT_THAT(failure_of(connection), AllOf(HasSubstr("unknown CA"), HasSubstr("Unknown CA"), HasSubstr("trunk.ca"),
                                            HasSubstr("unknown_ca (48)")));
}

TEST(TlsFailure, ThePeerDoesNotKnowOurCa) {
  const auto client = test::client_context(strangers().authority_file());
  const TlsContext context = listener();
  auto connection = accepted(context, client.get());
  EXPECT_THAT(
      failure_of(connection),
      AllOf(HasSubstr("listener 'edge'"), HasSubstr("the peer sent alert unknown_ca (48)"), HasSubstr("whole chain")));
  EXPECT_EQ(connection.ours.failure().received->description, AlertDescription::kUnknownCa);
}

TEST(TlsFailure, ExpiredPeerCertificate) {
  const auto old = pki().issue({.valid_from_s = -7200, .valid_to_s = -3600});
  const auto server = test::server_context(old.certificate, old.key);
  const TlsContext context = trunk();
  auto connection = connected(context, server.get());
  EXPECT_THAT(failure_of(connection), AllOf(HasSubstr("expired"), HasSubstr("clock")));
}

TEST(TlsFailure, NoSharedCipher) {
  const auto client = test::client_context(pki().authority_file());
  SSL_CTX_set_max_proto_version(client.get(), TLS1_2_VERSION);
  SSL_CTX_set_cipher_list(client.get(), "ECDHE-ECDSA-AES128-SHA256");
  const TlsContext context = listener();
  auto connection = accepted(context, client.get());
  EXPECT_THAT(failure_of(connection), AllOf(HasSubstr("no shared cipher"), HasSubstr("'listen.ciphers'")));
}

TEST(TlsFailure, NoCommonVersion) {
  auto wanted = pki().listener(files());
  wanted.tls.allow_tls12 = false;
  const TlsContext context = TlsContext::for_listener(wanted).value();
  const auto client = test::client_context(pki().authority_file());
  SSL_CTX_set_max_proto_version(client.get(), TLS1_2_VERSION);
  auto connection = accepted(context, client.get());
  EXPECT_THAT(failure_of(connection), AllOf(HasSubstr("no TLS version in common"), HasSubstr("protocol_version")));

  auto strict = pki().trunk();
  strict.tls.allow_tls12 = false;
  const TlsContext strict_context = TlsContext::for_trunk(strict).value();
  const auto server = test::server_context(files().certificate, files().key);
  SSL_CTX_set_max_proto_version(server.get(), TLS1_2_VERSION);
  auto other = connected(strict_context, server.get());
  EXPECT_THAT(failure_of(other), HasSubstr("no TLS version in common"));
}

TEST(TlsFailure, ClientCertificateMissing) {
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    const auto client = test::client_context(pki().authority_file());
    SSL_CTX_set_max_proto_version(client.get(), version);
    const TlsContext context = verifying(config::ClientVerification::kRequire);
    auto connection = accepted(context, client.get());
    EXPECT_THAT(failure_of(connection), AllOf(HasSubstr("no client certificate"), HasSubstr("verify_client")));
  }
}

TEST(TlsSession, OptionalClientCertificate) {
  const TlsContext context = verifying(config::ClientVerification::kOptional);
  const auto without = test::client_context(pki().authority_file());
  auto anonymous = accepted(context, without.get());
  EXPECT_EQ(failure_of(anonymous), "");
  EXPECT_FALSE(anonymous.ours.negotiated().peer.has_value());

  const auto own = pki().issue({.names = "DNS:client.example.com"});
  const auto with = test::client_context(pki().authority_file());
  SSL_CTX_use_certificate_chain_file(with.get(), own.certificate.c_str());
  SSL_CTX_use_PrivateKey_file(with.get(), own.key.c_str(), SSL_FILETYPE_PEM);
  auto known = accepted(context, with.get());
  EXPECT_EQ(failure_of(known), "");
  ASSERT_TRUE(known.ours.negotiated().peer.has_value());
  const std::vector<std::string> names = {"a.example.com", "client.example.com"};
  EXPECT_THAT(known.ours.negotiated().peer->matching(names), testing::ElementsAre(1));

  const auto foreign = strangers().issue({});
  const auto stranger = test::client_context(pki().authority_file());
  SSL_CTX_use_certificate_chain_file(stranger.get(), foreign.certificate.c_str());
  SSL_CTX_use_PrivateKey_file(stranger.get(), foreign.key.c_str(), SSL_FILETYPE_PEM);
  auto refused = accepted(context, stranger.get());
  EXPECT_THAT(failure_of(refused), AllOf(HasSubstr("unknown CA"), HasSubstr("listen.ca")));
}

TEST(TlsFailure, CertificateForAnotherUse) {
  const auto web = pki().issue({.names = "DNS:client.example.com", .usage = "serverAuth"});
  const auto client = test::client_context(pki().authority_file());
  SSL_CTX_use_certificate_chain_file(client.get(), web.certificate.c_str());
  SSL_CTX_use_PrivateKey_file(client.get(), web.key.c_str(), SSL_FILETYPE_PEM);
  const TlsContext context = verifying(config::ClientVerification::kRequire);
  auto connection = accepted(context, client.get());
  EXPECT_THAT(failure_of(connection), AllOf(HasSubstr("not for a TLS client"), HasSubstr("extendedKeyUsage")));
}

TEST(TlsFailure, PeersThatSpeakNoTls) {
  EXPECT_THAT(failure_after("OPTIONS sip:a SIP/2.0\r\nVia: x\r\n\r\n").error.what,
              AllOf(HasSubstr("plain text"), HasSubstr("'OPTIO'"), HasSubstr("transport=tls")));
  EXPECT_THAT(failure_after("\r\n\r\n\r\n").error.what, HasSubstr("plain text"));
  EXPECT_THAT(failure_after("GET / HTTP/1.1\r\n\r\n").error.what, HasSubstr("HTTP"));
  EXPECT_THAT(failure_after("POST /x HTTP/1.1\r\n\r\n").error.what, HasSubstr("HTTP"));
  EXPECT_THAT(failure_after("CONNECT a:1 HTTP/1.1\r\n\r\n").error.what, HasSubstr("HTTP"));
  EXPECT_THAT(failure_after("").error.what, HasSubstr("without a word"));
  EXPECT_THAT(failure_after("\x16\x03\x01").error.what, HasSubstr("in the middle of the handshake"));
  EXPECT_NE(failure_after(std::string(300, '\xff')).error.what, "");
  EXPECT_NE(failure_after(std::string_view("\x16\x03\x01\x00\x00\x16\x03\x01\x00\x00", 10)).error.what, "");
}

TEST(TlsFailure, APlainTextServer) {
  auto [near, far] = tcp_pair();
  auto session = TlsSession::connect(trunk(), std::move(near), kName).value();
  EXPECT_EQ(session.step(), Step::kWantRead);
  constexpr std::string_view kAnswer = "SIP/2.0 400 Bad Request\r\n\r\n";
  ASSERT_EQ(::send(far.get(), kAnswer.data(), kAnswer.size(), MSG_NOSIGNAL), static_cast<ssize_t>(kAnswer.size()));
  ASSERT_TRUE(test::wait_readable(session.fd()));
  ASSERT_EQ(session.step(), Step::kFailed);
  EXPECT_THAT(session.failure().error.what, AllOf(HasSubstr("plain text"), HasSubstr("'SIP/2'"), HasSubstr("5061")));
}

// A client's first flight, cut everywhere, and then the end of the stream; and with every octet bent.
TEST(TlsFailure, EveryCutAndEveryBentOctet) {
  const auto client = test::client_context(pki().authority_file());
  auto [near, far] = tcp_pair();
  Peer peer(client.get(), std::move(near), Role::kConnect);
  EXPECT_FALSE(peer.handshake());
  ASSERT_TRUE(test::wait_readable(far.get()));
  std::array<char, 4096> hello = {};
  const ssize_t size = ::recv(far.get(), hello.data(), hello.size(), 0);
  ASSERT_GT(size, 100);
  const std::string_view whole(hello.data(), static_cast<std::size_t>(size));
  for (std::size_t cut = 0; cut <= whole.size(); ++cut) {
    const HandshakeFailure failure = failure_after(whole.substr(0, cut));
    EXPECT_THAT(failure.error.what, HasSubstr("the peer closed the connection")) << cut;
  }
  for (std::size_t place = 0; place < whole.size(); ++place) {
    std::string bent(whole);
    bent[place] = static_cast<char>(bent[place] ^ 0x55);
    EXPECT_NE(failure_after(bent).error.what, "") << place;
  }
}

TEST(TlsFailure, AResetIsNamed) {
  auto [near, far] = tcp_pair();
  auto session = TlsSession::accept(listener(), std::move(near)).value();
  EXPECT_EQ(session.step(), Step::kWantRead);
  const linger reset = {.l_onoff = 1, .l_linger = 0};
  ::setsockopt(far.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  far.reset();
  ASSERT_TRUE(test::wait_readable(session.fd()));
  ASSERT_EQ(session.step(), Step::kFailed);
  EXPECT_THAT(session.failure().error.what, HasSubstr("ECONNRESET"));
  EXPECT_EQ(session.failure().error.code, ECONNRESET);
}

// ---- sessions that stay in OpenSSL

class Relay : public testing::Test {
 protected:
  Relay() : client_(test::client_context(pki().authority_file())), context_(listener()) {
    connection_.emplace(accepted(context_, client_.get()));
    EXPECT_EQ(shake(connection_->ours, connection_->peer), Step::kDone);
  }
  TlsSession& ours() { return connection_->ours; }
  Peer& peer() { return connection_->peer; }
  TlsSession::IoResult read() {
    TlsSession::IoResult result;
    do {
      result = ours().read(buffer_);
    } while (result.outcome == Io::kWantRead && test::wait_readable(ours().fd()));
    return result;
  }
  static std::span<const std::byte> bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

  test::Context client_;
  TlsContext context_;
  std::optional<Connection> connection_;
  std::array<std::byte, ktls::kMaxRecordBytes> buffer_ = {};
};

TEST_F(Relay, OneWriteIsOneRecordAndOneReadAtMostOne) {
  const std::string big(ktls::kMaxRecordBytes, 'b');
  EXPECT_EQ(ours().read(buffer_).outcome, Io::kWantRead);
  auto result = ours().write(bytes(big));
  EXPECT_EQ(result.outcome, Io::kBytes);
  EXPECT_EQ(result.bytes, big.size());
  EXPECT_EQ(peer().receive(), big);
  ASSERT_TRUE(peer().send("one"));
  ASSERT_TRUE(peer().send(big));
  result = read();
  EXPECT_EQ(result.outcome, Io::kBytes);
  EXPECT_EQ(result.bytes, 3u);
  EXPECT_EQ(read().bytes, big.size());
  EXPECT_EQ(ours().write(bytes(big + "b")).outcome, Io::kFailed);
}

TEST_F(Relay, ReadsInPartsAndSaysThatMoreIsPending) {
  ASSERT_TRUE(peer().send("abcdef"));
  ASSERT_TRUE(test::wait_readable(ours().fd()));
  std::array<std::byte, 2> two = {};
  EXPECT_EQ(ours().read(two).bytes, 2u);
  EXPECT_TRUE(ours().has_pending());
  EXPECT_EQ(read().bytes, 4u);
  EXPECT_FALSE(ours().has_pending());
}

TEST_F(Relay, CloseNotifyIsNotTruncation) {
  peer().close_notify();
  EXPECT_EQ(read().outcome, Io::kClosed);
  EXPECT_EQ(ours().shutdown().outcome, Io::kClosed);
}

TEST_F(Relay, AStreamThatEndsIsTruncation) {
  ASSERT_TRUE(peer().send("x"));
  ::shutdown(peer().fd(), SHUT_WR);
  EXPECT_EQ(read().bytes, 1u);
  EXPECT_EQ(read().outcome, Io::kEof);
}

TEST_F(Relay, OurShutdownReachesThePeer) {
  EXPECT_EQ(ours().shutdown().outcome, Io::kClosed);
  EXPECT_EQ(peer().receive(), "");
  EXPECT_EQ(peer().error(), SSL_ERROR_ZERO_RETURN);
}

TEST_F(Relay, WritingToAClosedSocketIsAnErrorNotASignal) {
  const linger reset = {.l_onoff = 1, .l_linger = 0};
  ::setsockopt(peer().fd(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  peer().hang_up();
  test::wait_readable(ours().fd());
  (void)ours().write(bytes("x"));
  EXPECT_EQ(ours().write(bytes("x")).outcome, Io::kFailed);
  EXPECT_NE(ours().io_error().what, "");
}

TEST_F(Relay, APeerThatReadsNothingMakesUsWait) {
  const std::string big(ktls::kMaxRecordBytes, 'b');
  int written = 0;
  TlsSession::IoResult result{Io::kBytes, 0};
  while (written < 10'000 && (result = ours().write(bytes(big))).outcome == Io::kBytes) ++written;
  ASSERT_EQ(result.outcome, Io::kWantWrite);
  std::size_t received = 0;
  bool repeated = false;
  const std::size_t total = big.size() * (static_cast<std::size_t>(written) + 1);
  for (int i = 0; i < 100'000 && received < total; ++i) {
    received += peer().receive().size();
    const std::string copy = big;  // the same octets elsewhere
    if (!repeated) repeated = ours().write(bytes(copy)).outcome == Io::kBytes;
  }
  EXPECT_TRUE(repeated);
  EXPECT_EQ(received, total);
}

TEST_F(Relay, KeysDoNotLeaveOnceDataHasBeenCarried) {
  EXPECT_EQ(ours().read(buffer_).outcome, Io::kWantRead);
  const auto keys = ours().export_keys();
  ASSERT_FALSE(keys.has_value());
  EXPECT_THAT(keys.error().what, HasSubstr("carried data"));
}

TEST_F(Relay, NothingIsCarriedOnceTheKeysHaveLeft) {
  ASSERT_TRUE(ours().export_keys().has_value());
  EXPECT_EQ(ours().read(buffer_).outcome, Io::kFailed);
  EXPECT_EQ(ours().write(bytes("x")).outcome, Io::kFailed);
  EXPECT_EQ(ours().shutdown().outcome, Io::kFailed);
  EXPECT_FALSE(ours().export_keys().has_value());
}

// ---- to a kernel that may refuse

TEST_F(Relay, GoesOnWhenTheKernelHasNoTls) {
  FakeKernel kernel;
  kernel.has_tls = false;
  const auto handover = ours().into_kernel(kernel);
  ASSERT_FALSE(handover.has_value());
  EXPECT_EQ(handover.error().socket, ktls::SocketState::kUntouched);
  EXPECT_EQ(ours().write(bytes("still here")).outcome, Io::kBytes);
  EXPECT_EQ(peer().receive(), "still here");
}

TEST_F(Relay, IsOverWhenTheKernelTookOneDirectionOnly) {
  FakeKernel kernel;
  kernel.no_receive_cipher = TLS_CIPHER_AES_GCM_128;
  const auto handover = ours().into_kernel(kernel);
  ASSERT_FALSE(handover.has_value());
  EXPECT_EQ(handover.error().socket, ktls::SocketState::kUnusable);
  EXPECT_EQ(ours().write(bytes("x")).outcome, Io::kFailed);
}

TEST_F(Relay, LeavesWithoutAWord) {
  FakeKernel kernel;
  auto handover = ours().into_kernel(kernel);
  ASSERT_TRUE(handover.has_value());
  EXPECT_EQ(ours().fd(), -1);
  EXPECT_FALSE(ours().resumption().valid());
  EXPECT_FALSE(ours().has_pending());
  EXPECT_EQ(handover->secrets.transmit.size(), 32u);
  // Nothing behind the tickets: the socket is open, and OpenSSL's end has said nothing.
  peer().read_tickets();
  std::array<char, 16> none = {};
  EXPECT_EQ(::recv(peer().fd(), none.data(), none.size(), MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, EAGAIN);
}

TEST(TlsExport, ASuiteThatIsNotTheKernelsStaysHere) {
  auto wanted = pki().listener(files());
  wanted.tls.allow_tls13 = false;
  wanted.tls.ciphers = "ECDHE-ECDSA-AES128-SHA256";
  const TlsContext context = TlsContext::for_listener(wanted).value();
  const auto client = test::client_context(pki().authority_file());
  auto connection = accepted(context, client.get());
  ASSERT_EQ(failure_of(connection), "");
  EXPECT_THAT(connection.ours.kernel_suite().error().what, HasSubstr("ECDHE-ECDSA-AES128-SHA256"));
  const auto keys = connection.ours.export_keys();
  ASSERT_FALSE(keys.has_value());
  EXPECT_THAT(keys.error().what, HasSubstr("ECDHE-ECDSA-AES128-SHA256"));
  EXPECT_EQ(connection.ours.write(std::as_bytes(std::span("x", 1))).outcome, Io::kBytes);
}

TEST(TlsExport, APeerThatWantsShortRecordsStaysHere) {
  const auto client = test::client_context(pki().authority_file());
  SSL_CTX_set_tlsext_max_fragment_length(client.get(), TLSEXT_max_fragment_length_512);
  const TlsContext context = listener();
  auto connection = accepted(context, client.get());
  ASSERT_EQ(failure_of(connection), "");
  const auto keys = connection.ours.export_keys();
  ASSERT_FALSE(keys.has_value());
  EXPECT_THAT(keys.error().what, HasSubstr("max_fragment_length"));
}

TEST(TlsExport, NotBeforeTheHandshakeIsFinished) {
  auto [near, far] = tcp_pair();
  auto session = TlsSession::accept(listener(), std::move(near)).value();
  EXPECT_EQ(session.step(), Step::kWantRead);
  const auto keys = session.export_keys();
  ASSERT_FALSE(keys.has_value());
  EXPECT_THAT(keys.error().what, HasSubstr("not finished"));
  FakeKernel kernel;
  EXPECT_FALSE(session.into_kernel(kernel).has_value());
  EXPECT_EQ(kernel.calls, 0);
}

// The numbers of the design: what each end has sent and received under the application keys at the handover.
TEST(TlsExport, RecordNumbers) {
  for (const unsigned tickets : {0u, 1u, 2u, 5u}) {
    const TlsContext context = TlsContext::for_listener(pki().listener(files(), tickets)).value();
    const auto client = test::client_context(pki().authority_file());
    auto modern = accepted(context, client.get());
    ASSERT_EQ(failure_of(modern), "");
    const auto keys13 = modern.ours.export_keys();
    ASSERT_TRUE(keys13.has_value()) << keys13.error().what;
    EXPECT_EQ(keys13->keys.transmit.next, ktls::RecordSeq{tickets});
    EXPECT_EQ(keys13->keys.receive.next, ktls::RecordSeq{0});

    SSL_CTX_set_max_proto_version(client.get(), TLS1_2_VERSION);
    auto older = accepted(context, client.get());
    ASSERT_EQ(failure_of(older), "");
    const auto keys12 = older.ours.export_keys();
    ASSERT_TRUE(keys12.has_value()) << keys12.error().what;
    EXPECT_EQ(keys12->keys.transmit.next, ktls::RecordSeq{1});
    EXPECT_EQ(keys12->keys.receive.next, ktls::RecordSeq{1});
    EXPECT_TRUE(keys12->transmit_secret.empty());
  }
}

// A session that verified one name is not good for another.
TEST(TlsResumption, TheNameIsComparedAgain) {
  const auto server = test::server_context(files().certificate, files().key);
  const TlsContext context = trunk();
  auto first = connected(context, server.get());
  ASSERT_EQ(failure_of(first), "");
  ASSERT_TRUE(first.peer.handshake());
  ASSERT_TRUE(first.peer.send("x"));
  std::array<std::byte, 16> buffer = {};
  while (first.ours.read(buffer).outcome == Io::kWantRead && test::wait_readable(first.ours.fd())) {
  }
  Resumption memory = first.ours.resumption();
  ASSERT_TRUE(memory.valid());
  auto [near, far] = tcp_pair();
  auto session = TlsSession::connect(context, std::move(near), "other.example.com", std::move(memory)).value();
  Peer peer(server.get(), std::move(far), Role::kAccept);
  ASSERT_EQ(shake(session, peer), Step::kFailed);
  EXPECT_THAT(session.failure().error.what, HasSubstr("not for 'other.example.com'"));
}

}  // namespace
}  // namespace ktrunk::handshake
