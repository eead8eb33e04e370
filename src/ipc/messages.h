// The messages between the supervisor and its children, and nothing else: every child talks to the supervisor alone.
//
// A message is one packet on a SOCK_SEQPACKET channel: a Header and a body of fixed layout, with a descriptor where the
// kind says so. A packet of another version, an unknown kind, a wrong size, a missing or an unexpected descriptor, or
// a kind that the receiver's accept-list does not name ends that peer (channel.h).
//
//   supervisor -> any child      Setup (once per descriptor: configuration, region, listeners, doorbells), Ready,
//   Yield,
//                                Stop
//   any child  -> supervisor     Hello, Up
//   handshake  -> supervisor     Established +fd, Resolved, Idle, SendControl, Resume, Fault, Retire, Reloaded
//   supervisor -> handshake      Admitted, Refused, Gone, Drain, PostHandshake +fd, InstallTransmit +fd, Renew, Reload
//   supervisor -> worker         Offer +fd, Start, Serve, Close, SendControl, Resume, Move, Trace +fd,
//                                TraceEnd
//   worker     -> supervisor     Held, Fault, Released, HandshakeOctets, ControlSent, Moved
//
// The life of a connection: Established +fd -> the supervisor claims a slot of the connection table, keeps a duplicate,
// answers Admitted -> Offer +fd to every worker -> Held from every worker -> the slot is open, Start to its home
// worker. A worker that is started again is offered all of them, gets Start for those whose home it is, then Serve.
// Then Fault (from any worker), or the supervisor's own wish -> Close to the workers -> Released by every
// worker -> the slot is free, Gone to the handshake process.
//
// Handshake records after the handshake (kernel connections only; `handshake` is the process that owns the connection):
//   ticket            home worker: HandshakeOctets -> PostHandshake -> handshake: Resume{kReceive}
//   their KeyUpdate   the same, the kernel has paused receiving, or keeps the record behind it, which it could not
//                     decrypt; new receive keys in -> Resume{kReceiveRekeyed}
//   our KeyUpdate     handshake: SendControl{kHoldSends} -> home worker takes the connection's gate, sends the record,
//                     keeps the gate: ControlSent -> InstallTransmit +fd -> keys in -> Resume{kSendRekeyed}: gate free
//   key limit         supervisor: Renew -> a KeyUpdate as above; or a new connection with Established.replaces; or
//   Retire
// The supervisor keeps what the handshake process has not answered, and tells a successor again: every step may be
// repeated.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "base/address.h"
#include "base/id.h"
#include "base/text.h"
#include "config/config.h"
#include "ipc/limits.h"

namespace ktrunk::ipc {

inline constexpr std::uint16_t kProtocolVersion = 2;

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
  kHandshakeOctets,
  kPostHandshake,
  kSendControl,
  kControlSent,
  kInstallTransmit,
  kResume,
  kRenew,
  kRetire,
  kReload,
  kReloaded,
  kServe,
  kUp,
  kYield,
  kMove,
  kMoved,
  kTrace,
  kTraceEnd,
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

using ktrunk::Text;

// What is known of a connection when its handshake is done; constant for its life.
struct ConnectionInfo {
  config::Transport transport = config::Transport::kTls;
  RecordLayerKind record_layer = RecordLayerKind::kNone;
  TlsVersion tls_version = TlsVersion::kNone;
  enum class Role : std::uint8_t { kAccepted, kConnected } role = Role::kAccepted;
  // kTheirs: what answers their requests, and what belongs to their dialogs, goes by it; no new requests of ours.
  enum class Use : std::uint8_t { kBoth, kTheirs } use = Use::kBoth;
  // Whether the trunk has other servers than this one, as it was when we connected.
  enum class Others : std::uint8_t { kNone, kSome } others = Others::kNone;
  TrunkId trunk;        // the trunk whose peer this is: connected to, or accepted and known (trunk.known_by)
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
    kConfig,     // sealed memfd with the configuration's text
    kRegion,     // memfd of the shared region
    kListener,   // listening stream socket (to the handshake process) or bound UDP socket (to workers), of `listener`
    kDoorbell,   // eventfd of worker `worker`: readable when it has something to look at in the shared region
    kVault,      // memory of the vault (vault.h), to handshake processes alone
    kEstate,     // memory of the estate of this worker's place (estate.h)
    kCollector,  // UDP socket, connected to hep.collector, to workers
  } what = What::kConfig;
  WorkerIndex worker;   // kDoorbell
  ListenerId listener;  // kListener
  Text<256> path;       // kConfig: the file's name, for messages
};

