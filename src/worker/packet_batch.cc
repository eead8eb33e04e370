#include "worker/packet_batch.h"

#include <cerrno>

namespace ktrunk::worker {

std::span<std::byte> PacketBatch::add(std::size_t bytes) {
  if (bytes > bytes_) {
    ++dropped_;
    return {};
  }
  if (count_ == kMost || used_ + bytes > bytes_) flush();
  const std::span<std::byte> room(memory_.get() + used_, bytes);
  parts_[count_] = {room.data(), room.size()};
  messages_[count_] = {};
  messages_[count_].msg_hdr.msg_iov = &parts_[count_];
  messages_[count_].msg_hdr.msg_iovlen = 1;
  used_ += bytes;
  ++count_;
  return room;
}

void PacketBatch::flush() {
  std::size_t done = 0;
  while (done < count_) {  // every round is done with one or more
    const int sent =
        ::sendmmsg(socket_.get(), &messages_[done], static_cast<unsigned>(count_ - done), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) {
      done += static_cast<std::size_t>(sent);
      sent_ += static_cast<std::size_t>(sent);
      continue;
    }
    // Full, or nobody is there: the others would fare alike. Else it may be this one's size, or the error of an earlier
    // one that the network has told of since.
    const bool all = errno == EAGAIN || errno == ENOBUFS || errno == EPIPE;
    const std::size_t lost = all ? count_ - done : 1;
    dropped_ += lost;
    done += lost;
  }
  used_ = 0;
  count_ = 0;
}

}  // namespace ktrunk::worker
