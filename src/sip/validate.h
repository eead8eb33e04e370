// Validation (RFC 3261 16.3 and 18.1.2): whether a message has what a proxy needs of it. If so, its facts() are there.
#pragma once

#include "config/config.h"
#include "sip/message.h"

namespace ktrunk::sip {

// In the order of 16.3: syntax and the operator's limits (400, 505, 513), scheme (416). Later steps depend on who asks
// and are Proxy's.
[[nodiscard]] Defect check_request(const Message& request, const config::Limits& limits);

// A response with any defect is dropped.
[[nodiscard]] Defect check_response(const Message& response, const config::Limits& limits);

}  // namespace ktrunk::sip
