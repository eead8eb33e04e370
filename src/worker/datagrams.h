// Datagrams: SIP over UDP (RFC 3261 18). Every worker receives from and sends on the same bound sockets; the kernel
// gives each datagram to one of them, and any of them can handle it.
#pragma once

#include <sys/socket.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "base/address.h"
#include "base/fd.h"
#include "base/id.h"
#include "base/result.h"
#include "ipc/estate.h"
#include "worker/ring.h"

namespace ktrunk::worker {

// A bound UDP socket, shared with the other workers.
struct DatagramSocket {
  ListenerId listener;
  Fd fd;
};

class Datagrams {
 public:
  Datagrams(Ring& ring, const ipc::Estate& estate) : ring_(ring), estate_(estate) {}

  // Takes a socket over. Buffers are registered with the first one; in_use: those that predecessors' completions lie
  // in.
  [[nodiscard]] Status add(ListenerId listener, Fd fd, const std::function<bool(unsigned buffer)>& in_use);
  // Receives from every socket from now on.
  void begin();
  // The socket of a listener, or none. The pointer lives as long as this object.
  [[nodiscard]] const DatagramSocket* socket(ListenerId listener) const;

  // A receive's completion, by its number (ipc/estate.h): calls handle(listener, sender's address, octets) when it
  // brought a datagram, which is the message in hand meanwhile.
  template <typename Handle>
  void received(unsigned index, int result, unsigned flags, std::uint32_t number, Handle&& handle) {
    if (result >= 0) deliver(index, result, flags, number, handle);
    if ((flags & IORING_CQE_F_MORE) == 0 && result != -ECANCELED) receive(index);
  }
  // One that a predecessor had not dealt with.
  template <typename Handle>
  void inherited(unsigned index, const ipc::Inherited& completion, Handle&& handle) {
    if (completion.skip == 0 && index < sockets_.size()) {
      deliver(index, completion.result, completion.flags, completion.number, handle);
    } else if (buffers_ != nullptr) {
      buffers_->recycle(completion.flags >> IORING_CQE_BUFFER_SHIFT);
    }
  }

  // Room for one more datagram; beyond the bound the network would drop it anyway.
  [[nodiscard]] bool has_room() const { return !free_.empty() || sends_.size() < kMaxSends; }
  // Where to write a datagram of `bytes` octets; then commit it. Precondition: has_room().
  [[nodiscard]] char* reserve(std::size_t bytes);
  void commit(const DatagramSocket& socket, const Address& to, std::size_t bytes);
  // A send's completion.
  void sent(unsigned index, int result);

 private:
  static constexpr std::size_t kMaxSends = 1024;
  // One datagram on its way; at a fixed place in memory while the kernel reads it.
  struct Send {
    std::vector<char> octets;
    Address to;
    iovec part{};
    msghdr header{};
  };
  void receive(unsigned index);
  template <typename Handle>
  void deliver(unsigned index, int result, unsigned flags, std::uint32_t number, Handle&& handle) {
    const unsigned buffer = flags >> IORING_CQE_BUFFER_SHIFT;
    if (const auto [from, octets] = take(buffer, result); !from.empty()) {
      take_in_hand(octets, number);
      handle(sockets_[index]->listener, from, octets);
      estate_.hand().message.store(0, std::memory_order_release);
    }
    buffers_->recycle(buffer);
  }
  void take_in_hand(std::string_view octets, std::uint32_t number);
  [[nodiscard]] std::pair<Address, std::string_view> take(unsigned buffer, int result);

  Ring& ring_;
  const ipc::Estate& estate_;
  BufferRing* buffers_ = nullptr;  // the ring's
  std::vector<std::unique_ptr<DatagramSocket>> sockets_;
  std::vector<std::unique_ptr<Send>> sends_;
  std::vector<unsigned> free_;
  unsigned reserved_ = 0;
  msghdr shape_{};  // what every receive asks for: the sender's address
};

}  // namespace ktrunk::worker
