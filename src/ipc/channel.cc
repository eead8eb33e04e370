#include "ipc/channel.h"

#include <sys/socket.h>

#include <cerrno>

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

// Room for more descriptors than any message has, so that a peer that sends too many is seen rather than truncated.
constexpr std::size_t kMaxReceivedDescriptors = 4;

// Takes ownership of every descriptor that came with a packet; the first is kept, the number is returned.
unsigned collect_descriptors(msghdr& message, Fd& first) {
  unsigned count = 0;
  for (cmsghdr* control = CMSG_FIRSTHDR(&message); control != nullptr; control = CMSG_NXTHDR(&message, control)) {
    if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t here = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < here; ++i) {
      int number = -1;
      std::memcpy(&number, CMSG_DATA(control) + i * sizeof(int), sizeof number);
      Fd owned(number);
      if (count++ == 0) first = std::move(owned);
    }
  }
  return count;
}

}  // namespace

const Shape* shape_of(Kind kind) {
  return find_shape<Hello, Setup, Ready, Stop, Established, Admitted, Refused, Gone, Drain, Idle, Resolved, Offer, Held,
                    Start, Fault, Close, Released, HandshakeOctets, PostHandshake, SendControl, ControlSent,
                    InstallTransmit, Resume, Renew, Retire, Reload, Reloaded>(kind);
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
    iovec parts[2] = {{&next.header, sizeof next.header}, {next.body.data(), next.header.body_bytes}};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    if (next.descriptor.valid()) {
      message.msg_control = control;
      message.msg_controllen = sizeof control;
      cmsghdr* rights = CMSG_FIRSTHDR(&message);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(sizeof(int));
      const int number = next.descriptor.get();
      std::memcpy(CMSG_DATA(rights), &number, sizeof number);
    }
    if (::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) {
      queue_.pop_front();
      continue;
    }
    // Too many descriptors in flight (unix(7)) passes as the receiver takes them, like a full socket.
    if (errno == EAGAIN || errno == ETOOMANYREFS || errno == ENOBUFS) return {};
    if (errno != EINTR) return fail_errno(errno, "send to a process of ktrunkd");
  }
  return {};
}

Result<Channel::Outcome> Channel::receive(Packet& packet) {
  iovec parts[2] = {{&packet.header_, sizeof packet.header_}, {packet.body_.data(), packet.body_.size()}};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxReceivedDescriptors)];
  msghdr message{};
  ssize_t got = 0;
  do {
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    got = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    if (errno == EAGAIN) return Outcome::kWouldBlock;
    if (errno == ECONNRESET) return Outcome::kClosed;
    return fail_errno(errno, "receive from a process of ktrunkd");
  }
  packet.descriptor_.reset();
  const unsigned descriptors = collect_descriptors(message, packet.descriptor_);
  if (got == 0) return Outcome::kClosed;

  const auto bytes = static_cast<std::size_t>(got);
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0)
    return fail("a packet was cut short: more than any message has");
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
  if (descriptors != shape->descriptors)
    return fail("message kind {} with {} descriptors, not {}", static_cast<unsigned>(header.kind), descriptors,
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
  }
  return "unknown reason";
}

}  // namespace ktrunk::ipc
