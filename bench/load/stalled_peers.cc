#include "bench/load/stalled_peers.h"

#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "handshake/tcp_socket.h"

namespace ktrunk::bench {
namespace {

// What the kernel takes in for a program that does not read hides the stall.
constexpr int kReceiveBuffer = 16'384;
// Tags of requests that are not the caller's: nobody looks for their answers.
constexpr std::uint32_t kSlot = 0xfffffffe;

}  // namespace

void StalledPeers::add(std::unique_ptr<Stream> stream, Clock::time_point now) {
  (void)::setsockopt(stream->fd(), SOL_SOCKET, SO_RCVBUF, &kReceiveBuffer, sizeof kReceiveBuffer);
  if (request_ == nullptr) {
    shape_.sent_by = handshake::local_address(stream->fd()).text();
    request_ = std::make_unique<RequestTemplate>(shape_, method_);
  }
  stream->start(*this, number_++, Stream::Receiving::kNever);
  connections_.push_back({.stream = std::move(stream), .begin = now});
  next_ = now;
}

void StalledPeers::proceed(Clock::time_point now) {
  for (Connection& each : connections_) {
    if (!each.stream->ended()) continue;
    const int fd = each.stream->fd();
    reactor_.retire(std::move(each.stream), fd);
  }
  std::erase_if(connections_, [](const Connection& each) { return each.stream == nullptr; });
  if (now < next_) return;
  next_ = Clock::time_point::max();
  for (Connection& each : connections_) {
    const auto due_of = [&](std::uint64_t k) {
      const std::chrono::duration<double> after(static_cast<double>(k) / rate_);
      return each.begin + std::chrono::duration_cast<Clock::duration>(after);
    };
    for (; due_of(each.sent) <= now; ++each.sent) {
      // Where the proxy does not read either, what is due is not made up for.
      char* place = each.stream->reserve(request_->bytes());
      if (place == nullptr) continue;
      const auto count = static_cast<std::uint32_t>(++counts_.requests);
      request_->write(place, {.slot = kSlot, .generation = count, .method = method_});
      each.stream->commit(request_->bytes());
    }
    next_ = std::min(next_, due_of(each.sent));
  }
}

void StalledPeers::on_octets(Stream&, std::string_view) {}

void StalledPeers::on_end(Stream&, const std::string& reason) {
  if (++counts_.ended == 1) counts_.first_end = reason;
}

}  // namespace ktrunk::bench
