// Proxy: what to do with one SIP message (RFC 3261 16 and 18, stateless), as pure decisions. The worker performs them.
//
//   request:  decide(request, source) -> Reply | Drop | ToTrunk | ToFlow
//             the worker picks a connection for it (or answers 503), then
//             forward_request(request, source, destination, edits) -> the bytes to send, as edits of the original
//   response: decide(response, source) -> ToFlow | Drop, edits filled in: our Via popped
//
// What a response or an in-dialog request needs in order to come back is in the message itself: the flow it came by,
// as a token under a key that all workers share (flow_token.h). So any worker can handle any message.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "base/address.h"
#include "base/id.h"
#include "config/config.h"
#include "sip/edits.h"
#include "sip/flow_token.h"
#include "sip/message.h"
#include "sip/route_table.h"

namespace ktrunk::sip {

// A way to a peer: a stream connection, or a UDP listener's socket and the peer's address.
struct Flow {
  config::Transport transport = config::Transport::kTls;
  ConnectionId connection;  // streams; invalid for UDP
  TrunkId trunk;            // the trunk whose peer this is; invalid for strangers
  ListenerId listener;      // the listener accepted on, or the one whose address we show to this peer
  Address remote;
};

struct Reply {
  int status;
  std::string_view reason;
  std::string_view extra_headers;  // whole lines with CRLF, static storage; or empty
};
struct Drop {
  const char* why;  // static storage, for the log and the counters
};
struct ToTrunk {
  TrunkId trunk;
  std::uint64_t affinity;  // equal for the messages of one transaction: picks among the trunk's connections
};
struct ToFlow {
  Flow flow;               // as the token had it; remote is set for UDP only
  std::uint64_t affinity;  // as above, for when the flow's connection is gone and its trunk has another
};
using Decision = std::variant<Reply, Drop, ToTrunk, ToFlow>;

class Proxy {
 public:
  // config must outlive the proxy. key: shared by all workers of this ktrunkd.
  Proxy(const config::Config& config, const TokenKey& key);

  // What to do with a well-framed message. edits is cleared, and filled in for a response that is forwarded.
  [[nodiscard]] Decision decide(const Message& message, const Flow& source, Edits& edits) const;

  // The edits that make the request ready for its next hop: Via pushed, received/rport set (RFC 3581), Max-Forwards
  // counted down, our own Route popped, Record-Route added on dialog-forming requests (two when the transport or the
  // listener changes, RFC 5658).
  void forward_request(const Message& request, const Flow& source, const Flow& destination, Edits& edits) const;

  // The reply to a request as bytes (RFC 3261 8.2.6), appended to out; nothing is appended for an ACK.
  void build_reply(const Message& request, const Flow& source, const Reply& reply, std::string& out) const;
  // (private members as the implementation needs)
};

}  // namespace ktrunk::sip
