#include "worker/datagrams.h"

#include <netinet/in.h>

#include "base/log.h"

namespace ktrunk::worker {
namespace {

constexpr std::uint16_t kDatagramBuffers = 2;  // buffer group
constexpr std::size_t kMaxDatagramBytes = 65536;
static_assert(sizeof(io_uring_recvmsg_out) + sizeof(sockaddr_in6) + 4 + kMaxDatagramBytes <=
              ipc::Estate::kDatagramBufferBytes);

}  // namespace

Status Datagrams::add(ListenerId listener, Fd fd, const std::function<bool(unsigned)>& in_use) {
  if (buffers_ == nullptr) {
    shape_.msg_namelen = sizeof(sockaddr_in6);
    auto buffers = ring_.add_buffers(kDatagramBuffers, ipc::Estate::kDatagramBuffers, ipc::Estate::kDatagramBufferBytes,
                                     estate_.datagram_buffers(), in_use);
    if (!buffers) return std::unexpected(buffers.error());
    buffers_ = *buffers;
  }
  sockets_.push_back(std::make_unique<DatagramSocket>(DatagramSocket{listener, std::move(fd)}));
  return {};
}

void Datagrams::begin() {
  for (unsigned index = 0; index < sockets_.size(); ++index) receive(index);
}

void Datagrams::take_in_hand(std::string_view octets, std::uint32_t number) {
  ipc::Hand& hand = estate_.hand();
  hand.connection.store(0, std::memory_order_release);
  hand.partial.store(0, std::memory_order_release);
  hand.place.store(estate_.place_of(octets.data()), std::memory_order_release);
  hand.progress.store(std::uint64_t{number} << 32, std::memory_order_release);
  hand.message.store(std::uint64_t{octets.size()} << 32 | octets.size(), std::memory_order_release);
}

const DatagramSocket* Datagrams::socket(ListenerId listener) const {
  for (const auto& socket : sockets_) {
    if (socket->listener == listener) return socket.get();
  }
  return nullptr;
}

void Datagrams::receive(unsigned index) {
  io_uring_sqe* sqe = ring_.prepare({OperationKind::kDatagrams, index});
  io_uring_prep_recvmsg_multishot(sqe, sockets_[index]->fd.get(), &shape_, 0);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = buffers_->group();
}

std::pair<Address, std::string_view> Datagrams::take(unsigned buffer, int result) {
  io_uring_recvmsg_out* out = io_uring_recvmsg_validate(buffers_->data(buffer), result, &shape_);
  if (out == nullptr || (out->flags & MSG_TRUNC) != 0 || out->namelen > sizeof(sockaddr_in6)) return {};
  const Address from = Address::from_sockaddr(static_cast<const sockaddr*>(io_uring_recvmsg_name(out)), out->namelen);
  return {from,
          {static_cast<const char*>(io_uring_recvmsg_payload(out, &shape_)),
           io_uring_recvmsg_payload_length(out, result, &shape_)}};
}

char* Datagrams::reserve(std::size_t bytes) {
  if (free_.empty()) {
    free_.push_back(static_cast<unsigned>(sends_.size()));
    sends_.push_back(std::make_unique<Send>());
  }
  reserved_ = free_.back();
  Send& send = *sends_[reserved_];
  if (send.octets.size() < bytes) send.octets.resize(bytes);
  return send.octets.data();
}

void Datagrams::commit(const DatagramSocket& socket, const Address& to, std::size_t bytes) {
  free_.pop_back();
  Send& send = *sends_[reserved_];
  send.to = to;
  send.part = {send.octets.data(), bytes};
  send.header = {};
  send.header.msg_name = &send.to;
  send.header.msg_namelen = to.size();
  send.header.msg_iov = &send.part;
  send.header.msg_iovlen = 1;
  io_uring_sqe* sqe = ring_.prepare({OperationKind::kDatagramSend, reserved_});
  io_uring_prep_sendmsg(sqe, socket.fd.get(), &send.header, MSG_NOSIGNAL);
}

void Datagrams::sent(unsigned index, int result) {
  // ICMP errors of earlier datagrams and the like: UDP promises nothing, the sender's timers repair it.
  if (result < 0) log::debug("datagram to {} not sent: {}", sends_[index]->to.text(), errno_text(-result));
  free_.push_back(index);
}

}  // namespace ktrunk::worker
