// Receiver: a home worker's side of its connections: octets from the kernel, records told apart (control_record.h),
// messages framed (RFC 3261 18.3) and handed on where they lie, without a copy when they arrived whole.
#pragma once

#include <sys/socket.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "base/result.h"
#include "ipc/estate.h"
#include "ipc/messages.h"
#include "ipc/shared_region.h"
#include "worker/connection.h"
#include "worker/fan_out.h"
#include "worker/partial.h"
#include "worker/ring.h"

namespace ktrunk::worker {

// What a stream can bring.
class StreamEvents {
 public:
  virtual ~StreamEvents() = default;
  // One whole message, and what the framer has found in it, complete or not. Both live during the call.
  virtual void on_message(Connection& connection, std::string_view message, const sip::HeaderIndex& index) = 0;
  // A double CRLF (RFC 5626 3.5.1): to be answered with one.
  virtual void on_ping(Connection& connection) = 0;
  // The stream cannot be framed any more. head: the octets of the message so far, as far as they can be used for an
  // answer; perhaps empty. The receiver says kBadFraming after this.
  virtual void on_malformed(Connection& connection, std::string_view head, int status, const char* reason) = 0;
  // Octets of a handshake record, for the handshake process. After the last ones of a record nothing is received (but
  // what the kernel has handed over already) until answered(). number: the completion's.
  virtual void on_handshake(Connection& connection, std::string_view octets, ControlRecords::Place place,
                            std::uint32_t number) = 0;
};

// Reads the error off the socket that a record which does not decrypt has left there (net/tls/tls_sw.c, tls_err_abort).
// Until then the kernel refuses every receive, and every send: also those that answer what came before, and the alert.
void read_error(const Connection& connection);

class Receiver {
 public:
  // in_use: buffers that predecessors' completions lie in.
  [[nodiscard]] static Result<std::unique_ptr<Receiver>> create(Ring& ring, const ipc::Estate& estate,
                                                                ChunkStore& chunks, ipc::WorkerStats& stats,
                                                                FanOut& fan_out, StreamEvents& events,
                                                                const std::function<bool(unsigned buffer)>& in_use);

  // Arms the connection's multishot receive, unless it is armed, or something is to be answered first; it stays armed
  // until an error, the end, a handshake record, or stop().
  void start_if_idle(Connection& connection);
  // A receive's completion, by its number (ipc/estate.h). A fault is reported once; nothing is received after it.
  [[nodiscard]] std::optional<StreamFault> completed(Connection& connection, int result, unsigned flags,
                                                     std::uint32_t number, Clock::time_point now);
  // One that a predecessor had not dealt with, but for the first `skip` octets of its data; before start_if_idle().
  [[nodiscard]] std::optional<StreamFault> inherited(Connection& connection, const ipc::Inherited& completion,
                                                     Clock::time_point now);
  // Messages that a predecessor had received and not dealt with; after those completions.
  [[nodiscard]] std::optional<StreamFault> inherited_partial(Connection& connection, Clock::time_point now);
  // All completions so far have been marked as seen.
  void settle() { partials_.settle(); }
  // The connection goes away, and what there is of a message with it.
  void forget(Connection& connection) { partials_.drop(connection); }
  // A handshake record has been answered: receives again, also what did not decrypt; or raises the fault that was
  // withheld for it.
  [[nodiscard]] std::optional<StreamFault> answered(Connection& connection, Clock::time_point now);
  // What was held back goes on, and receiving with it, unless it must be held back again.
  [[nodiscard]] std::optional<StreamFault> release(Connection& connection, Clock::time_point now);
  // For a completion whose connection is gone: its buffer goes back to the kernel.
  void discard(int result, unsigned flags);
  // Asks the kernel to end the armed receive; its last completion follows.
  void stop(Connection& connection);

 private:
  Receiver(Ring& ring, const ipc::Estate& estate, ChunkStore& chunks, ipc::WorkerStats& stats, FanOut& fan_out,
           StreamEvents& events);
  void start(Connection& connection);
  // What a completion brought.
  struct Arrival {
    std::uint32_t number;  // the completion's
    std::uint32_t skip;    // octets of its data that a predecessor has dealt with
    Clock::time_point now;
  };
  std::optional<StreamFault> take_record(Connection& connection, std::span<char> buffer, const Arrival& arrival);
  std::optional<StreamFault> take_data(Connection& connection, std::string_view octets, const Arrival& arrival);
  std::optional<StreamFault> take_partial(Connection& connection, Clock::time_point now);
  std::optional<StreamFault> take_control(Connection& connection, ktls::RecordType type, std::string_view octets,
                                          ControlRecords::Place place, const Arrival& arrival);
  // Hands on the whole messages of `octets` from `begin` on, each named in the hand before; done(end) is called behind
  // each. Returns the fault, if there is one.
  template <typename Done>
  std::optional<StreamFault> take_messages(Connection& connection, std::string_view octets, std::uint32_t begin,
                                           Done&& done);

  const ipc::Estate& estate_;
  Partials partials_;
  Ring& ring_;
  ipc::WorkerStats& stats_;
  FanOut& fan_out_;
  StreamEvents& events_;
  BufferRing* buffers_ = nullptr;  // the ring's
  sip::HeaderIndex index_;         // of the message that is being framed
  msghdr shape_{};                 // what every receive asks for: no address, room for one record type
};

}  // namespace ktrunk::worker
