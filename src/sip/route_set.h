// Route processing (RFC 3261 16.4, 16.6 step 6): which Route values are ours, what their token says, whether the next
// one is a strict router, and the edits that follow from it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "sip/edits.h"
#include "sip/flow_token.h"
#include "sip/message.h"
#include "sip/own_addresses.h"
#include "sip/route_actions.h"
#include "sip/uri.h"

namespace ktrunk::sip {

struct RoutePlan {
  enum class Next : std::uint8_t {
    kTable,   // no token of ours: the route table decides
    kToken,   // token holds the dialog's two flows
    kForged,  // a Route names us with a user part that we did not make
    kBroken,  // a strict router sent us our own URI without the Route that says where to go, or too many Routes
  };
  Next next = Next::kTable;
  RouteToken token;
  std::size_t pop = 0;              // leading Route values that are ours
  bool from_strict_router = false;  // the Request-URI is ours: the last Route value takes its place and goes
  std::string_view target;          // the Request-URI after that
  // The first Route behind ours is a strict router: it takes the Request-URI's place, and the target becomes the last
  // Route value.
  bool to_strict_router = false;
  std::string_view strict_router;  // its URI, as it goes into the Request-URI
  // The target or the first Route behind ours is a sips URI: the next hop must be TLS (RFC 5630 3.1.3).
  bool sips = false;
};

[[nodiscard]] RoutePlan plan_routes(const Message& request, const Uri& request_uri, const OwnAddresses& own,
                                    const TokenKey& key);

// Pops and replaces as planned. Does nothing for a plan that leaves the headers alone. changes: of the target, wherever
// it goes; none for a request from a strict router, which follows its dialog.
void edit_routes(const Message& request, const RoutePlan& plan, const UriChanges& changes, Edits& edits);

// Removes the first Via value, with its header field if it is alone there.
void pop_top_via(const Message& message, Edits& edits);

}  // namespace ktrunk::sip
