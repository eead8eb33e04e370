#include "handshake/closing.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <utility>

namespace ktrunk::handshake {

void Closing::add_copy_of(int fd) {
  if (sockets_.size() < kMostSockets) add(Fd(::fcntl(fd, F_DUPFD_CLOEXEC, 0)));
}

void Closing::add(Fd socket) {
  if (!socket.valid() || sockets_.size() >= kMostSockets) return;
  if (::shutdown(socket.get(), SHUT_WR) != 0) return;  // gone already
  const std::uint64_t key = next_key_++;
  auto watch = loop_.watch(socket.get(), Interest::kRead, [this, key](Ready) { drain(key); });
  if (!watch) return;
  Socket& entry = sockets_[key];
  entry.fd = std::move(socket);
  entry.watch = std::move(*watch);
  entry.timer = loop_.after(kPatience, [this, key] { sockets_.erase(key); });
}

void Closing::drain(std::uint64_t key) {
  const auto found = sockets_.find(key);
  if (found == sockets_.end()) return;
  std::array<char, 16384> bytes;
  const ssize_t got = ::recv(found->second.fd.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got > 0) {
    found->second.thrown_away += static_cast<std::size_t>(got);
    if (found->second.thrown_away < kMostBytes) return;
  }
  sockets_.erase(found);
}

}  // namespace ktrunk::handshake
