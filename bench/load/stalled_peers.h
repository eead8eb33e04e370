// Stalled peers: connections that send requests at a steady rate and read nothing of what comes back, as a peer does
// whose program hangs. What they cost everybody else is to be seen in the caller's latencies. One that the proxy gives
// up is counted; whoever runs this opens another in its place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/event_loop.h"
#include "bench/io/stream.h"
#include "bench/load/message_templates.h"

namespace ktrunk::bench {

struct StalledCounts {
  std::uint64_t requests = 0;  // written; those that the proxy no longer takes among them
  std::uint64_t ended = 0;     // connections
  std::string first_end;
};

class StalledPeers final : public StreamUser {
 public:
  // rate: requests a second of each peer.
  StalledPeers(Reactor& reactor, const MessageShape& shape, Method method, double rate)
      : reactor_(reactor), shape_(shape), method_(method), rate_(rate) {}

  void add(std::unique_ptr<Stream> stream, Clock::time_point now);
  // Sends what is due. After every turn of the loop.
  void proceed(Clock::time_point now);
  [[nodiscard]] Clock::time_point next_due() const { return next_; }
  [[nodiscard]] std::size_t connections() const { return connections_.size(); }
  [[nodiscard]] const StalledCounts& counts() const { return counts_; }

  void on_octets(Stream& stream, std::string_view octets) override;
  void on_end(Stream& stream, const std::string& reason) override;

 private:
  struct Connection {
    std::unique_ptr<Stream> stream;
    Clock::time_point begin;
    std::uint64_t sent = 0;
  };

  Reactor& reactor_;
  MessageShape shape_;
  Method method_;
  double rate_;
  std::unique_ptr<RequestTemplate> request_;  // made with the first connection's address
  std::vector<Connection> connections_;
  std::uint32_t number_ = 0;
  Clock::time_point next_ = Clock::time_point::max();
  StalledCounts counts_;
};

}  // namespace ktrunk::bench
