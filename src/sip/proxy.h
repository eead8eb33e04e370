// Proxy: what to do with one SIP message (RFC 3261 16 and 18, stateless), as pure decisions. The worker performs them.
//
//   request:  decide(request, source) -> Reply | Drop | ToTrunk | ToFlow
//             the worker picks a connection for it (or answers 503), then
//             forward_request(request, source, destination, edits) -> the bytes to send, as edits of the original
//   response: decide(response, source) -> ToFlow | Drop, edits filled in: our Via popped
//
// What a response or an in-dialog request needs in order to come back is in the message itself: the flow it came by,
// as a token under a key that all workers share (flow_token.h). So any worker can handle any message.
//
// Nothing here allocates but the constructor and build_reply (into the caller's string).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/address.h"
#include "base/id.h"
#include "config/config.h"
#include "sip/edits.h"
#include "sip/flow.h"
#include "sip/flow_token.h"
#include "sip/message.h"
#include "sip/own_addresses.h"
#include "sip/route_table.h"

namespace ktrunk::sip {

struct Via;

struct Reply {
  int status;
  std::string_view reason;         // static storage, or the Proxy's
  std::string_view extra_headers;  // whole lines with CRLF, static storage; or empty
};
struct Drop {
  const char* why;  // static storage, for the log and the counters
};
// Whether the next hop must be TLS: a sips URI says so (RFC 5630 3.1.3). If the one that is found is not,
// refuse_sips().
enum class Needs : std::uint8_t { kAnyTransport, kTls };
struct ToTrunk {
  const config::Route* route;  // to: its trunks, the first that is up; lives as long as the Proxy
  std::uint64_t affinity;      // equal for the messages of one transaction: picks among the trunk's connections
  Needs needs = Needs::kAnyTransport;
};
struct ToFlow {
  // As the token had it; remote is set for UDP only. Of a response to a trunk: transport and listener are not known,
  // and the connection, from outside the MAC, counts only if it is one of the trunk's.
  Flow flow;
  std::uint64_t affinity;  // as above, for when the flow's connection is gone and its trunk has another
  Needs needs = Needs::kAnyTransport;
};
using Decision = std::variant<Reply, Drop, ToTrunk, ToFlow>;

class Proxy {
 public:
  // config must outlive the proxy. key: shared by all workers of this ktrunkd.
  Proxy(const config::Config& config, const TokenKey& key);

  // What to do with a well-framed message, sound or not. edits is cleared, and filled in for a response that is
  // forwarded: size() and write() of message.bytes() give what to send. Never a Reply to an ACK or a response.
  [[nodiscard]] Decision decide(const Message& message, const Flow& source, Edits& edits) const;

  // What answers a request whose next hop is not TLS although it must be.
  [[nodiscard]] static Decision refuse_sips(const Message& request);

  // The edits that make the request ready for its next hop: Via pushed, received/rport set (RFC 3581), Max-Forwards
  // counted down, our own Route popped, a strict router's URI made the Request-URI (16.6 step 6), Record-Route added on
  // dialog-forming requests (two when the transport or the listener changes, RFC 5658), Content-Length added where a
  // datagram had none; and what the route that sent it on changes (null: there was none, it follows its dialog). For a
  // request that decide() sent on. edits is cleared first. edits.failed(): it cannot be forwarded (a host name too long
  // for the edits, or too many header fields to remove); answer 500. source.remote must be set, also for streams;
  // destination.listener is the one whose address we show.
  // affinity: the decision's, where it is known; it is worked out again otherwise.
  // carrier: the flow to the same peer that carries this one request in destination's stead (RFC 3261 18.1.1), which
  // the Via names; null: destination does. A dialog goes by destination.
  void forward_request(const Message& request, const Flow& source, const Flow& destination, Edits& edits,
                       const config::Route* route = nullptr, std::optional<std::uint64_t> affinity = std::nullopt,
                       const Flow* carrier = nullptr) const;

  // The reply to a request as bytes (RFC 3261 8.2.6), appended to out. Nothing is appended for an ACK, a response, or
  // something without a Via to answer to. A 420 gets its Unsupported from the request's Proxy-Require.
  void build_reply(const Message& request, const Flow& source, const Reply& reply, std::string& out) const;

 private:
  [[nodiscard]] Decision decide_request(const Message& request, const Flow& source) const;
  [[nodiscard]] Decision decide_response(const Message& response, const Flow& source, Edits& edits) const;
  [[nodiscard]] bool was_here(const Message& request, const Flow& source, std::span<const TrunkId> to) const;
  void add_via(const Message& request, const Flow& source, const Flow& destination, std::uint64_t transaction,
               std::size_t offset, Edits& edits) const;
  void add_record_route(std::string_view scheme, const Flow& source, const Flow& destination, std::size_t offset,
                        Edits& edits) const;

  // Who a response must come from: the trunk, if its peers are known whatever their address; else the connection or
  // address.
  [[nodiscard]] std::uint32_t peer_of(const Flow& flow) const;

  TokenKey key_;
  struct TrunkPeer {
    std::uint32_t hash;  // peer_hash() of its streams
    bool has_sources;
  };
  std::vector<TrunkPeer> trunk_peers_;
  config::Limits limits_;
  RouteTable routes_;
  OwnAddresses own_;
};

// RFC 3261 18.1.1: a larger request is not to go in a datagram. path_mtu: what is known of the way; 0: nothing. A large
// one is the MTU of our own link and says nothing of those behind it, until one of them has said that it is less.
inline constexpr std::size_t kMostDatagramRequestBytes = 1300;
[[nodiscard]] constexpr std::size_t most_datagram_request_bytes(std::size_t path_mtu) {
  constexpr std::size_t kDistance = 200;
  if (path_mtu == 0 || path_mtu >= kMostDatagramRequestBytes + kDistance) return kMostDatagramRequestBytes;
  return path_mtu <= kDistance ? 0 : path_mtu - kDistance;
}

// Where a reply to a request that came over UDP goes (RFC 3261 18.2.2, RFC 3581); source.remote when its Via is broken.
[[nodiscard]] Address reply_address(const Message& request, const Flow& source);

}  // namespace ktrunk::sip
