#include "handoff/client.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
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

template <Body T>
Result<PacketSent> send_body(const Fd& channel, const T& body, const Fd& descriptor) {
  const Header header = header_of(body);
  auto sent =
      send_packet(channel.get(), std::as_bytes(std::span(&header, 1)), std::as_bytes(std::span(&body, 1)), descriptor);
  if (!sent) return fail_errno(sent.error().code, "the handshake service is gone");
  return sent;
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
  request.keys = wish.keys;
  request.context = Text<sizeof request.context>(wish.context);
  request.host = Text<sizeof request.host>(wish.host);
  auto sent = send_body(channel_, request, socket);
  if (sent && *sent == PacketSent::kSent) socket.reset();
  return sent;
}

Result<PacketSent> Client::record(std::uint64_t connection, std::span<const std::byte> octets, const Fd& fd) {
  Record record;
  if (octets.size() > record.octets.size()) return fail("a record of {} octets", octets.size());
  record.connection = connection;
  record.bytes = static_cast<std::uint32_t>(octets.size());
  std::ranges::copy(octets, record.octets.begin());
  return send_body(channel_, record, fd);
}

Result<PacketSent> Client::sent(std::uint64_t connection, const Fd& fd) {
  return send_body(channel_, Sent{.connection = connection}, fd);
}

Result<PacketSent> Client::renew(std::uint64_t connection, Renew::Which which) {
  return send_body(channel_, Renew{.connection = connection, .which = which}, Fd());
}

Result<PacketSent> Client::gone(std::uint64_t connection) {
  return send_body(channel_, Gone{.connection = connection}, Fd());
}

// One message from the channel, to where it belongs.
Result<Client::Took> Client::take() {
  Header header;
  std::array<std::byte, kMaxBodyBytes> body;
  auto receipt = receive_packet(channel_.get(), std::as_writable_bytes(std::span(&header, 1)), body);
  if (!receipt) return fail_errno(receipt.error().code, "the handshake service is gone");
  if (receipt->outcome == PacketReceipt::Outcome::kWouldBlock) return Took::kNothing;
  if (receipt->outcome == PacketReceipt::Outcome::kClosed)
    return std::unexpected(Error{"the handshake service has closed the channel", ECONNRESET});
  if (receipt->cut) return fail("the handshake service sent more than any message has");
  if (receipt->bytes >= sizeof header && header.kind == Kind::kInstruction) {
    const auto instruction = parse<Instruction>(header, body, receipt->bytes);
    if (!instruction || receipt->descriptors != 0) return fail("the handshake service broke the contract");
    instructions_.push_back(*instruction);
    return Took::kSomething;
  }
  const auto answer = parse<Answer>(header, body, receipt->bytes);
  if (!answer) return fail("the handshake service broke the contract: {}", answer.error().what);
  if (receipt->descriptors_cut)
    return std::unexpected(Error{"the answer's descriptor does not fit this process's limit (RLIMIT_NOFILE)", EMFILE});
  if (receipt->descriptors != (answer->outcome == Outcome::kDone ? 1u : 0u))
    return fail("the handshake service sent {} descriptors with an answer", receipt->descriptors);
  replies_.push_back({*answer, std::move(receipt->descriptor)});
  return Took::kSomething;
}

// Until there is one of the kind that `queue` holds, or nothing is left to read.
template <typename T>
Result<std::optional<T>> Client::next(std::deque<T>& queue) {
  while (queue.empty()) {
    const auto took = take();
    if (!took) return std::unexpected(took.error());
    if (*took == Took::kNothing) return std::nullopt;
  }
  std::optional<T> first(std::move(queue.front()));
  queue.pop_front();
  return first;
}

Result<std::optional<Reply>> Client::receive() { return next(replies_); }
Result<std::optional<Instruction>> Client::instruction() { return next(instructions_); }

Result<Reply> Client::secure(const Wish& wish, Fd socket, milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  bool sent = false;
  while (true) {
    if (!sent) {
      auto outcome = send(wish, socket);
      if (!outcome) return std::unexpected(std::move(outcome.error()));
      sent = *outcome == PacketSent::kSent;
    }
    const auto took = take();
    if (!took) return std::unexpected(took.error());
    const auto ours = std::ranges::find(replies_, wish.number, [](const Reply& reply) { return reply.answer.number; });
    if (sent && ours != replies_.end()) {
      Reply reply = std::move(*ours);
      replies_.erase(ours);
      return reply;
    }
    if (*took == Took::kSomething) continue;
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - Clock::now());
    if (left <= milliseconds(0))
      return std::unexpected(Error{"the handshake service has not answered in time", ETIMEDOUT});
    wait_readable(channel_.get(), sent ? left : kBetweenTries);
  }
}

}  // namespace ktrunk::handoff
