#include "base/packet.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace ktrunk {
namespace {

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

// sendmsg takes its parts as if it wrote to them.
iovec part(std::span<const std::byte> bytes) { return {const_cast<std::byte*>(bytes.data()), bytes.size()}; }

}  // namespace

Result<PacketSent> send_packet(int socket, std::span<const std::byte> head, std::span<const std::byte> body,
                               const Fd& descriptor) {
  iovec parts[2] = {part(head), part(body)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  if (descriptor.valid()) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    const int number = descriptor.get();
    std::memcpy(CMSG_DATA(rights), &number, sizeof number);
  }
  while (::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
    // Too many descriptors in flight (unix(7)) passes as the receiver takes them, like a full socket.
    if (errno == EAGAIN || errno == ETOOMANYREFS || errno == ENOBUFS) return PacketSent::kWouldBlock;
    if (errno != EINTR) return fail_errno(errno, "sendmsg");
  }
  return PacketSent::kSent;
}

Result<PacketReceipt> receive_packet(int socket, std::span<std::byte> head, std::span<std::byte> body) {
  iovec parts[2] = {{head.data(), head.size()}, {body.data(), body.size()}};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxReceivedDescriptors)];
  msghdr message{};
  ssize_t got = 0;
  do {
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    got = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  PacketReceipt receipt;
  if (got < 0) {
    if (errno != EAGAIN && errno != ECONNRESET) return fail_errno(errno, "recvmsg");
    if (errno == EAGAIN) receipt.outcome = PacketReceipt::Outcome::kWouldBlock;
    return receipt;
  }
  receipt.descriptors = collect_descriptors(message, receipt.descriptor);
  if (got == 0) return receipt;
  receipt.outcome = PacketReceipt::Outcome::kPacket;
  receipt.bytes = static_cast<std::size_t>(got);
  receipt.cut = (message.msg_flags & MSG_TRUNC) != 0;
  receipt.descriptors_cut = (message.msg_flags & MSG_CTRUNC) != 0;
  return receipt;
}

}  // namespace ktrunk
