// Numbers that a request has, for the branch that a stateless proxy computes (RFC 3261 16.11 and 16.6 step 8, RFC 5393
// 4.2): which transaction it belongs to, and what its way depends on. Both are the same for an INVITE, its
// retransmissions, its CANCEL and the ACK to its non-2xx response, whichever connection of a trunk they come by. Keyed,
// so that strangers cannot make collisions. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "sip/flow_token.h"
#include "sip/message.h"
#include "sip/via.h"

namespace ktrunk::sip {

// From the top Via's branch and sent-by; for peers of RFC 2543, without a magic cookie, from the fields of 17.2.3.
[[nodiscard]] std::uint64_t transaction_hash(const Message& request, const Via& top_via, const TokenKey& key);

// The To tag of our own answers to a transaction (RFC 3261 8.2.7): the same for a retransmission, and in the ACK, which
// is for us alone then.
class OwnTag {
 public:
  explicit OwnTag(std::uint64_t transaction);
  [[nodiscard]] std::string_view view() const { return {digits_.data(), digits_.size()}; }

 private:
  std::array<char, 16> digits_;
};

// A request that comes again with the same number goes round in a circle; one that comes again with another (its
// Request-URI rewritten, its Route shorter, from another peer) is a spiral, which is allowed (RFC 3261 16.3 step 4).
// The To tag stays out, for the ACK has one that its INVITE had not; so does the method.
// to: the trunk that it goes to; invalid for a stranger's flow.
[[nodiscard]] std::uint32_t loop_hash(const Message& request, const Flow& source, TrunkId to, const TokenKey& key);

// Who is at the other end of a flow: the trunk, whichever its connection; the connection of a stranger; the IP address
// behind a UDP socket of ours (RFC 3581 4: a response comes from where its request went).
[[nodiscard]] std::uint32_t peer_hash(const Flow& flow, const TokenKey& key);

}  // namespace ktrunk::sip
