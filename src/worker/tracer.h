// Tracer: copies of SIP messages, as they are outside TLS, for those who watch: the HEP collector (config::Hep), for a
// share of the calls, and `ktrunk trace` (ipc/trace.h), for all messages of a trunk. A call is whatever has one
// Call-ID: its hash decides, so that every worker, and every ktrunkd with the same share, picks the same calls.
//
// Nobody waits for a watcher: packets are gathered during a turn of the loop, sent when the turn's SIP messages are on
// their way, and dropped and counted where a socket does not take them. While nobody watches, active() is all that a
// message costs.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "config/config.h"
#include "ipc/shared_region.h"
#include "ipc/trace.h"
#include "sip/flow.h"
#include "worker/hep.h"
#include "worker/packet_batch.h"

namespace ktrunk::worker {

// True for about `share` of all Call-IDs, for those of a smaller share also in every larger one.
[[nodiscard]] bool is_sampled(config::Share share, std::string_view call_id);

class Tracer {
 public:
  // collector: the socket connected to config.hep.collector, if there is one. All others outlive it.
  Tracer(const config::Config& config, const ipc::SharedRegion& region, WorkerIndex self, Fd collector);

  [[nodiscard]] bool active() const { return active_; }

  // The supervisor's orders. Traces with a place that cannot be are passed over.
  void begin(const ipc::Trace& trace, Fd socket);
  void end(const ipc::TraceEnd& trace);

  // A message that came from there, or goes there. The second form looks for the Call-ID itself.
  void received(const sip::Flow& from, std::string_view call_id, std::string_view octets) {
    tell(from, call_id, octets, ipc::TraceHead::Direction::kReceived);
  }
  void sent(const sip::Flow& to, std::string_view call_id, std::string_view octets) {
    tell(to, call_id, octets, ipc::TraceHead::Direction::kSent);
  }
  void sent(const sip::Flow& to, std::string_view octets);

  // Packets wait for flush().
  [[nodiscard]] bool pending() const { return pending_; }
  void flush();

 private:
  using Direction = ipc::TraceHead::Direction;
  struct Watch {
    Watch(TrunkId its_trunk, Fd socket, std::size_t bytes) : trunk(its_trunk), batch(std::move(socket), bytes) {}
    TrunkId trunk;
    PacketBatch batch;
    std::uint64_t sent = 0;  // of the batch's, counted already
    std::uint64_t dropped = 0;
  };
  struct Export {
    Export(const config::Hep& hep, Fd socket);
    HepEncoder encoder;
    PacketBatch batch;
    std::uint64_t sent = 0;
    std::uint64_t dropped = 0;
  };

  void tell(const sip::Flow& flow, std::string_view call_id, std::string_view octets, Direction direction);
  void tell_collector(const ipc::TraceHead& head, std::string_view octets);
  void tell_watch(Watch& watch, const ipc::TraceHead& head, std::string_view octets);
  [[nodiscard]] Address local_of(const sip::Flow& flow) const;
  void look_who_watches();

  const config::Config& config_;
  const ipc::SharedRegion& region_;
  WorkerIndex self_;
  ipc::WorkerStats& stats_;
  std::vector<Address> own_;  // by listener: where its datagrams come to and from
  std::unique_ptr<Export> export_;
  std::array<std::unique_ptr<Watch>, ipc::kMaxTraces> watches_;
  bool active_ = false;
  bool pending_ = false;
};

}  // namespace ktrunk::worker
