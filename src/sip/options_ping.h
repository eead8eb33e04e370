// OPTIONS that ktrunk itself asks a trunk's peer with (RFC 3261 11), to see whether it serves. Stateless: what an
// answer is for stands in the branch, with a MAC under the workers' key, so that any worker can take it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "sip/flow.h"
#include "sip/flow_token.h"
#include "sip/message.h"

namespace ktrunk::sip {

// Whom it is for: the trunk, and the place of a UDP target, or kConnection where the connection says it.
struct PingSubject {
  static constexpr std::uint16_t kConnection = 0xffff;
  TrunkId trunk;
  std::uint16_t target = kConnection;
};

// The request. to: the peer's flow, remote set; sent_by: our "HOST:PORT" for it; number: another one each time.
[[nodiscard]] std::string options_ping(const PingSubject& subject, const Flow& to, std::string_view sent_by,
                                       std::uint64_t number, const TokenKey& key);

// What a response answers; none if it is not one to a ping of ours.
[[nodiscard]] std::optional<PingSubject> ping_answered(const Message& response, const TokenKey& key);

// Whether the peer that answers so serves: any final response but those by which it, or who stands before it, says that
// it does not at the moment (408, 503, 504).
[[nodiscard]] constexpr bool is_alive(int status) {
  return status >= 200 && status != 408 && status != 503 && status != 504;
}

}  // namespace ktrunk::sip
