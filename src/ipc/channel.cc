#include "ipc/channel.h"

#include <sys/socket.h>

#include <cerrno>
#include <span>

#include "base/packet.h"
#include "ipc/crash_point.h"

namespace ktrunk::ipc {
namespace {

template <typename... Ts>
const Shape* find_shape(Kind kind) {
  const Shape* found = nullptr;
  const auto look = [&]<typename T>(std::type_identity<T>) {
    static constexpr Shape kShape{sizeof(T), T::kDescriptors};
    if (T::kKind == kind) found = &kShape;
  };
  (look(std::type_identity<Ts>{}), ...);
  return found;
}

}  // namespace

const Shape* shape_of(Kind kind) {
  return find_shape<Hello, Setup, Ready, Stop, Established, Admitted, Refused, Gone, Drain, Idle, Resolved, Offer, Held,
                    Start, Serve, Fault, Close, Released, HandshakeOctets, PostHandshake, SendControl, ControlSent,
                    InstallTransmit, Resume, Renew, Retire, Reload, Reloaded, Up, Yield, Move, Moved, Trace, TraceEnd>(
      kind);
}

Result<std::pair<Fd, Fd>> Channel::pair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0)
    return fail_errno(errno, "socketpair for a child's channel");
  return std::pair(Fd(ends[0]), Fd(ends[1]));
}

Status Channel::enqueue(Kind kind, const void* body, std::size_t bytes, Fd descriptor) {
  Pending& pending = queue_.emplace_back();
  pending.header = Header{.kind = kind, .body_bytes = static_cast<std::uint32_t>(bytes)};
  pending.body.assign(static_cast<const std::byte*>(body), static_cast<const std::byte*>(body) + bytes);
  pending.descriptor = std::move(descriptor);
  return flush();
}

Status Channel::flush() {
  while (!queue_.empty()) {
    Pending& next = queue_.front();
    const auto sent = send_packet(socket_.get(), std::as_bytes(std::span(&next.header, 1)), next.body, next.descriptor);
    if (!sent) return fail_errno(sent.error().code, "send to a process of ktrunkd");
    if (*sent == PacketSent::kWouldBlock) return {};
    crash_point();
    queue_.pop_front();
  }
  return {};
}

Result<Channel::Outcome> Channel::receive(Packet& packet) {
  auto receipt = receive_packet(socket_.get(), std::as_writable_bytes(std::span(&packet.header_, 1)), packet.body_);
  if (!receipt) return fail_errno(receipt.error().code, "receive from a process of ktrunkd");
  packet.descriptor_ = std::move(receipt->descriptor);
  if (receipt->outcome == PacketReceipt::Outcome::kWouldBlock) return Outcome::kWouldBlock;
  if (receipt->outcome == PacketReceipt::Outcome::kClosed) return Outcome::kClosed;

  const std::size_t bytes = receipt->bytes;
  if (receipt->cut || receipt->descriptors_cut) return fail("a packet was cut short: more than any message has");
  if (bytes < sizeof(Header)) return fail("a packet of {} octets is no message", bytes);
  const Header& header = packet.header_;
  if (header.version != kProtocolVersion)
    return fail("message version {} where {} is spoken", header.version, kProtocolVersion);
  const Shape* shape = shape_of(header.kind);
  if (shape == nullptr || !accept_.names(header.kind))
    return fail("message kind {} is not for this process", static_cast<unsigned>(header.kind));
  if (header.body_bytes != shape->body_bytes || bytes != sizeof(Header) + shape->body_bytes)
    return fail("message kind {} with a body of {} octets, not {}", static_cast<unsigned>(header.kind),
                bytes - sizeof(Header), shape->body_bytes);
  if (receipt->descriptors != shape->descriptors)
    return fail("message kind {} with {} descriptors, not {}", static_cast<unsigned>(header.kind), receipt->descriptors,
                shape->descriptors);
  return Outcome::kMessage;
}

std::string_view fault_text(FaultReason reason) {
  switch (reason) {
    case FaultReason::kCloseNotify:
      return "the peer closed it";
    case FaultReason::kTruncated:
      return "the peer ended the stream without close_notify";
    case FaultReason::kAlert:
      return "the peer sent a fatal alert";
    case FaultReason::kReset:
      return "socket error";
    case FaultReason::kBadRecord:
      return "a record that does not decrypt (plain text, or the stream was tampered with)";
    case FaultReason::kUnexpectedRecord:
      return "a record of a type that cannot be served";
    case FaultReason::kBadFraming:
      return "the SIP stream cannot be framed";
    case FaultReason::kPartialMessage:
      return "the rest of a message did not come in time";
    case FaultReason::kStalled:
      return "the peer took nothing for too long";
    case FaultReason::kBadAlert:
      return "the peer sent an alert record that is no alert";
    case FaultReason::kBadHandshake:
      return "the peer sent a malformed handshake message";
    case FaultReason::kUnexpectedHandshake:
      return "the peer sent a handshake message that has no place after the handshake";
    case FaultReason::kBadKeyUpdate:
      return "the peer sent a KeyUpdate with an illegal value";
    case FaultReason::kNoRekey:
      return "the peer updated its keys (KeyUpdate), which kernels before Linux 6.14 cannot follow; run a newer "
             "kernel, "
             "or record_layer = \"relay\"";
    case FaultReason::kKeysFailed:
      return "new keys could not be installed in the kernel";
    case FaultReason::kControlFlood:
      return "the peer sends control or empty records without end";
    case FaultReason::kKeyLimit:
      return "its keys have protected limits.key_records records and cannot be renewed";
    case FaultReason::kNoPong:
      return "the peer did not answer a keepalive";
    case FaultReason::kUnresponsive:
      return "the peer answers no OPTIONS, and the trunk has other targets";
  }
  return "unknown reason";
}

}  // namespace ktrunk::ipc
