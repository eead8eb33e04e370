#include "handoff/client.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace ktrunk::handoff {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kBetweenTries{1};  // a full channel has nothing to poll for when too many descriptors are why

// Waits until fd has something to read, or until the time is over.
void wait_readable(int fd, milliseconds time) {
  pollfd wanted{fd, POLLIN, 0};
  (void)::poll(&wanted, 1, static_cast<int>(time.count()));
}

template <std::size_t N>
bool fits(std::string_view text, const Text<N>&) {
  return text.size() < N && text.find('\0') == std::string_view::npos;
}

}  // namespace

Result<Client> Client::connect(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return fail("{}: the path has more than {} octets", path, sizeof address.sun_path - 1);
  std::memcpy(address.sun_path, path.data(), path.size());
  Fd channel(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!channel.valid()) return fail_errno(errno, "socket");
  if (::connect(channel.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const int code = errno;
    return fail_errno(code, fmt::format("{}: no handshake service to connect to", path));
  }
  return Client(std::move(channel));
}

Result<PacketSent> Client::send(const Wish& wish, Fd& socket) {
  Request request;
  if (!fits(wish.context, request.context)) return fail("the name of the context is too long");
  if (!fits(wish.host, request.host)) return fail("the name of the host is too long");
  request.number = wish.number;
  request.role = wish.role;
  request.relay = wish.relay;
  request.context = Text<sizeof request.context>(wish.context);
  request.host = Text<sizeof request.host>(wish.host);
  const Header header = header_of(request);
  auto sent =
      send_packet(channel_.get(), std::as_bytes(std::span(&header, 1)), std::as_bytes(std::span(&request, 1)), socket);
  if (!sent) return fail_errno(sent.error().code, "the handshake service is gone");
  if (*sent == PacketSent::kSent) socket.reset();
  return sent;
}

Result<std::optional<Reply>> Client::take() {
  Header header;
  std::array<std::byte, kMaxBodyBytes> body;
  auto receipt = receive_packet(channel_.get(), std::as_writable_bytes(std::span(&header, 1)), body);
  if (!receipt) return fail_errno(receipt.error().code, "the handshake service is gone");
  if (receipt->outcome == PacketReceipt::Outcome::kWouldBlock) return std::nullopt;
  if (receipt->outcome == PacketReceipt::Outcome::kClosed)
    return std::unexpected(Error{"the handshake service has closed the channel", ECONNRESET});
  if (receipt->cut) return fail("the handshake service sent more than any message has");
  auto answer = parse<Answer>(header, body, receipt->bytes);
  if (!answer) return fail("the handshake service broke the contract: {}", answer.error().what);
  if (receipt->descriptors_cut)
    return std::unexpected(Error{"the answer's descriptor does not fit this process's limit (RLIMIT_NOFILE)", EMFILE});
  if (receipt->descriptors != (answer->outcome == Outcome::kDone ? 1u : 0u))
    return fail("the handshake service sent {} descriptors with an answer", receipt->descriptors);
  return Reply{*answer, std::move(receipt->descriptor)};
}

Result<std::optional<Reply>> Client::receive() {
  if (kept_.empty()) return take();
  Reply first = std::move(kept_.front());
  kept_.pop_front();
  return first;
}

Result<Reply> Client::secure(const Wish& wish, Fd socket, milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  bool sent = false;
  while (true) {
    if (!sent) {
      auto outcome = send(wish, socket);
      if (!outcome) return std::unexpected(std::move(outcome.error()));
      sent = *outcome == PacketSent::kSent;
    }
    auto reply = take();
    if (!reply) return std::unexpected(std::move(reply.error()));
    if (*reply) {
      if (sent && (*reply)->answer.number == wish.number) return std::move(**reply);
      kept_.push_back(std::move(**reply));
      continue;
    }
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - Clock::now());
    if (left <= milliseconds(0))
      return std::unexpected(Error{"the handshake service has not answered in time", ETIMEDOUT});
    wait_readable(channel_.get(), sent ? left : kBetweenTries);
  }
}

}  // namespace ktrunk::handoff
