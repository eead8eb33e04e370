// MessageHandler: one SIP message from arrival to departure: parse, decide (sip/proxy.h), pick the connection or the
// datagram socket, write the edited message into its send queue. This is the path that the README's "follow one
// message" walks along.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "config/config.h"
#include "ipc/shared_region.h"
#include "sip/message.h"
#include "sip/proxy.h"
#include "worker/admission.h"
#include "worker/connection.h"
#include "worker/connection_table.h"
#include "worker/datagram_peers.h"
#include "worker/datagrams.h"
#include "worker/large_requests.h"
#include "worker/sender.h"
#include "worker/tracer.h"
#include "worker/waiting_room.h"

namespace ktrunk::worker {

class MessageHandler {
 public:
  MessageHandler(const config::Config& config, const ipc::SharedRegion& region, WorkerIndex self,
                 ConnectionTable& connections, Sender& sender, WaitingRoom& waiting, Datagrams& datagrams,
                 Tracer& tracer);

  // A whole message that arrived by `source`. carrier says whether octets behind its body may be there. index: what the
  // framer has found in it, complete or not.
  void handle(std::string_view octets, const sip::Flow& source, sip::Carrier carrier,
              const sip::HeaderIndex& index = sip::kNoIndex);
  // The start of a message that cannot be framed: answered if it is a request that can be.
  void refuse(std::string_view head, const sip::Flow& source, int status, const char* reason);
  // From now on what would begin a dialog, or asks whether we are there, is answered 503.
  void drain() { draining_ = true; }
  // One CRLF, the answer to a keepalive.
  void pong(Connection& connection);
  // What waits for a trunk goes out if the trunk has a connection, or is given back if it will have none: requests are
  // answered 503 where they came from.
  void serve_waiting(Clock::time_point now);
  // About once a second: what is counted for all workers.
  void tick(Clock::time_point now) const {
    admission_.tick(self_, now);
    large_.tick(self_, now);
  }

  // The flow that a connection is, and that of a datagram that came to this listener.
  [[nodiscard]] static sip::Flow flow_of(const Connection& connection);
  [[nodiscard]] sip::Flow flow_of(ListenerId listener, const Address& from) const;

 private:
  // Where a message can go: one of the three, or none when there is no way.
  struct Hop {
    Connection* connection = nullptr;
    const DatagramSocket* socket = nullptr;
    TrunkId awaited;  // the trunk whose next connection is to be waited for
    sip::Flow flow;
    [[nodiscard]] bool usable() const { return connection != nullptr || socket != nullptr || awaited.valid(); }
  };

  void perform(const sip::Reply& reply, const sip::Flow& source);
  void perform(const sip::Drop& drop, const sip::Flow& source);
  void perform(const sip::ToTrunk& way, const sip::Flow& source);
  void perform(const sip::ToFlow& way, const sip::Flow& source);

  // route: the one that sent it on; null inside a dialog.
  void forward(Hop hop, sip::Needs needs, std::uint64_t affinity, const sip::Flow& source, const config::Route* route);
  [[nodiscard]] bool has_room(const Hop& hop, std::size_t bytes) const;
  [[nodiscard]] bool has_room_for_response(const Hop& hop, std::size_t bytes) const;
  void put(const Hop& hop);
  // Tells those who watch, if anybody does, of what message_ is, or has led to.
  void trace_received(std::string_view octets, const sip::Flow& source) {
    if (tracer_.active()) tracer_.received(source, message_.value(sip::HeaderId::kCallId), octets);
  }
  void trace_sent(const char* octets, std::size_t bytes, const sip::Flow& to) {
    if (tracer_.active()) tracer_.sent(to, message_.value(sip::HeaderId::kCallId), {octets, bytes});
  }
  void trace_waiting(const BlockQueue& blocks, const Connection& connection);
  void drop(const char* why, const sip::Flow& source);
  void refuse(int status, std::string_view reason, const sip::Flow& source);
  void reply_unavailable(const char* reason, const sip::Flow& source);
  [[nodiscard]] bool comes_too_late() const;

  void turn_away(config::Strangers how, const sip::Flow& source);
  [[nodiscard]] bool take_answer_to_ping(const sip::Flow& source) const;

  [[nodiscard]] Connection* find(ConnectionId id) const;
  [[nodiscard]] Hop hop_to(const sip::Flow& flow) const;
  [[nodiscard]] Hop hop_to_one_of(const config::Route& route, std::uint64_t affinity, sip::Needs needs);
  [[nodiscard]] Hop hop_to_trunk(TrunkId trunk, std::uint64_t affinity);
  // By one of the trunk's open connections, as open_connection() chooses; no way when there is none.
  [[nodiscard]] Hop hop_by_connection(TrunkId trunk, std::uint64_t affinity, const Address& to = {}) const;
  // One of the trunk's open connections, with a peer of this IP address unless it is empty; null when there is none.
  [[nodiscard]] Connection* open_connection(TrunkId trunk, std::uint64_t affinity, const Address& to = {}) const;
  void send_waiting(TrunkId trunk, Connection& connection);
  void give_back(TrunkId trunk, const Block& block);
  void give_back(std::string_view message, const sip::Flow& trunk);

  const config::Config& config_;
  const ipc::SharedRegion& region_;
  WorkerIndex self_;
  ipc::WorkerStats& stats_;
  ConnectionTable& connections_;
  Sender& sender_;
  WaitingRoom& waiting_;
  Datagrams& datagrams_;
  Tracer& tracer_;
  Admission admission_;
  LargeRequests large_;
  DatagramPeers datagram_peers_;
  sip::TokenKey key_;
  sip::Proxy proxy_;
  sip::Message message_;  // parsed into again and again
  sip::Edits edits_;
  std::string reply_;
  bool draining_ = false;
};

}  // namespace ktrunk::worker
