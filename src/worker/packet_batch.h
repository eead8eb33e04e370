// PacketBatch: packets for one socket that nobody waits for, gathered and sent with one system call (sendmmsg(2)), or
// dropped and counted. It never blocks: what the socket does not take at once is lost.
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/fd.h"

namespace ktrunk::worker {

class PacketBatch {
 public:
  // bytes: of all packets that are gathered. The memory is not touched before there are some.
  PacketBatch(Fd socket, std::size_t bytes)
      : socket_(std::move(socket)), bytes_(bytes), memory_(std::make_unique_for_overwrite<std::byte[]>(bytes)) {}

  // Room for one more packet, to be filled before the next call; nothing if no batch could hold it. It may send those
  // that are there.
  [[nodiscard]] std::span<std::byte> add(std::size_t bytes);
  [[nodiscard]] bool empty() const { return count_ == 0; }
  void flush();

  // Since it began.
  [[nodiscard]] std::uint64_t sent() const { return sent_; }
  [[nodiscard]] std::uint64_t dropped() const { return dropped_; }

 private:
  static constexpr std::size_t kMost = 64;

  Fd socket_;
  std::size_t bytes_;
  std::unique_ptr<std::byte[]> memory_;
  std::size_t used_ = 0;
  std::size_t count_ = 0;
  std::array<iovec, kMost> parts_;
  std::array<mmsghdr, kMost> messages_;
  std::uint64_t sent_ = 0;
  std::uint64_t dropped_ = 0;
};

}  // namespace ktrunk::worker
