// What a [[route]] changes in the requests that it takes, beside what every proxy does: the Request-URI's user and
// host, header fields. Same request, same changes: retransmissions, CANCEL and ACK carry their INVITE's Request-URI and
// get the same one again. Pure.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include "config/config.h"
#include "sip/edits.h"
#include "sip/message.h"
#include "sip/uri.h"

namespace ktrunk::sip {

// Parts of a URI that give way to other text, in the order of their places.
struct UriChanges {
  struct Change {
    std::string_view place;  // part of the URI; empty: insert there
    std::string_view text;   // the route's
  };
  std::array<Change, 2> list;
  std::size_t count = 0;
};

// None for a URI that is neither sip nor sips. A user that would be left empty stays, and so does one that does not
// begin with what is to be replaced.
[[nodiscard]] UriChanges uri_changes(const Uri& uri, const config::Route& route);

// Removes and adds as the route says. Those of its additions that are there already stay beside them.
void edit_header_fields(const Message& request, const config::Route& route, Edits& edits);

}  // namespace ktrunk::sip
