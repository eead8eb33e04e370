// The record tap: counts, boundaries and explicit nonces, however the bytes are cut.
#include "handshake/tls_bio.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <string>

#include "handshake/tls_test_peer.h"
#include "handshake/tls_test_pki.h"

namespace ktrunk::handshake {
namespace {

std::string record(unsigned char type, const std::string& body) {
  return std::string{static_cast<char>(type), 3, 3, static_cast<char>(body.size() >> 8),
                     static_cast<char>(body.size())} +
         body;
}
void feed(RecordTap& tap, std::string_view bytes) { tap.feed(std::as_bytes(std::span(bytes))); }

const std::string kHello = record(22, std::string(300, 'h'));
const std::string kChange = record(20, "\x01");
const std::string kFinished = record(22, std::string("\0\0\0\0\0\0\1\2", 8) + std::string(24, 'f'));
const std::string kData = record(23, std::string("\0\0\0\0\0\0\1\3", 8) + std::string(600, 'd'));

TEST(RecordTap, EveryCutCountsTheSame) {
  const std::string stream = kHello + kChange + kFinished + kData;
  for (std::size_t cut = 0; cut <= stream.size(); ++cut) {
    DirectionTrace trace;
    RecordTap tap(trace);
    feed(tap, stream.substr(0, cut));
    const bool boundary = cut == 0 || cut == kHello.size() || cut == kHello.size() + kChange.size() ||
                          cut == stream.size() - kData.size() || cut == stream.size();
    EXPECT_EQ(trace.at_record_boundary, boundary) << cut;
    feed(tap, stream.substr(cut));
    EXPECT_TRUE(trace.at_record_boundary);
    EXPECT_EQ(trace.passed, 2u);
    EXPECT_EQ(trace.last_explicit_nonce, 0x103u);
  }
}

TEST(RecordTap, OctetByOctet) {
  DirectionTrace trace;
  RecordTap tap(trace);
  for (const char c : kHello + kChange + kFinished + kData) feed(tap, std::string(1, c));
  EXPECT_EQ(trace.passed, 2u);
  EXPECT_EQ(trace.last_explicit_nonce, 0x103u);
  EXPECT_EQ(tap.beginning().size(), 5u);
  EXPECT_EQ(tap.beginning()[0], std::byte{22});
}

TEST(RecordTap, EmptyAndShortBodies) {
  DirectionTrace trace;
  RecordTap tap(trace);
  feed(tap, kChange + record(23, "") + record(23, "\x05") + record(23, ""));
  EXPECT_TRUE(trace.at_record_boundary);
  EXPECT_EQ(trace.passed, 3u);
  EXPECT_EQ(trace.last_explicit_nonce, 0u);
}

// In TLS 1.3 a change_cipher_spec is decoration: with the traffic secret in use it changes no count.
TEST(RecordTap, Tls13DoesNotCountByChangeCipherSpec) {
  DirectionTrace trace;
  RecordTap tap(trace);
  feed(tap, kHello + kChange + kFinished);
  trace.keys.secret.resize(32);
  trace.passed = 0;
  feed(tap, kData + kChange + kData);
  EXPECT_EQ(trace.passed, 2u);
}

TEST(TappedSocket, SaysEndAndErrors) {
  auto [near, far] = test::tcp_pair();
  SessionTrace trace;
  TappedSocket socket{near.get(), RecordTap(trace.transmit), RecordTap(trace.receive)};
  const auto bio = make_bio(socket);
  ASSERT_TRUE(bio);
  std::array<char, 8> buffer = {};
  std::size_t count = 0;
  EXPECT_EQ(BIO_read_ex(bio.get(), buffer.data(), buffer.size(), &count), 0);
  EXPECT_NE(BIO_should_retry(bio.get()), 0);
  ::shutdown(far.get(), SHUT_WR);
  ASSERT_TRUE(test::wait_readable(near.get()));
  EXPECT_EQ(BIO_read_ex(bio.get(), buffer.data(), buffer.size(), &count), 0);
  EXPECT_EQ(BIO_should_retry(bio.get()), 0);
  EXPECT_TRUE(socket.eof);
  ::shutdown(near.get(), SHUT_WR);
  EXPECT_EQ(BIO_write_ex(bio.get(), "x", 1, &count), 0);
  EXPECT_EQ(socket.error, EPIPE);
}

// TLS 1.2 with AES-GCM: OpenSSL begins its explicit nonces anywhere. The kernel must go on behind the last one that is
// on the wire, for a nonce used twice gives the key's secrets away.
TEST(ExplicitNonce, GoesOnBehindOpenSsls) {
  test::Pki pki;
  auto wanted = pki.listener(pki.issue({}));
  wanted.tls.allow_tls13 = false;
  const TlsContext context = TlsContext::for_listener(wanted).value();
  const auto client = test::client_context(pki.authority_file());
  auto [near, far] = test::tcp_pair();
  auto session = TlsSession::accept(context, std::move(near)).value();
  test::Peer peer(client.get(), std::move(far), Role::kConnect);
  ASSERT_EQ(shake(session, peer), TlsSession::Step::kDone);
  const auto keys = session.export_keys();
  ASSERT_TRUE(keys.has_value()) << keys.error().what;

  // Our last flight lies unread at the peer: NewSessionTicket, change_cipher_spec, Finished.
  ASSERT_TRUE(test::wait_readable(peer.fd()));
  std::array<unsigned char, 8192> flight = {};
  const ssize_t size = ::recv(peer.fd(), flight.data(), flight.size(), MSG_PEEK);
  ASSERT_GT(size, 5);
  std::uint64_t finished = 0;
  bool changed = false;
  for (std::size_t at = 0; at + 5 <= static_cast<std::size_t>(size);) {
    if (changed)
      for (std::size_t i = 0; i < 8; ++i) finished = finished << 8 | flight[at + 5 + i];
    changed = flight[at] == 20;
    at += 5u + (static_cast<std::size_t>(flight[at + 3]) << 8 | flight[at + 4]);
  }
  std::uint64_t next = 0;
  for (const std::byte byte : keys->keys.transmit.nonce.bytes().subspan(4))
    next = next << 8 | std::to_integer<std::uint64_t>(byte);
  EXPECT_EQ(next, finished + 1);
}

}  // namespace
}  // namespace ktrunk::handshake
