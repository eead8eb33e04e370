// Validation (RFC 3261 16.3 and 18.1.2): whether a message has what a proxy needs of it, and what that is.
#pragma once

#include <cstddef>
#include <optional>

#include "config/config.h"
#include "sip/message.h"
#include "sip/uri.h"
#include "sip/via.h"

namespace ktrunk::sip {

// Valid after check_* returned no defect, as long as the message is.
struct RequestFacts {
  Via top_via;
  Uri uri;
  std::optional<unsigned> max_forwards;
  bool to_has_tag = false;  // inside a dialog
  std::size_t vias = 0;     // how many Via values
};

// In the order of 16.3: syntax and the operator's limits (400, 505, 513), scheme (416). Later steps depend on who asks
// and are Proxy's.
[[nodiscard]] Message::Defect check_request(const Message& request, const config::Limits& limits, RequestFacts& facts);

// A response with any defect is dropped.
[[nodiscard]] Message::Defect check_response(const Message& response, const config::Limits& limits, Via& top_via);

}  // namespace ktrunk::sip
