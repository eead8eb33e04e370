// The wire contract between a program and a handshake service (`ktrunkd-handshake --serve SOCKET FILE`): the program
// hands over the descriptor of a connected TCP socket, and gets the descriptor of a TLS connection back, whose records
// the kernel makes (Documentation/networking/tls.rst). No OpenSSL is needed to speak it. Both sides include this
// header; client.h speaks it for C++ programs.
//
//   program -> service   Request + descriptor of the TCP socket     as many at once as the program likes
//   service -> program   Answer, with a descriptor when kDone       in the order in which they are ready
// and for connections in the kernel whose keys the service was asked to keep (Request::keys):
//   program -> service   Record + descriptor, Sent + descriptor, Renew, Gone
//   service -> program   Instruction
//
// The channel is a SOCK_SEQPACKET Unix socket, owner's access only; the service takes clients of its own user and root
// (SO_PEERCRED). One packet is one Header and one body of fixed layout, in the machine's own byte order (both ends are
// on it). A packet of another version, an unknown kind, a wrong size, an unknown enumerator, reserved octets that are
// not zero, or another number of descriptors than the kind has ends the client. So does an empty packet. When a client
// goes, its requests in progress are given up; connections that it was given go on, relays as long as their descriptor
// is open.
//
// Who owns the socket: the program until the Request is sent, then the service; the program must not use it before the
// Answer, nor keep a copy. When kFailed the service has closed it, after the alert. When kDone the Answer's descriptor
// is the program's alone, in blocking mode:
//   kKernel   the TCP socket with kernel TLS. One send of at most 16384 octets is one record, all or nothing. Receive
//             with recvmsg and look at the record type (ktls/control_record.h); say close_notify before the end.
//   kRelay    only where Request::relay allows: one end of a SOCK_SEQPACKET pair, behind which the service makes the
//             records. A packet of at most 16384 octets is one record; closing it says close_notify to the peer, the
//             peer's close_notify reads as end of file. It lasts as long as the service does.
//
// Records that are not data, on a kKernel connection after the handover. Without Request::keys the service forgets the
// connection: NewSessionTicket may be ignored; at a KeyUpdate (RFC 8446 4.6.3) end the connection with alert
// internal_error, and open another before a key has protected 2^24.5 records (RFC 8446 5.5). With it the service keeps
// the secrets (in memory of its own that is not dumped), and the program passes every record of type 22 on:
//   Record -> Instruction kReceive or kReceiveRekeyed: receive again (not before: the kernel waits for its keys);
//             or kClose: end the connection with that alert, then Gone
//   ... and perhaps, now or without being asked, kSend: send these octets as a record of that type; or kSendAndHold:
//             wait until every send has been taken, send them so, send nothing more, say Sent -> kSendRekeyed: go on
//   Renew  -> the same, so that a direction gets new keys; or kCannotRenew: open another connection
//   Gone   -> nothing: the program has closed the connection, its secrets are overwritten
// Kernels before Linux 6.14 take no second keys: kClose and kCannotRenew there. The descriptor that comes with Record
// and Sent is a copy of the connection's; it is closed when the message has been dealt with. When the client goes, the
// secrets of its connections are overwritten; the connections go on as those without. Relays follow KeyUpdates by
// themselves.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

#include "base/result.h"
#include "base/text.h"

