// Datagrams: SIP over UDP (RFC 3261 18). Every worker receives from and sends on the same bound sockets; the kernel
// gives each datagram to one of them, and any of them can handle it.
#pragma once

#include <sys/socket.h>

#include <cstddef>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "base/address.h"
#include "base/fd.h"
#include "base/id.h"
#include "base/result.h"
#include "worker/ring.h"

namespace ktrunk::worker {

// A bound UDP socket, shared with the other workers.
struct DatagramSocket {
  ListenerId listener;
  Fd fd;
};

class Datagrams {
 public:
  explicit Datagrams(Ring& ring) : ring_(ring) {}

  // Takes a socket over and receives from it. Buffers are registered with the first one.
  [[nodiscard]] Status add(ListenerId listener, Fd fd);
  // The socket of a listener, or none. The pointer lives as long as this object.
  [[nodiscard]] const DatagramSocket* socket(ListenerId listener) const;

  // A receive's completion: calls handle(listener, sender's address, octets) when it brought a datagram.
  template <typename Handle>
  void received(unsigned index, int result, unsigned flags, Handle&& handle) {
    if (result >= 0) {
      const unsigned buffer = flags >> IORING_CQE_BUFFER_SHIFT;
      if (const auto [from, octets] = take(buffer, result); !from.empty())
        handle(sockets_[index]->listener, from, octets);
      buffers_->recycle(buffer);
    }
    if ((flags & IORING_CQE_F_MORE) == 0 && result != -ECANCELED) receive(index);
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
  [[nodiscard]] std::pair<Address, std::string_view> take(unsigned buffer, int result);

  Ring& ring_;
  BufferRing* buffers_ = nullptr;  // the ring's
  std::vector<std::unique_ptr<DatagramSocket>> sockets_;
  std::vector<std::unique_ptr<Send>> sends_;
  std::vector<unsigned> free_;
  unsigned reserved_ = 0;
  msghdr shape_{};  // what every receive asks for: the sender's address
};

}  // namespace ktrunk::worker
