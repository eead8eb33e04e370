// Closing: sockets that have nothing more to say, kept until the peer has had time to read the last of it. close(2) on
// a socket with unread octets resets the connection, and the peer may lose an alert that was already on its way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>

#include "base/event_loop.h"
#include "base/fd.h"

namespace ktrunk::handshake {

class Closing {
 public:
  explicit Closing(EventLoop& loop) : loop_(loop) {}

  // Ends our direction, then throws away what comes until the peer ends its own, at most kPatience long and kMostBytes.
  // Beyond kMostSockets the socket is closed at once.
  void add(Fd socket);
  // The same for a socket that another object is about to close.
  void add_copy_of(int fd);

  [[nodiscard]] bool empty() const { return sockets_.empty(); }

 private:
  static constexpr std::chrono::seconds kPatience{1};
  static constexpr std::size_t kMostBytes = 1u << 20;
  static constexpr std::size_t kMostSockets = 1024;

  struct Socket {
    Fd fd;
    std::size_t thrown_away = 0;
    EventLoop::Watch watch;
    EventLoop::Timer timer;
  };
  void drain(std::uint64_t key);

  EventLoop& loop_;
  std::uint64_t next_key_ = 1;
  std::unordered_map<std::uint64_t, Socket> sockets_;
};

}  // namespace ktrunk::handshake