namespace ktrunk::handoff {

inline constexpr std::uint16_t kWireVersion = 1;

enum class Kind : std::uint16_t { kRequest = 1, kAnswer, kRecord, kSent, kRenew, kGone, kInstruction };

struct Header {
  std::uint16_t version = kWireVersion;
  Kind kind = Kind::kRequest;
  std::uint32_t body_bytes = 0;
};

enum class Role : std::uint8_t {
  kAccept = 1,   // we are the TLS server
  kConnect = 2,  // we are the TLS client
};

// What becomes of a connection that the kernel cannot take.
enum class Relay : std::uint8_t { kRefused = 0, kAllowed = 1 };

// Whether the service keeps what later keys are made from.
enum class Keys : std::uint8_t { kForget = 0, kKeep = 1 };

struct Request {
  static constexpr Kind kKind = Kind::kRequest;
  static constexpr unsigned kDescriptors = 1;
  std::uint64_t number = 0;  // the client's own; the Answer repeats it
  Role role = Role::kAccept;
  Relay relay = Relay::kRefused;
  Keys keys = Keys::kForget;
  std::array<std::uint8_t, 5> reserved{};
  Text<128> context;  // kAccept: name of a [[listen]] of FILE, whose certificate is shown; kConnect: of a [[trunk]]
  Text<256> host;     // kConnect: the name that the peer's certificate must carry (unless the trunk has a verify_name),
                      // and for SNI; kAccept: empty
};

enum class Outcome : std::uint8_t { kDone = 1, kFailed = 2 };
enum class Version : std::uint8_t { kNone = 0, kTls12 = 1, kTls13 = 2 };
enum class RecordLayer : std::uint8_t { kNone = 0, kKernel = 1, kRelay = 2 };
enum class Session : std::uint8_t { kFull = 0, kResumed = 1 };

// A fatal alert of the handshake (RFC 8446 6).
struct AlertSeen {
  enum class Seen : std::uint8_t { kNo = 0, kYes = 1 } seen = Seen::kNo;
  std::uint8_t description = 0;  // AlertDescription
};

inline constexpr std::size_t kMaxNames = 4;

struct Answer {
  static constexpr Kind kKind = Kind::kAnswer;
  std::uint64_t number = 0;  // of the Request
  // kDone and kKernel with Keys::kKeep: what the service calls the connection; 0: it keeps no keys of it.
  std::uint64_t connection = 0;
  Outcome outcome = Outcome::kFailed;
  // ---- kDone
  Version version = Version::kNone;
  RecordLayer record_layer = RecordLayer::kNone;
  Session session = Session::kFull;
  std::uint16_t names_total = 0;  // how many names the peer's verified certificate carries; 0 without one
  // ---- kFailed
  AlertSeen sent;      // by us
  AlertSeen received;  // from the peer
  std::array<std::uint8_t, 6> reserved{};
  // ---- kDone
  Text<64> cipher;                         // OpenSSL's name, "TLS_AES_128_GCM_SHA256"
  Text<64> alpn;                           // the protocol that was agreed on (RFC 7301); empty: none
  std::array<Text<264>, kMaxNames> names;  // the first of them: "sip:example.com", "dns:example.com", "ip:192.0.2.1"
  // kFailed: why, with a remedy where there is a usual one; kDone and kRelay: why the kernel does not do it.
  Text<512> what;
};

// program -> service: a record of type 22 (handshake) that came on the connection.
struct Record {
  static constexpr Kind kKind = Kind::kRecord;
  static constexpr unsigned kDescriptors = 1;
  std::uint64_t connection = 0;
  std::uint32_t bytes = 0;  // of octets
  std::array<std::uint8_t, 4> reserved{};
  std::array<std::byte, 16384> octets{};  // what lies beyond `bytes` means nothing
};

// program -> service: the record of kSendAndHold is with the kernel, and nobody sends.
struct Sent {
  static constexpr Kind kKind = Kind::kSent;
  static constexpr unsigned kDescriptors = 1;
  std::uint64_t connection = 0;
};

// program -> service: a direction's key has protected enough records.
struct Renew {
  static constexpr Kind kKind = Kind::kRenew;
  static constexpr unsigned kDescriptors = 0;
  std::uint64_t connection = 0;
  enum class Which : std::uint8_t { kTransmit = 0, kReceive = 1 } which = Which::kTransmit;
  std::array<std::uint8_t, 7> reserved{};
};

// program -> service: the connection is closed.
struct Gone {
  static constexpr Kind kKind = Kind::kGone;
  static constexpr unsigned kDescriptors = 0;
  std::uint64_t connection = 0;
};

// service -> program.
struct Instruction {
  static constexpr Kind kKind = Kind::kInstruction;
  static constexpr unsigned kDescriptors = 0;
  std::uint64_t connection = 0;
  enum class What : std::uint8_t {
    kReceive = 1,
    kReceiveRekeyed,
    kSend,
    kSendAndHold,
    kSendRekeyed,
    kCannotRenew,
    kClose,
  } what = What::kClose;
  std::uint8_t alert = 0;        // kClose: AlertDescription to end with
  std::uint8_t record_type = 0;  // kSend, kSendAndHold: ContentType
  std::uint8_t bytes = 0;        // ... of octets
  std::array<std::uint8_t, 4> reserved{};
  std::array<std::byte, 8> octets{};
  Text<256> why;  // kClose
};

template <typename T>
concept Body = std::is_trivially_copyable_v<T> && std::is_standard_layout_v<T> && requires { T::kKind; };

static_assert(Body<Request> && sizeof(Header) == 8 && sizeof(Request) == 400);
static_assert(Body<Answer> && sizeof(Answer) == 1728);
static_assert(Body<Record> && sizeof(Record) == 16400 && Body<Sent> && sizeof(Sent) == 8);
static_assert(Body<Renew> && sizeof(Renew) == 16 && Body<Gone> && sizeof(Gone) == 8);
static_assert(Body<Instruction> && sizeof(Instruction) == 280);

// The largest body of all kinds: a buffer for receiving.
inline constexpr std::size_t kMaxBodyBytes = sizeof(Record);

template <Body T>
[[nodiscard]] Header header_of(const T&) {
  return {.kind = T::kKind, .body_bytes = sizeof(T)};
}

// What is wrong with a packet of `bytes` octets that was received for a kind with a body of `body_bytes`.
[[nodiscard]] Status check_shape(const Header& header, std::size_t bytes, Kind kind, std::size_t body_bytes);
// What is wrong with the values inside.
[[nodiscard]] Status check_values(const Request& request);
[[nodiscard]] Status check_values(const Answer& answer);
[[nodiscard]] Status check_values(const Record& record);
[[nodiscard]] Status check_values(const Sent& sent);
[[nodiscard]] Status check_values(const Renew& renew);
[[nodiscard]] Status check_values(const Gone& gone);
[[nodiscard]] Status check_values(const Instruction& instruction);

// The body of a packet as T: header and body as received, `bytes` octets together. Error: it breaks the contract.
template <Body T>
[[nodiscard]] Result<T> parse(const Header& header, std::span<const std::byte, kMaxBodyBytes> body, std::size_t bytes) {
  if (auto status = check_shape(header, bytes, T::kKind, sizeof(T)); !status)
    return std::unexpected(std::move(status.error()));
  T value;
  std::memcpy(&value, body.data(), sizeof value);
  if (auto status = check_values(value); !status) return std::unexpected(std::move(status.error()));
  return value;
}

}  // namespace ktrunk::handoff
