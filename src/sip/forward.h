// What several of Proxy's functions do to a message: the topmost Via (RFC 3261 18.2.1, RFC 3581 4), Content-Length.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include "base/address.h"
#include "sip/edits.h"
#include "sip/message.h"
#include "sip/text.h"
#include "sip/via.h"

namespace ktrunk::sip {

struct TopViaChange {
  std::string_view place;  // the part of via.text that text replaces; empty: insert there
  FixedText<64> text;
};
struct TopViaChanges {
  std::array<TopViaChange, 2> list;  // in the order of their places
  std::size_t count = 0;
};

// received and rport as they are due for a request that came from source. None when source is empty.
[[nodiscard]] TopViaChanges top_via_changes(const Via& via, const Address& source);

// A datagram may do without Content-Length; a stream, which may be next, may not (18.3). message: without a defect.
void add_missing_content_length(const Message& message, Edits& edits);

}  // namespace ktrunk::sip