// supervisor -> child: all Setup messages have been sent; begin. You are `worker`, or `handshake`.
struct Ready {
  static constexpr Kind kKind = Kind::kReady;
  static constexpr unsigned kDescriptors = 0;
  WorkerIndex worker;
  HandshakeIndex handshake;
};

// child -> supervisor: all that the Setup messages brought has been taken, and fits; it serves.
struct Up {
  static constexpr Kind kKind = Kind::kUp;
  static constexpr unsigned kDescriptors = 0;
  std::uint32_t reserved = 0;
};

// supervisor -> child: another process takes your place (an upgrade). A worker ends between two messages, and leaves
// its estate. A handshake process makes no new connections, finishes those in progress as after Drain, and says Idle;
// from Yield on it is told nothing of connections in the kernel's hands, which are its successor's then. Its relays go
// on until Gone or Stop.
struct Yield {
  static constexpr Kind kKind = Kind::kYield;
  static constexpr unsigned kDescriptors = 0;
  std::uint32_t reserved = 0;
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
  // A connection of the same trunk whose place this one takes: when this one is open the other is retired, as by
  // Retire. Not valid: none.
  ConnectionId replaces;
  ConnectionInfo info;
};

// supervisor -> handshake: the connection has got its place, and is called `connection` from now on.
struct Admitted {
  static constexpr Kind kKind = Kind::kAdmitted;
  static constexpr unsigned kDescriptors = 0;
  std::uint64_t reference = 0;
  ConnectionId connection;
};

// supervisor -> handshake: there is no place for the connection; it has been closed.
struct Refused {
  static constexpr Kind kKind = Kind::kRefused;
  static constexpr unsigned kDescriptors = 0;
  std::uint64_t reference = 0;
  enum class Why : std::uint8_t {
    kTableFull,
    kAddressFull
  } why = Why::kTableFull;  // limits.max_connections, ..._per_address
};

// supervisor -> handshake: every process has closed the connection. It goes to the process that owned it, and a trunk's
// also to the one that keeps the trunk (trunk modulo handshake processes) if that is another. reference is 0 when an
// earlier life of the process made it; the trunk says who wants a new one.
struct Gone {
  static constexpr Kind kKind = Kind::kGone;
  static constexpr unsigned kDescriptors = 0;
  std::uint64_t reference = 0;
  ConnectionId connection;
  TrunkId trunk;
  ConnectionInfo::Role role = ConnectionInfo::Role::kAccepted;
  // kAtOnce: it ended for a reason that a new connection does away with; do not wait before making it. kElsewhere: its
  // peer answers nothing; try the trunk's other targets first.
  enum class Again : std::uint8_t { kAfterWait, kAtOnce, kElsewhere } again = Again::kAfterWait;
};

// supervisor -> handshake: no new connections from now on, neither accepted nor made; give up handshakes in progress.
// Relays go on until their connections are Gone.
struct Drain {
  static constexpr Kind kKind = Kind::kDrain;
  static constexpr unsigned kDescriptors = 0;
  std::uint32_t reserved = 0;
};

// handshake -> supervisor, after Drain or Yield: no handshake is in progress any more, every Established has been sent
// and answered.
struct Idle {
  static constexpr Kind kKind = Kind::kIdle;
  static constexpr unsigned kDescriptors = 0;
  std::uint32_t reserved = 0;
};

// handshake -> supervisor: an address of a UDP target, to be published in the shared region.
struct Resolved {
  static constexpr Kind kKind = Kind::kResolved;
  static constexpr unsigned kDescriptors = 0;
  TrunkId trunk;
  std::uint16_t target = 0;    // its place (udp_places() in shared_region.h)
  std::uint16_t path_mtu = 0;  // of the way there, as the kernel knows it; 0: not known
  Address address;             // empty: there is none at this place any more
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
  // Handshake records that a predecessor has passed on: nothing is received before as many Resumes.
  std::uint16_t unanswered = 0;
};

// supervisor -> home worker: another worker is to receive from the connection. This one stops receiving, deals with
// what has come, waits until what came of that has been sent, and says Moved; then the other one gets Start.
struct Move {
  static constexpr Kind kKind = Kind::kMove;
  static constexpr unsigned kDescriptors = 0;
  ConnectionId connection;
};

