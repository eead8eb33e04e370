// Which transaction a request belongs to, as a number (RFC 3261 16.11: a stateless proxy computes its branch).
#pragma once

#include <cstdint>

#include "sip/flow_token.h"
#include "sip/message.h"
#include "sip/via.h"

namespace ktrunk::sip {

// The same for an INVITE, its retransmissions, its CANCEL and the ACK to its non-2xx response; different for others.
// From the top Via's branch and sent-by; for peers of RFC 2543, without a magic cookie, from the fields of 17.2.3.
// Keyed, so that strangers cannot make collisions.
[[nodiscard]] std::uint64_t transaction_hash(const Message& request, const Via& top_via, const TokenKey& key);

}  // namespace ktrunk::sip
