// Limits of what one SIP message may hold. Every fixed array of this folder is sized by a name from here. Octets unless
// said otherwise. The operator may set lower ones (config::Limits); the limit on whole messages is the operator's
// alone.
#pragma once

#include <cstddef>

#include "config/config.h"

namespace ktrunk::sip {

// Start-line, headers and the empty line. Offsets into it fit 16 bits (message.h).
inline constexpr std::size_t kMaxHeaderSectionBytes = config::kMaxHeaderBytes;
// Header fields in one message; beyond it requests get 513.
inline constexpr std::size_t kMaxHeaders = config::kMaxHeaders;
// Via values in one message: one hop each. 70 is the usual first Max-Forwards, so more than that is a loop.
inline constexpr std::size_t kMaxViaValues = config::kMaxVias;
// Route values in one request.
inline constexpr std::size_t kMaxRouteValues = 70;
// RFC 3261 20.22: Max-Forwards is 0 to 255; a proxy that finds none adds 70 (16.6 step 3).
inline constexpr unsigned kMaxMaxForwards = 255;
inline constexpr unsigned kDefaultMaxForwards = 70;
// Changes to one message, and the room for the text they insert: our Via and two Record-Routes with tokens and host
// names of 255 octets need about 1200; what a route changes comes on top.
inline constexpr std::size_t kMaxEdits = 48;
inline constexpr std::size_t kMaxEditText = 2560 + config::kMaxAddedHeaderBytes;

}  // namespace ktrunk::sip
