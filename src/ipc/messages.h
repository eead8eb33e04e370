// The messages between the supervisor and its children, and nothing else: every child talks to the supervisor alone.
//
// A message is one packet on a SOCK_SEQPACKET channel: a Header and a body of fixed layout, with a descriptor where the
// kind says so. A packet of another version, an unknown kind, a wrong size, a missing or an unexpected descriptor, or
// a kind that the receiver's accept-list does not name ends that peer (channel.h).
//
//   supervisor -> any child      Setup (once per descriptor: configuration, region, listeners, doorbells), Ready, Stop
//   handshake  -> supervisor     Hello, Established +fd, Resolved, Idle
//   supervisor -> handshake      Admitted, Refused, Gone, Drain
//   supervisor -> worker         Offer +fd, Start, Close
//   worker     -> supervisor     Hello, Held, Fault, Released
//
// The life of a connection: Established +fd -> the supervisor claims a slot of the connection table, keeps a duplicate,
// answers Admitted -> Offer +fd to every worker -> Held from every worker -> the slot is open, Start to its home
// worker. Then Fault (from any worker), or the supervisor's own wish -> Close to the workers -> Released by every
// worker -> the slot is free, Gone to the handshake process.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "base/address.h"
#include "base/id.h"
#include "config/config.h"
#include "ipc/limits.h"

namespace ktrunk::ipc {

inline constexpr std::uint16_t kProtocolVersion = 1;

enum class Kind : std::uint16_t {
  kHello = 1,
  kSetup,
  kReady,
  kStop,
  kEstablished,
  kAdmitted,
  kRefused,
  kGone,
  kDrain,
  kIdle,
  kResolved,
  kOffer,
  kHeld,
  kStart,
  kFault,
  kClose,
  kReleased,
};

struct Header {
  std::uint16_t version = kProtocolVersion;
  Kind kind;
  std::uint32_t body_bytes;
};

// Who turns bytes into records on a connection.
enum class RecordLayerKind : std::uint8_t {
  kNone,    // plain TCP
  kKernel,  // the kernel: the descriptor is the kTLS socket itself
  kRelay,   // the handshake process: the descriptor is one end of a SOCK_SEQPACKET pair
};

enum class TlsVersion : std::uint8_t { kNone, kTls12, kTls13 };

// Text of bounded length in a fixed place; longer text is cut.
template <std::size_t N>
struct Text {
  std::array<char, N> bytes{};

