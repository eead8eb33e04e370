// Forwarder: the least that a message costs which a process takes from one connection and puts on another: octets are
// copied between pairs of connections, with ktrunkd's ring, records and batching, and nobody looks at them: no framing,
// no parsing, no routing.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "bench/common/endpoint.h"
#include "bench/io/opening.h"
#include "bench/io/stream.h"

namespace ktrunk::bench {

// For each connection that it accepts it makes one to the next hop. Runs in a process of its own.
class Forwarder final : public StreamUser {
 public:
  struct Options {
    Endpoint next_hop;  // its transport is that of both sides
    TlsSettings tls;
  };
  // Returns when the last pair has ended, or on an error.
  [[nodiscard]] static Status run(const Options& options, Fd listening);

  void on_octets(Stream& stream, std::string_view octets) override;
  void on_end(Stream& stream, const std::string& reason) override;

 private:
  struct Pair {
    std::unique_ptr<Stream> ends[2];
  };
  explicit Forwarder(const Options& options) : options_(options) {}
  [[nodiscard]] Status serve(Fd listening);
  void accepted(std::unique_ptr<Stream> stream);

  const Options& options_;
  std::optional<handshake::TlsContext> accepting_;
  std::optional<handshake::TlsContext> connecting_;
  ktls::Support support_;
  std::vector<Pair> pairs_;
  std::size_t ended_ = 0;
  Status failure_;
  std::unique_ptr<Opener> opener_;
  std::unique_ptr<Reactor> reactor_;  // goes first
};

}  // namespace ktrunk::bench
