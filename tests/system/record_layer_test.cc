// What peers may send beside data once a connection is established, and what becomes of it: RFC 8446 4.6, 5 and 6,
// RFC 5246 7.2 and 7.4.1.1. The same injections with the kernel's record layer and in relay.
#include "system/record_layer_fixture.h"

namespace ktrunk::test {
namespace {

using ktls::AlertDescription;
using ktls::AlertLevel;
using ktls::RecordType;
using enum AlertDescription;

using Octets = std::function<std::string(HostilePeer&)>;

// One record.
Octets record(std::uint8_t type, std::string payload, RecordShape shape = {}) {
  return [=](HostilePeer& peer) { return peer.seal(static_cast<RecordType>(type), payload, shape); };
}
Octets record(RecordType type, std::string payload, RecordShape shape = {}) {
  return record(static_cast<std::uint8_t>(type), std::move(payload), shape);
}
Octets alert(AlertLevel level, AlertDescription description) {
  return record(RecordType::kAlert, {static_cast<char>(level), static_cast<char>(description)});
}
Octets handshake(std::uint8_t type, std::string body) {
  return record(RecordType::kHandshake, handshake_message(type, body));
}
Octets times(unsigned count, Octets one) {
  return [=](HostilePeer& peer) {
    std::string all;
    for (unsigned i = 0; i < count; ++i) all += one(peer);
    return all;
  };
}
Octets in_order(std::vector<Octets> parts) {
  return [=](HostilePeer& peer) {
    std::string all;
    for (const Octets& part : parts) all += part(peer);
    return all;
  };
}
Octets key_update(KeyUpdateRequest request) {
  return [=](HostilePeer& peer) { return peer.sealed_key_update(request).value_or(""); };
}
// Handshake messages, the last of them a KeyUpdate, in records of so many octets; and the keys go on (RFC 8446 5.1 lets
// messages share a record, and be split).
Octets key_update_in_pieces(KeyUpdateRequest request, std::size_t bytes, const std::string& before = {}) {
  return [=](HostilePeer& peer) {
    const std::string messages = before + key_update_message(request);
    std::string octets;
    for (std::size_t at = 0; at < messages.size(); at += bytes)
      octets += peer.seal(RecordType::kHandshake, messages.substr(at, bytes));
    EXPECT_TRUE(peer.advance_transmit());
    return octets;
  };
}

constexpr std::uint8_t kHelloRequest = 0, kClientHello = 1, kNewSessionTicket = 4, kCertificateRequest = 13,
                       kFinished = 20, kKeyUpdate = 24, kHeartbeat = 24;
const std::string kTypeText = "a record of a type that cannot be served";
const std::string kMessageText = "a handshake message that has no place after the handshake";

// For both versions.
std::vector<Injection> records(Tls version) {
  const std::string bad_record = "a record that does not decrypt";
  const Outcome bad_mac = Outcome::alert({kBadRecordMac}, bad_record);
  const Outcome unexpected = Outcome::alert({kUnexpectedMessage}, kTypeText);
  const Outcome any_refusal = Outcome::alert({kBadRecordMac, kProtocolVersion, kUnexpectedMessage, kDecodeError}, "");
  return {
      {"nothing", times(0, {}), Outcome::carries_on(), {}, {}},
      {"close_notify", alert(AlertLevel::kWarning, kCloseNotify), Outcome::orderly(), {}, {}},
      {"fatal alert", alert(AlertLevel::kFatal, kHandshakeFailure), Outcome::ends("handshake_failure"), {}, {}},
      {"alert of one octet",
       version == Tls::k12
           ? in_order({record(RecordType::kAlert, "\x01"), record(RecordType::kAlert, "\x5a")})  // user_canceled
           : record(RecordType::kAlert, "\x02"),
       version == Tls::k12 ? Outcome::carries_on()  // the other octet follows
                           : Outcome::alert({kDecodeError}, "an alert record that is no alert"),
       Outcome::alert({kDecodeError, kUnexpectedMessage}, ""),
       {}},
      {"alert of three octets",
       record(RecordType::kAlert, "\x02\x28\x28"),
       version == Tls::k12 ? Outcome::ends("handshake_failure")  // one and a half
                           : Outcome::alert({kDecodeError}, "an alert record that is no alert"),
       Outcome::alert({kDecodeError, kUnexpectedMessage}, ""),
       {}},
      {"unknown type", record(99, "?"), unexpected, {}, {}},
      {"heartbeat", record(kHeartbeat, "\x01\x10\x10"), unexpected, {}, {}},
      {"change_cipher_spec", record(RecordType::kChangeCipherSpec, "\x01"), unexpected, {}, {}},
      {"Finished",
       handshake(kFinished, std::string(32, 'x')),
       Outcome::alert({kUnexpectedMessage}, kMessageText),
       Outcome::alert({kUnexpectedMessage, kNoRenegotiation}, ""),
       {}},
      {"CertificateRequest",
       handshake(kCertificateRequest, std::string(8, '\0')),
       Outcome::alert({kUnexpectedMessage}, kMessageText),
       Outcome::alert({kUnexpectedMessage, kNoRenegotiation}, ""),
       {}},
      {"handshake record without octets",
       record(RecordType::kHandshake, ""),
       Outcome::alert({kUnexpectedMessage, kDecodeError}, ""),
       version == Tls::k12 ? Outcome::carries_on() : Outcome::alert({kUnexpectedMessage}, ""),  // OpenSSL lets it pass
       {}},
      {"wrong tag", record(RecordType::kApplicationData, "x", {.tag = RecordShape::Tag::kWrong}), bad_mac, {}, {}},
      {"record of another number", record(RecordType::kApplicationData, "x", {.number = 1u << 20}), bad_mac, {}, {}},
      {"too long",
       record(RecordType::kApplicationData, std::string(17'000, 'x')),
       Outcome::alert({kRecordOverflow}, bad_record),
       {},
       {}},
      {"plaintext",
       [](HostilePeer&) { return plain_record(23, "OPTIONS sip:us SIP/2.0\r\nVia: plain\r\n\r\n"); },
       bad_mac,
       {},
       {}},
      {"plaintext alert",
       [](HostilePeer&) { return plain_record(21, "\x02\x28"); },
       bad_mac,
       // Relayed over TLS 1.2, OpenSSL 3.0 calls a record that is shorter than its nonce an internal_error.
       Outcome::alert({kBadRecordMac, kUnexpectedMessage, kDecodeError, kRecordOverflow, kInternalError}, ""),
       {}},
      {"no TLS at all",
       [](HostilePeer&) { return std::string("OPTIONS sip:us SIP/2.0\r\nVia: plain\r\n\r\n"); },
       Outcome::alert({kProtocolVersion, kRecordOverflow}, bad_record),
       any_refusal,
       {}},
      {"a few empty records", times(5, record(RecordType::kApplicationData, "")), Outcome::carries_on(), {}, {}},
      // The kernel passes over those that have come together; they cost the worker nothing.
      {"empty records without end",
       times(2000, record(RecordType::kApplicationData, "")),
       Outcome::carries_on(),
       Outcome::alert({kUnexpectedMessage}, ""),
       {}},
  };
}

std::vector<Injection> records12() {
  return {
      {"warning",
       alert(AlertLevel::kWarning, kNoRenegotiation),
       Outcome::carries_on(),
       // OpenSSL takes this one for a refusal.
       Outcome::alert({kHandshakeFailure}, ""),
       {}},
      {"user_canceled", alert(AlertLevel::kWarning, kUserCanceled), Outcome::carries_on(), {}, {}},
      {"warnings without end",
       times(2000, alert(AlertLevel::kWarning, kUserCanceled)),
       Outcome::alert({kUnexpectedMessage}, "without end"),
       {},
       {}},
      {"KeyUpdate",
       handshake(kKeyUpdate, std::string(1, '\0')),
       Outcome::alert({kUnexpectedMessage}, kMessageText),
       {},
       {}},
  };
}

std::vector<Injection> records13() {
  const Outcome no_rekey = Outcome::alert({kInternalError}, "6.14");
  const Outcome unexpected = Outcome::alert({kUnexpectedMessage}, kMessageText);
  const auto request = [](unsigned char value) { return std::string(1, static_cast<char>(value)); };
  return {
      {"warning",
       alert(AlertLevel::kWarning, kNoRenegotiation),
       Outcome::ends("no_renegotiation"),
       Outcome::ends(""),
       {}},
      {"user_canceled, then close_notify",
       in_order({alert(AlertLevel::kWarning, kUserCanceled), alert(AlertLevel::kWarning, kCloseNotify)}),
       Outcome::orderly(),
       {},
       {}},
      {"padding", record(RecordType::kApplicationData, "\r\n\r\n", {.padding = 1000}), Outcome::carries_on(), {}, {}},
      {"no content type", record(0, ""), Outcome::alert({kUnexpectedMessage, kBadRecordMac}, ""), {}, {}},
      {"ClientHello", handshake(kClientHello, std::string(48, 'x')), unexpected, {}, {}},
      {"KeyUpdate", key_update(KeyUpdateRequest::kNotRequested), Outcome::carries_on(), {}, no_rekey},
      {"KeyUpdate, update_requested", key_update(KeyUpdateRequest::kRequested), Outcome::carries_on(), {}, no_rekey},
      {"three KeyUpdates", times(3, key_update(KeyUpdateRequest::kRequested)), Outcome::carries_on(), {}, no_rekey},
      // The kernel takes the first octet of a record for the message: it goes on behind the second record, and fails.
      {"KeyUpdate in two records",
       key_update_in_pieces(KeyUpdateRequest::kNotRequested, 3),
       Outcome::carries_on(),
       {},
       no_rekey},
      {"KeyUpdates octet by octet",
       times(3, key_update_in_pieces(KeyUpdateRequest::kRequested, 1)),
       Outcome::carries_on(),
       {},
       no_rekey},
      {"KeyUpdate with a bad value",
       handshake(kKeyUpdate, request(2)),
       Outcome::alert({kIllegalParameter}, "a KeyUpdate with an illegal value"),
       {},
       {}},
      {"KeyUpdate too long",
       handshake(kKeyUpdate, "\x01\x01"),
       Outcome::alert({kDecodeError}, "a malformed handshake message"),
       Outcome::alert({kDecodeError, kIllegalParameter}, ""),
       {}},
      {"KeyUpdate without octets",
       handshake(kKeyUpdate, ""),
       Outcome::alert({kDecodeError}, "a malformed handshake message"),
       {},
       {}},
      {"KeyUpdate with a message behind it",
       record(RecordType::kHandshake, key_update_message(KeyUpdateRequest::kNotRequested) +
                                          key_update_message(KeyUpdateRequest::kNotRequested)),
       unexpected,
       {},
       {}},
      // OpenSSL has no limit of its own here, and follows.
      {"KeyUpdates without end", times(2000, key_update(KeyUpdateRequest::kNotRequested)),
       Outcome::alert({kUnexpectedMessage}, "without end"), Outcome::carries_on(), no_rekey},
  };
}

// What only clients may not send.
std::vector<Injection> from_clients(Tls version) {
  if (version == Tls::k13)
    return {{"NewSessionTicket",
             record(RecordType::kHandshake, ticket_message()),
             Outcome::alert({kUnexpectedMessage}, kMessageText),
             {},
             {}}};
  return {{"renegotiation", handshake(kClientHello, std::string(48, 'x')), Outcome::carries_on(), {}, {}}};
}

// What only servers may send, or may not.
std::vector<Injection> from_servers(Tls version) {
  if (version == Tls::k12)
    return {{"HelloRequest", handshake(kHelloRequest, ""), Outcome::carries_on(), {}, {}},
            {"HelloRequests without end",
             times(2000, handshake(kHelloRequest, "")),
             Outcome::alert({kUnexpectedMessage}, "without end"),
             Outcome::carries_on(),
             {}}};
  return {
      {"NewSessionTicket", record(RecordType::kHandshake, ticket_message()), Outcome::carries_on(), {}, {}},
      {"two NewSessionTickets in one record",
       record(RecordType::kHandshake, ticket_message() + ticket_message()),
       Outcome::carries_on(),
       {},
       {}},
      {"KeyUpdate behind a NewSessionTicket in one record",
       key_update_in_pieces(KeyUpdateRequest::kRequested, ktls::kMaxRecordBytes, ticket_message()),
       Outcome::carries_on(),
       {},
       Outcome::alert({kInternalError}, "6.14")},
      {"KeyUpdate and a NewSessionTicket in pieces",
       key_update_in_pieces(KeyUpdateRequest::kNotRequested, 7, ticket_message()),
       Outcome::carries_on(),
       {},
       Outcome::alert({kInternalError}, "6.14")},
      {"NewSessionTicket in pieces",
       [](HostilePeer& peer) {
         std::string octets;
         const std::string ticket = ticket_message();
         for (std::size_t at = 0; at < ticket.size(); at += 4)
           octets += peer.seal(RecordType::kHandshake, ticket.substr(at, 4));
         return octets;
       },
       Outcome::carries_on(),
       {},
       {}},
      // RFC 8446 5.1 forbids it to the sender; who receives data here does not see that a message is not whole.
      {"data within a NewSessionTicket",
       [](HostilePeer& peer) {
         std::string octets = peer.seal(RecordType::kHandshake, ticket_message().substr(0, 10));
         octets += peer.seal(RecordType::kApplicationData, "\r\n\r\n");
         octets += peer.seal(RecordType::kHandshake, ticket_message().substr(10));
         return octets;
       },
       Outcome::carries_on(),
       Outcome::alert({kUnexpectedMessage}, ""),
       {}},
      {"malformed NewSessionTicket",
       handshake(kNewSessionTicket, "short"),
       Outcome::alert({kDecodeError}, "a malformed handshake message"),
       {},
       {}},
      {"HelloRequest", handshake(kHelloRequest, ""), Outcome::alert({kUnexpectedMessage}, kMessageText), {}, {}},
      {"KeyUpdate, update_requested",
       key_update(KeyUpdateRequest::kRequested),
       Outcome::carries_on(),
       {},
       Outcome::alert({kInternalError}, "6.14")},
  };
}

class RecordLayer : public RecordLayerTest, public testing::WithParamInterface<Tls> {};

TEST_P(RecordLayer, OfPeersThatConnectToUs) {
  ASSERT_NO_FATAL_FAILURE(start());
  auto neighbour = call_in();
  ASSERT_NE(neighbour, nullptr);
  neighbour_ = std::make_unique<SipStream>(std::move(neighbour));
  check(records(GetParam()).front(), hostile_call_in(GetParam()));
  const auto before = settled_descriptors();
  std::vector<Injection> all = records(GetParam());
  for (const auto& more : {GetParam() == Tls::k13 ? records13() : records12(), from_clients(GetParam())})
    all.insert(all.end(), more.begin(), more.end());
  for (const Injection& injection : all) check(injection, hostile_call_in(GetParam()));
  std::map<std::string, std::size_t> after;
  EXPECT_TRUE(eventually([&] { return (after = descriptors()) == before; }, kLong))
      << testing::PrintToString(before) << " became " << testing::PrintToString(after);
  expect_idle();
}

TEST_P(RecordLayer, OfPeersThatWeConnectTo) {
  ASSERT_NO_FATAL_FAILURE(start_with_hostile_trunk(GetParam()));
  auto neighbour = call_in();
  ASSERT_NE(neighbour, nullptr);
  neighbour_ = std::make_unique<SipStream>(std::move(neighbour));
  for (const Injection& injection : from_servers(GetParam())) {
    hostile_ = check(injection, std::move(hostile_), WhenItCarriesOn::kKeep);
    if (hostile_ == nullptr) hostile_ = accept_hostile(GetParam());  // it is made again
    ASSERT_NE(hostile_, nullptr) << daemon_->log();
  }
  expect_idle();
}

INSTANTIATE_TEST_SUITE_P(Versions, RecordLayer, testing::Values(Tls::k12, Tls::k13),
                         [](const auto& version) { return version.param == Tls::k13 ? "Tls13" : "Tls12"; });

}  // namespace
}  // namespace ktrunk::test
