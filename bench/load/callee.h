// Callee: the side that answers: INVITE with 100, 180 and 200, every other request with 200, an ACK with nothing. It
// keeps no state: each response is made from its request (RFC 3261 8.2.6.2) and padded like the requests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "bench/io/stream.h"

namespace ktrunk::bench {

struct CalleeCounts {
  std::uint64_t requests = 0;
  std::uint64_t responses = 0;
  std::uint64_t dropped = 0;      // responses for which the connection's queue had no room
  std::uint64_t unexpected = 0;   // responses, and requests that cannot be answered
  std::uint64_t connections = 0;  // ever
  [[nodiscard]] std::uint64_t messages_received() const { return requests + unexpected; }
};

class Callee final : public StreamUser {
 public:
  // message_bytes: to which responses to floods and the 200 to an INVITE are padded.
  Callee(Reactor& reactor, std::size_t message_bytes) : reactor_(reactor), message_bytes_(message_bytes) {}

  void add(std::unique_ptr<Stream> stream);
  [[nodiscard]] std::size_t connections() const { return alive_; }
  [[nodiscard]] const CalleeCounts& counts() const { return counts_; }
  // Ends the connections in order.
  void finish();

  void on_octets(Stream& stream, std::string_view octets) override;
  void on_end(Stream& stream, const std::string& reason) override;

 private:
  struct Connection {
    std::unique_ptr<Stream> stream;
    Splitter splitter;
    bool ended = false;
  };
  void on_message(Stream& stream, std::string_view message);

  Reactor& reactor_;
  std::size_t message_bytes_;
  std::vector<Connection> connections_;
  std::size_t alive_ = 0;
  CalleeCounts counts_;
};

// Writes a response to a request, at most `room` octets; returns how many, 0 when it does not fit or the request has
// not what a response needs. padded: the whole length to reach, if it is less.
[[nodiscard]] std::size_t write_response(char* to, std::size_t room, std::string_view request, int status,
                                         std::size_t padded);

}  // namespace ktrunk::bench
