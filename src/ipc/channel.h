// Channel: one end of the SOCK_SEQPACKET pair between the supervisor and a child, carrying the messages of messages.h.
// Nothing is dropped: what the kernel does not take now waits in a queue until flush() can send it.
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <deque>
#include <initializer_list>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "ipc/messages.h"

namespace ktrunk::ipc {

// A message as received. The descriptor, where the kind has one, is close-on-exec and owned by the packet.
class Packet {
 public:
  [[nodiscard]] Kind kind() const { return header_.kind; }

  // The body as T. Precondition: kind() is T::kKind; the size has been checked on receipt.
  template <Body T>
  [[nodiscard]] T as() const {
    T body;
    std::memcpy(&body, body_.data(), sizeof body);
    return body;
  }
  [[nodiscard]] Fd take_descriptor() { return std::move(descriptor_); }

 private:
  friend class Channel;
  Header header_{};
  std::array<std::byte, kMaxBodyBytes> body_{};
  Fd descriptor_;
};

// The kinds that a process takes from its peer.
class AcceptList {
 public:
  AcceptList(std::initializer_list<Kind> kinds) {
    for (const Kind kind : kinds) kinds_.set(static_cast<std::size_t>(kind));
  }
  [[nodiscard]] bool names(Kind kind) const {
    return static_cast<std::size_t>(kind) < kinds_.size() && kinds_.test(static_cast<std::size_t>(kind));
  }

 private:
  std::bitset<64> kinds_;
};

class Channel {
 public:
  // A connected pair; both ends non-blocking and close-on-exec. `accept` is the accept-list of the first end's owner.
  [[nodiscard]] static Result<std::pair<Fd, Fd>> pair();

  Channel(Fd socket, AcceptList accept) : socket_(std::move(socket)), accept_(accept) {}

  // Queues a message and sends what the kernel takes. Fails only when the peer is gone.
  template <Body T>
  [[nodiscard]] Status send(const T& body) {
    static_assert(T::kDescriptors == 0);
    const T clean = without_padding(body);
    return enqueue(T::kKind, &clean, sizeof clean, Fd());
  }
  // The same with a descriptor, which is given away: it is closed here once the peer's copy is on its way.
  template <Body T>
  [[nodiscard]] Status send(const T& body, Fd descriptor) {
    static_assert(T::kDescriptors == 1);
    const T clean = without_padding(body);
    return enqueue(T::kKind, &clean, sizeof clean, std::move(descriptor));
  }

  // Sends what is queued; call it when the socket is writable. wants_write() tells whether to wait for that.
  [[nodiscard]] Status flush();
  [[nodiscard]] bool wants_write() const { return !queue_.empty(); }

  // What has not been sent yet, oldest first: to be given to a channel that takes this one's place (an upgrade).
  struct Pending {
    Header header;
    std::vector<std::byte> body;
    Fd descriptor;
  };
  [[nodiscard]] const std::deque<Pending>& unsent() const { return queue_; }
  void queue(Pending pending) { queue_.push_back(std::move(pending)); }

  enum class Outcome { kMessage, kWouldBlock, kClosed };
  // The next message into `packet`. An error means that the peer broke the contract and must be ended.
  [[nodiscard]] Result<Outcome> receive(Packet& packet);

  [[nodiscard]] int descriptor() const { return socket_.get(); }

 private:
  // What lies between a body's members is whatever was in memory there, and must not leave the process.
  template <Body T>
  [[nodiscard]] static T without_padding(T body) {
#if __has_builtin(__builtin_clear_padding)
    __builtin_clear_padding(&body);
#endif
    return body;
  }
  [[nodiscard]] Status enqueue(Kind kind, const void* body, std::size_t bytes, Fd descriptor);

  Fd socket_;
  AcceptList accept_;
  std::deque<Pending> queue_;
};

// The body size and the number of descriptors that a kind must have; nothing for an unknown kind.
struct Shape {
  std::size_t body_bytes;
  unsigned descriptors;
};
[[nodiscard]] const Shape* shape_of(Kind kind);

}  // namespace ktrunk::ipc
