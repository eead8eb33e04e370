// Peer: whom the designs send to: one program that accepts their connections and looks at every message: whether it is
// whole, whose it is, whether any is missing, and how long it took.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "bench/common/histogram.h"
#include "bench/designs/shared_state.h"
#include "bench/io/opening.h"
#include "bench/io/stream.h"

namespace ktrunk::bench {

class Peer final : public StreamUser {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Peer>> create(const TlsSettings& tls, const ktls::Support& support,
                                                            std::size_t message_bytes);
  ~Peer() override;

  [[nodiscard]] const Endpoint& endpoint() const { return endpoint_; }
  // Receives for so long.
  [[nodiscard]] Status receive(std::chrono::milliseconds time);
  // The latencies so far are forgotten.
  void forget_latencies() { latency_.clear(); }

  [[nodiscard]] std::uint64_t messages() const { return messages_; }
  [[nodiscard]] const Histogram& latency() const { return latency_; }  // from when a message was due
  // Streams on which something arrived that is not the next message of its worker. Nothing more is read there.
  [[nodiscard]] unsigned broken() const { return broken_; }
  [[nodiscard]] unsigned connections() const { return connections_; }    // open now
  [[nodiscard]] const std::string& failure() const { return failure_; }  // of the first handshake that failed
  [[nodiscard]] std::optional<StreamKind> kind() const;

  void on_octets(Stream& stream, std::string_view octets) override;
  void on_end(Stream& stream, const std::string& reason) override;

 private:
  explicit Peer(std::size_t message_bytes) : message_bytes_(message_bytes) {}
  struct Connection {
    std::unique_ptr<Stream> stream;
    std::vector<char> partial;
    bool ended = false;
  };
  bool take(const char* message, std::uint64_t now);

  std::size_t message_bytes_;
  Endpoint endpoint_;
  std::optional<handshake::TlsContext> context_;
  std::vector<Connection> accepted_;
  std::array<std::uint64_t, kMaxDesignWorkers> next_{};  // number of each worker's next message
  std::uint64_t messages_ = 0;
  Histogram latency_;
  unsigned broken_ = 0;
  unsigned connections_ = 0;
  std::string failure_;
  std::unique_ptr<Opener> opener_;
  std::unique_ptr<Reactor> reactor_;  // goes first
};

}  // namespace ktrunk::bench