  Text() = default;
  explicit Text(std::string_view text) { std::memcpy(bytes.data(), text.data(), std::min(text.size(), N - 1)); }
  [[nodiscard]] std::string_view view() const { return {bytes.data(), ::strnlen(bytes.data(), N - 1)}; }
};

// What is known of a connection when its handshake is done; constant for its life.
struct ConnectionInfo {
  config::Transport transport = config::Transport::kTls;
  RecordLayerKind record_layer = RecordLayerKind::kNone;
  TlsVersion tls_version = TlsVersion::kNone;
  enum class Role : std::uint8_t { kAccepted, kConnected } role = Role::kAccepted;
  TrunkId trunk;        // the trunk whose peer this is: connected to, or accepted with that trunk's verified name
  ListenerId listener;  // accepted on; for a connection made by us, the trunk's `listen`
  Address peer;
  Address local;
  Text<40> cipher;              // OpenSSL's name, or empty
  Text<120> record_layer_note;  // why relay and not kernel; empty where nothing needs saying
};

enum class Role : std::uint8_t { kHandshake = 1, kWorker = 2 };

// child -> supervisor, first of all: who has come up.
struct Hello {
  static constexpr Kind kKind = Kind::kHello;
  static constexpr unsigned kDescriptors = 0;
  Role role = Role::kWorker;
  WorkerIndex worker;  // for a worker
  std::int32_t pid = 0;
};

// supervisor -> child: one descriptor that the child needs for its life.
struct Setup {
  static constexpr Kind kKind = Kind::kSetup;
  static constexpr unsigned kDescriptors = 1;
  enum class What : std::uint8_t {
    kConfig,    // sealed memfd with the configuration's text
    kRegion,    // memfd of the shared region
    kListener,  // listening stream socket (to the handshake process) or bound UDP socket (to workers), of `listener`
    kDoorbell,  // eventfd of worker `worker`: readable when it has something to look at in the shared region
  } what = What::kConfig;
  WorkerIndex worker;   // kDoorbell
  ListenerId listener;  // kListener
  Text<256> path;       // kConfig: the file's name, for messages
};

// supervisor -> child: all Setup messages have been sent; begin. For a worker: you are `worker`.
struct Ready {
  static constexpr Kind kKind = Kind::kReady;
  static constexpr unsigned kDescriptors = 0;
  WorkerIndex worker;
};

// supervisor -> child: end now; every connection has been closed before.
struct Stop {
  static constexpr Kind kKind = Kind::kStop;
  static constexpr unsigned kDescriptors = 0;
  std::uint32_t reserved = 0;
};

// handshake -> supervisor: a connection is ready for the workers. The descriptor is in blocking mode (io_uring waits by
// poll only then; nobody ever makes a blocking call on it). `reference` is the handshake process's own number.
struct Established {
  static constexpr Kind kKind = Kind::kEstablished;
  static constexpr unsigned kDescriptors = 1;
  std::uint64_t reference = 0;
  ConnectionInfo info;
};

// supervisor -> handshake: the connection has got its place, and is called `connection` from now on.
struct Admitted {
  static constexpr Kind kKind = Kind::kAdmitted;
  static constexpr unsigned kDescriptors = 0;
  std::uint64_t reference = 0;
  ConnectionId connection;
};

// supervisor -> handshake: the connection table is full; the connection has been closed.
struct Refused {
  static constexpr Kind kKind = Kind::kRefused;
  static constexpr unsigned kDescriptors = 0;
  std::uint64_t reference = 0;
};

// supervisor -> handshake: every process has closed the connection. reference is 0 when an earlier handshake process
// made it; the trunk says who wants a new one.
struct Gone {
  static constexpr Kind kKind = Kind::kGone;
  static constexpr unsigned kDescriptors = 0;
  std::uint64_t reference = 0;
  ConnectionId connection;
  TrunkId trunk;
  ConnectionInfo::Role role = ConnectionInfo::Role::kAccepted;
};

// supervisor -> handshake: no new connections from now on, neither accepted nor made; give up handshakes in progress.
// Relays go on until their connections are Gone.
struct Drain {
  static constexpr Kind kKind = Kind::kDrain;
  static constexpr unsigned kDescriptors = 0;
  std::uint32_t reserved = 0;
};

// handshake -> supervisor, after Drain: no handshake is in progress any more, every Established has been sent.
struct Idle {
  static constexpr Kind kKind = Kind::kIdle;
  static constexpr unsigned kDescriptors = 0;
  std::uint32_t reserved = 0;
};

// handshake -> supervisor: the address of a UDP target, to be published in the shared region.
struct Resolved {
  static constexpr Kind kKind = Kind::kResolved;
  static constexpr unsigned kDescriptors = 0;
  TrunkId trunk;
  std::uint16_t target = 0;  // place among the trunk's targets
  Address address;           // empty: it does not resolve any more
};

// supervisor -> worker: a connection to hold; what it is stands in its slot of the connection table.
struct Offer {
  static constexpr Kind kKind = Kind::kOffer;
  static constexpr unsigned kDescriptors = 1;
  ConnectionId connection;
};

// worker -> supervisor: got it.
struct Held {
  static constexpr Kind kKind = Kind::kHeld;
  static constexpr unsigned kDescriptors = 0;
  ConnectionId connection;
};

// supervisor -> home worker: every worker holds the connection; receive from it.
struct Start {
  static constexpr Kind kKind = Kind::kStart;
  static constexpr unsigned kDescriptors = 0;
  ConnectionId connection;
};

enum class FaultReason : std::uint8_t {
  kCloseNotify,       // the peer said close_notify, or FIN on plain TCP: it is done sending, orderly
  kTruncated,         // FIN without close_notify
  kAlert,             // fatal alert from the peer; detail is its description
  kReset,             // a socket error; detail is errno
  kBadRecord,         // EBADMSG, EMSGSIZE: not a record of this connection
  kUnexpectedRecord,  // a control record that cannot be served here; detail is the record type
  kBadFraming,        // the SIP stream cannot be framed any more
  kPartialMessage,    // the rest of a message did not come in time
  kStalled,           // the peer took nothing for too long
};
[[nodiscard]] std::string_view fault_text(FaultReason reason);

// worker -> supervisor: the connection has come to its end, as seen by the sender.
struct Fault {
  static constexpr Kind kKind = Kind::kFault;
  static constexpr unsigned kDescriptors = 0;
  ConnectionId connection;
  FaultReason reason = FaultReason::kReset;
  std::int32_t detail = 0;
};

// supervisor -> worker: let go of a connection, then say Released.
struct Close {
  static constexpr Kind kKind = Kind::kClose;
  static constexpr unsigned kDescriptors = 0;
  enum class How : std::uint8_t {
    kFlush,   // send what is queued first (bounded in time), then let go; end of stream is another worker's task
    kFinish,  // the last holder: send what is queued, then close_notify, end the stream, let go
    kAbort,   // at once
  } how = How::kAbort;
  std::uint8_t alert = 0;  // kFinish on a kernel connection: the alert description to send; 0 is close_notify
  ConnectionId connection;
};

// worker -> supervisor: the descriptor is closed, nothing of the connection is left here.
struct Released {
  static constexpr Kind kKind = Kind::kReleased;
  static constexpr unsigned kDescriptors = 0;
  ConnectionId connection;
};

// A body that may be sent: plain bytes, small, and it says its kind.
template <typename T>
concept Body = std::is_trivially_copyable_v<T> && std::is_standard_layout_v<T> && requires {
  { T::kKind } -> std::convertible_to<Kind>;
  { T::kDescriptors } -> std::convertible_to<unsigned>;
};

inline constexpr std::size_t kMaxBodyBytes = 480;
static_assert(Body<Established> && sizeof(Established) <= kMaxBodyBytes);
static_assert(Body<Setup> && sizeof(Setup) <= kMaxBodyBytes);

}  // namespace ktrunk::ipc
