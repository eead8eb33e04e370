// Caller: the side that begins transactions: a flood of requests, or calls (INVITE, ACK, BYE at once).
//
// Open loop (a rate): transaction k is due at begin + k / rate, whatever became of those before, and its latency counts
// from then: a server that stalls is charged for everything that should have been sent meanwhile (no coordinated
// omission). Closed loop (a concurrency): so many are in progress at any time; the next follows the last.
//
// Nothing is allocated for a message: transactions have places in a table, texts are patched templates.
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

#include "base/event_loop.h"
#include "bench/common/histogram.h"
#include "bench/io/stream.h"
#include "bench/load/message_templates.h"

namespace ktrunk::bench {

enum class Workload : std::uint8_t { kCalls, kMessages };

struct CallerOptions {
  Workload workload = Workload::kMessages;
  Method method = Method::kMessage;  // of a flood
  MessageShape shape;
  double rate = 0;                           // transactions (calls, requests) a second; 0: closed loop
  std::size_t concurrency = 64;              // closed loop: in progress at once; open loop: the most that may be
  std::chrono::milliseconds timeout{5'000};  // for the final response
};

// What has happened so far; ever growing.
struct CallerCounts {
  std::uint64_t begun = 0;     // transactions: calls, or requests of a flood
  std::uint64_t answered = 0;  // with 2xx; a call: INVITE and BYE both
  std::uint64_t failed = 0;    // with another final response
  std::uint64_t timeouts = 0;  // no final response in time
  std::uint64_t lost = 0;      // the connection ended meanwhile
  std::uint64_t messages_sent = 0;
  std::uint64_t messages_received = 0;
  std::uint64_t unexpected = 0;  // messages that belong to no transaction: late, twice, or not ours
  std::uint64_t connections_ended = 0;
};

class Caller final : public StreamUser {
 public:
  Caller(Reactor& reactor, CallerOptions options);

  // Before begin(): the connections to be used.
  void add(std::unique_ptr<Stream> stream);
  void begin(Clock::time_point now);
  // Latencies are recorded of transactions due from now on; troubles() are those from now on.
  void measure_from(Clock::time_point now);
  // No more transactions are begun.
  void stop() { running_ = false; }
  // Begins what is due, gives up what is overdue. After every turn of the loop.
  void proceed(Clock::time_point now);
  // When proceed() must be called again although nothing has happened.
  [[nodiscard]] Clock::time_point next_due(Clock::time_point now) const;
  // Ends the connections in order.
  void finish();

  [[nodiscard]] std::size_t in_progress() const { return in_progress_; }
  [[nodiscard]] std::size_t connections() const { return alive_.size(); }
  [[nodiscard]] const CallerCounts& counts() const { return counts_; }
  // From the time it was due: a request to its final response, an INVITE to its 2xx.
  [[nodiscard]] const Histogram& latency() const { return latency_; }
  // A BYE to its final response.
  [[nodiscard]] const Histogram& bye_latency() const { return bye_latency_; }
  // Of the answers since the last call.
  [[nodiscard]] Histogram take_interval();
  [[nodiscard]] std::optional<StreamKind> stream_kind() const;
  // Final responses other than 2xx by status code, and why the first connection ended; "" when none was.
  [[nodiscard]] std::string troubles() const;

  void on_octets(Stream& stream, std::string_view octets) override;
  void on_end(Stream& stream, const std::string& reason) override;

 private:
  enum class State : std::uint8_t { kFree, kRequesting, kInviting, kEnding };
  struct Slot {
    std::uint32_t generation = 0;
    State state = State::kFree;
    std::uint32_t connection = 0;
    Clock::time_point due{};  // of the transaction that is in progress
    Clock::time_point begun{};
  };
  struct Connection {
    std::unique_ptr<Stream> stream;
    Splitter splitter;
  };

  bool try_begin(std::uint32_t index, Clock::time_point due, Clock::time_point now);
  bool begin_on(Slot& slot, std::uint32_t index, Clock::time_point due, Clock::time_point now);
  void expire(Clock::time_point now);
  void free(Slot& slot, std::uint32_t index);
  void on_message(Connection& connection, std::string_view message, Clock::time_point now);
  void on_final(Connection& connection, Slot& slot, Tag tag, int status, std::string_view message,
                Clock::time_point now);
  bool send_in_dialog(Connection& connection, std::string_view response, Tag tag);

  Reactor& reactor_;
  CallerOptions options_;
  std::unique_ptr<RequestTemplate> request_;  // made with the first connection's address
  std::unique_ptr<DialogTemplate> dialog_;
  std::vector<Connection> connections_;
  std::vector<std::uint32_t> alive_;  // their numbers
  std::size_t next_alive_ = 0;
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> ready_;  // free slots
  std::size_t in_progress_ = 0;
  bool running_ = false;
  Clock::time_point begin_{};
  std::uint64_t scheduled_ = 0;  // open loop: transactions that were begun
  Clock::time_point expire_next_{};
  Clock::time_point measured_from_ = Clock::time_point::max();
  CallerCounts counts_;
  Histogram latency_;
  Histogram bye_latency_;
  Histogram interval_;
  std::array<std::uint64_t, 700> statuses_{};
  std::string first_end_;
};

}  // namespace ktrunk::bench