// home worker -> supervisor.
struct Moved {
  static constexpr Kind kKind = Kind::kMoved;
  static constexpr unsigned kDescriptors = 0;
  ConnectionId connection;
  enum class Outcome : std::uint8_t {
    kMoved,  // nothing of what was received is left here
    kKept,   // it goes on receiving: part of a message had come, or sending took long
  } outcome = Outcome::kMoved;
};

// supervisor -> worker: every connection there was has been offered, and those whose home it is have been started. From
// now on it takes datagrams; what its predecessor left for other connections is of no use any more.
struct Serve {
  static constexpr Kind kKind = Kind::kServe;
  static constexpr unsigned kDescriptors = 0;
  std::uint32_t reserved = 0;
};

enum class FaultReason : std::uint8_t {
  kCloseNotify,          // the peer said close_notify, or FIN on plain TCP: it is done sending, orderly
  kTruncated,            // FIN without close_notify
  kAlert,                // fatal alert from the peer; detail is its description
  kReset,                // a socket error; detail is errno
  kBadRecord,            // EBADMSG, EMSGSIZE: not a record of this connection
  kUnexpectedRecord,     // a control record that cannot be served here; detail is the record type
  kBadFraming,           // the SIP stream cannot be framed any more
  kPartialMessage,       // the rest of a message did not come in time
  kStalled,              // the peer took nothing for too long
  kBadAlert,             // an alert record that is no alert
  kBadHandshake,         // a handshake message after the handshake that has not its form; detail is its type
  kUnexpectedHandshake,  // one that has no place after the handshake; detail is its type
  kBadKeyUpdate,         // a KeyUpdate with an illegal request_update
  kNoRekey,              // a KeyUpdate, which this kernel cannot follow
  kKeysFailed,           // new keys could not be installed; detail is errno
  kControlFlood,         // control or empty records without end
  kKeyLimit,             // its keys are used up and cannot be renewed
  kNoPong,               // no answer to our keepalive
  kUnresponsive,         // OPTIONS are not answered, and the trunk has other targets
};
[[nodiscard]] std::string_view fault_text(FaultReason reason);

// worker or handshake -> supervisor: the connection has come to its end, as seen by the sender.
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
  enum class Unsent : std::uint8_t {
    kSend,  // as `how` says
    kKeep,  // messages that have not begun to go wait for the trunk's next connection (TrunkEntry::awaited)
  } unsent = Unsent::kSend;
  ConnectionId connection;
};

// worker -> supervisor: the descriptor is closed, nothing of the connection is left here.
struct Released {
  static constexpr Kind kKind = Kind::kReleased;
  static constexpr unsigned kDescriptors = 0;
  ConnectionId connection;
};

// ---- records other than data, after the handshake

// worker (home) -> supervisor: octets of a handshake record, in order. After the last octets of a record nothing more
// is received until Resume, unless the kernel has more already.
struct HandshakeOctets {
  static constexpr Kind kKind = Kind::kHandshakeOctets;
  static constexpr unsigned kDescriptors = 0;
  ConnectionId connection;
  std::uint64_t number = 0;  // grows from one to the next of a connection's
  std::uint16_t bytes = 0;
  enum class Place : std::uint8_t { kMore, kEndOfRecord } place = Place::kEndOfRecord;
  std::array<std::byte, 2048> octets;  // `bytes` of them

  // Numbers of the pieces that a completion's octets make: from first_piece(completion) to last_piece(completion,
  // size).
  [[nodiscard]] static constexpr std::uint64_t first_piece(std::uint32_t completion) {
    return (std::uint64_t{completion} << 8) + 1;
  }
  [[nodiscard]] static constexpr std::uint64_t last_piece(std::uint32_t completion, std::size_t size) {
    constexpr std::size_t kPiece = 2048;
    return first_piece(completion) + (size == 0 ? 0 : (size - 1) / kPiece);
  }
};

// supervisor -> handshake: the same, with the connection's socket, for new receive keys.
struct PostHandshake {
  static constexpr Kind kKind = Kind::kPostHandshake;
  static constexpr unsigned kDescriptors = 1;
  HandshakeOctets record;
};

