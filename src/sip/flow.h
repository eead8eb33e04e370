// Flow: a way to a peer (RFC 5626 3.2). A value; whether the connection still lives is for the worker to find out.
#pragma once

#include "base/address.h"
#include "base/id.h"
#include "config/config.h"

namespace ktrunk::sip {

// A stream connection, or a UDP listener's socket and the peer's address.
struct Flow {
  config::Transport transport = config::Transport::kTls;
  ConnectionId connection;  // streams; invalid for UDP
  TrunkId trunk;            // the trunk whose peer this is; invalid for strangers
  ListenerId listener;      // the listener accepted on, or the one whose address we show to this peer
  Address remote;
};

}  // namespace ktrunk::sip
