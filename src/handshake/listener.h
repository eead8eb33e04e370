// Listener: one listening stream socket, whose connections it accepts and passes on. The supervisor bound the socket
// and keeps it: closing it here ends nothing but the accepting. Several handshake processes may accept on one socket.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/address.h"
#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"

namespace ktrunk::handshake {

class Listener {
 public:
  // A connection: non-blocking, close-on-exec. It may pause() or destroy the listener.
  using Accepted = std::function<void(Fd socket, const Address& peer)>;
  // No descriptor or memory is left for the next connection. kMade: something was freed, and it is tried once more.
  enum class Room : std::uint8_t { kNone, kMade };
  using Exhausted = std::function<Room()>;

  // socket: listening; put in non-blocking mode here. name: for log lines.
  [[nodiscard]] static Result<std::unique_ptr<Listener>> create(EventLoop& loop, Fd socket, std::string name,
                                                                Accepted accepted, Exhausted exhausted = {});
  // Stops accepting until resume(): connections wait in the socket's backlog.
  void pause();
  void resume();

 private:
  Listener(EventLoop& loop, Fd socket, std::string name, Accepted accepted, Exhausted exhausted);
  void accept_some();
  void rest(int code);

  EventLoop& loop_;
  Fd socket_;
  std::string name_;
  Accepted accepted_;
  Exhausted exhausted_;
  bool paused_ = false;
  EventLoop::Watch watch_;
  EventLoop::Timer retry_;
  Clock::time_point last_complaint_{};
  std::shared_ptr<int> alive_ = std::make_shared<int>();  // expires with the object: `accepted_` may destroy it
};

}  // namespace ktrunk::handshake
