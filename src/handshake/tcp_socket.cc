#include "handshake/tcp_socket.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <limits>

namespace ktrunk::handshake {
namespace {

// An idle connection whose peer has vanished is noticed after about a minute and a half.
constexpr int kKeepaliveIdleSeconds = 60;
constexpr int kKeepaliveIntervalSeconds = 10;
constexpr int kKeepaliveProbes = 3;

void set_int(int fd, int level, int name, int value) { (void)::setsockopt(fd, level, name, &value, sizeof value); }

}  // namespace

void set_connection_options(int fd, std::chrono::milliseconds stalled_peer) {
  constexpr std::int64_t kMost = std::numeric_limits<int>::max();
  set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, kKeepaliveIdleSeconds);
  set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, kKeepaliveIntervalSeconds);
  set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, kKeepaliveProbes);
  set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT,
          static_cast<int>(std::clamp<std::int64_t>(stalled_peer.count(), 1, kMost)));
}

Result<Fd> start_connect(const Address& peer, std::chrono::milliseconds stalled_peer) {
  Fd socket(::socket(peer.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
  if (!socket.valid()) return fail_errno(errno, "socket");
  set_connection_options(socket.get(), stalled_peer);
  // EINTR on a non-blocking connect means that it goes on by itself, like EINPROGRESS.
  if (::connect(socket.get(), peer.data(), peer.size()) != 0 && errno != EINPROGRESS && errno != EINTR)
    return fail_errno(errno, "connect");
  return socket;
}

int connect_result(int fd) {
  int code = 0;
  socklen_t length = sizeof code;
  if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &length) != 0) return errno;
  return code;
}

void reset_connection(Fd socket) {
  const linger at_once = {.l_onoff = 1, .l_linger = 0};
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  socket.reset();
}

Status set_blocking(int fd, Blocking blocking) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0) return fail_errno(errno, "fcntl F_GETFL");
  const int wanted = blocking == Blocking::kYes ? flags & ~O_NONBLOCK : flags | O_NONBLOCK;
  if (::fcntl(fd, F_SETFL, wanted) != 0) return fail_errno(errno, "fcntl F_SETFL");
  return {};
}

Address local_address(int fd) {
  sockaddr_storage storage = {};
  socklen_t length = sizeof storage;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &length) != 0) return {};
  return Address::from_sockaddr(reinterpret_cast<const sockaddr*>(&storage), length);
}

}  // namespace ktrunk::handshake