// handshake -> supervisor -> home worker: send one control record, behind what is queued.
struct SendControl {
  static constexpr Kind kKind = Kind::kSendControl;
  static constexpr unsigned kDescriptors = 0;
  ConnectionId connection;
  std::uint8_t record_type = 0;  // ContentType
  std::uint8_t bytes = 0;
  // kHoldSends: with the gate, which stays taken after it: the next record of any worker is under new keys.
  enum class After : std::uint8_t { kGoOn, kHoldSends } after = After::kGoOn;
  std::array<std::byte, 8> octets{};
};

// worker (home) -> supervisor: a SendControl with kHoldSends is with the kernel, and nobody sends.
struct ControlSent {
  static constexpr Kind kKind = Kind::kControlSent;
  static constexpr unsigned kDescriptors = 0;
  ConnectionId connection;
};

// supervisor -> handshake: install the next transmit keys on this socket, then Resume{kSendRekeyed} (or Fault).
struct InstallTransmit {
  static constexpr Kind kKind = Kind::kInstallTransmit;
  static constexpr unsigned kDescriptors = 1;
  ConnectionId connection;
};

// handshake -> supervisor -> home worker.
struct Resume {
  static constexpr Kind kKind = Kind::kResume;
  static constexpr unsigned kDescriptors = 0;
  ConnectionId connection;
  enum class What : std::uint8_t {
    kReceive,         // the handshake record has been dealt with: receive again
    kReceiveRekeyed,  // the same, under new keys
    kSendRekeyed,     // the transmit keys are in: give the gate back
  } what = What::kReceive;
};

// supervisor -> handshake: a direction's key has protected limits.key_records records.
struct Renew {
  static constexpr Kind kKind = Kind::kRenew;
  static constexpr unsigned kDescriptors = 0;
  std::uint64_t reference = 0;
  ConnectionId connection;
  enum class Which : std::uint8_t { kTransmit, kReceive } which = Which::kTransmit;
};

// handshake -> supervisor: no new traffic on this connection; close it, in order, once it is quiet (limits.drain at
// most).
struct Retire {
  static constexpr Kind kKind = Kind::kRetire;
  static constexpr unsigned kDescriptors = 0;
  ConnectionId connection;
};

// supervisor -> handshake: certificates, keys, CAs and CRLs are to be read again. kPrepare: read and check them beside
// those in force, answer Reloaded. When all processes could, kCommit: new handshakes use them. Else kDiscard.
struct Reload {
  static constexpr Kind kKind = Kind::kReload;
  static constexpr unsigned kDescriptors = 0;
  enum class Step : std::uint8_t { kPrepare, kCommit, kDiscard } step = Step::kPrepare;
  std::uint32_t number = 0;  // of this reload
};

// handshake -> supervisor: the answer to kPrepare.
struct Reloaded {
  static constexpr Kind kKind = Kind::kReloaded;
  static constexpr unsigned kDescriptors = 0;
  std::uint32_t number = 0;
  enum class Outcome : std::uint8_t { kReady, kFailed } outcome = Outcome::kReady;
  Text<1024> what;  // kFailed: why; kReady: warnings, one per line
};

// supervisor -> worker: from now on copies of the messages that come from a trunk and go to it are wanted, as packets
// of trace.h on this socket. It is non-blocking: what it does not take is dropped.
struct Trace {
  static constexpr Kind kKind = Kind::kTrace;
  static constexpr unsigned kDescriptors = 1;
  TrunkId trunk;
  std::uint16_t place = 0;  // below kMaxTraces; nobody's until now
};

// supervisor -> worker: no more of it.
struct TraceEnd {
  static constexpr Kind kKind = Kind::kTraceEnd;
  static constexpr unsigned kDescriptors = 0;
  std::uint32_t place = 0;
};

// A body that may be sent: plain bytes, small, and it says its kind.
template <typename T>
concept Body = std::is_trivially_copyable_v<T> && std::is_standard_layout_v<T> && requires {
  { T::kKind } -> std::convertible_to<Kind>;
  { T::kDescriptors } -> std::convertible_to<unsigned>;
};

inline constexpr std::size_t kMaxBodyBytes = 2240;
static_assert(Body<Established> && sizeof(Established) <= kMaxBodyBytes);
static_assert(Body<Setup> && sizeof(Setup) <= kMaxBodyBytes);
static_assert(Body<PostHandshake> && sizeof(PostHandshake) <= kMaxBodyBytes);
static_assert(Body<Reloaded> && sizeof(Reloaded) <= kMaxBodyBytes);

}  // namespace ktrunk::ipc
