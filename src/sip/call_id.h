// The Call-ID of a message that has been framed and not parsed yet (RFC 3261 8.1.1.4, 20.8): what keeps the messages of
// a call together when they are spread over workers. Pure.
#pragma once

#include <string_view>

#include "sip/header_index.h"

namespace ktrunk::sip {

// The value of the first Call-ID or i header field; empty when there is none. The view is into `message`. It is looked
// for no longer than one pass over the header section takes, and nothing else is checked.
[[nodiscard]] std::string_view find_call_id(std::string_view message);
// The same for who may have an index of the message: it is asked where it is complete.
[[nodiscard]] std::string_view find_call_id(std::string_view message, const HeaderIndex& index);

}  // namespace ktrunk::sip
