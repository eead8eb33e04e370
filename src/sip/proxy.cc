#include "sip/proxy.h"

#include <algorithm>
#include <array>

#include "sip/forward.h"
#include "sip/route_set.h"
#include "sip/transaction.h"
#include "sip/validate.h"
#include "sip/via.h"

namespace ktrunk::sip {

namespace {

// RFC 5630 5.3 and 6.2.
constexpr std::string_view kSipsNotAllowed = "Warning: 380 ktrunk \"SIPS Not Allowed\"\r\n";
constexpr std::string_view kOptionsHeaders = "Accept: application/sdp\r\nSupported:\r\n";

// The two are one way to one peer, exactly.
bool same_way(const Flow& a, const Flow& b) {
  if (a.transport != b.transport) return false;
  if (a.transport != config::Transport::kUdp) return a.connection.valid() && a.connection == b.connection;
  return a.listener == b.listener && !a.remote.empty() && a.remote == b.remote;
}
bool same_trunk(const Flow& a, const Flow& b) { return a.trunk.valid() && a.trunk == b.trunk; }

// The dialog's other side, as seen from source; null when source is neither.
const Flow* other_side(const RouteToken& token, const Flow& source) {
  if (same_way(token.a, source)) return &token.b;
  if (same_way(token.b, source)) return &token.a;
  if (same_trunk(token.a, source)) return &token.b;
  if (same_trunk(token.b, source)) return &token.a;
  return nullptr;
}

Decision refuse(const Message& request, int status, const char* reason) {
  if (request.method() == Method::kAck) return Drop{reason};  // an ACK is never answered (RFC 3261 17)
  return Reply{status, reason, {}};
}

// The To tag is one of ours: the INVITE went nowhere else (RFC 3261 16.11, 17.2.1).
bool is_ack_to_us(const Message& request, std::uint64_t transaction) {
  if (request.method() != Method::kAck || !request.facts().to_has_tag) return false;
  const auto to = parse_name_addr(request.value(HeaderId::kTo));
  const auto tag = to ? find_parameter(to->parameters, "tag") : std::nullopt;
  return tag && *tag == OwnTag(transaction).view();
}

// A stateless server has no INVITE that a CANCEL could end (RFC 3261 9.2).
Decision reject(const Message& request, const config::Route& route) {
  if (request.method() == Method::kAck) return Drop{"an ACK to what a route rejects"};
  if (request.method() == Method::kCancel) return Reply{481, "Call/Transaction Does Not Exist", {}};
  return Reply{route.reject, route.reason, {}};
}

}  // namespace

Proxy::Proxy(const config::Config& config, const TokenKey& key)
    : key_(key), limits_(config.limits), routes_(config), own_(config) {
  for (std::size_t i = 0; i < config.trunks.size(); ++i)
    trunk_peers_.push_back({.hash = peer_hash({.trunk = TrunkId{static_cast<std::uint16_t>(i)}}, key),
                            .has_sources = !config.trunks[i].sources.empty()});
}

std::uint32_t Proxy::peer_of(const Flow& flow) const {
  if (flow.trunk.value >= trunk_peers_.size()) return peer_hash(flow, key_);
  const TrunkPeer& trunk = trunk_peers_[flow.trunk.value];
  return flow.transport != config::Transport::kUdp || trunk.has_sources ? trunk.hash : peer_hash(flow, key_);
}

Decision Proxy::decide(const Message& message, const Flow& source, Edits& edits) const {
  edits.clear();
  switch (message.kind()) {
    case Message::Kind::kRequest:
      return decide_request(message, source);
    case Message::Kind::kResponse:
      return decide_response(message, source, edits);
    case Message::Kind::kNone:
      break;
  }
  return Drop{"neither a request nor a response"};
}

Decision Proxy::refuse_sips(const Message& request) {
  if (request.method() == Method::kAck) return Drop{"an ACK to a sips URI whose next hop is not TLS"};
  return Reply{480, "Temporarily Unavailable", kSipsNotAllowed};
}

// Loop detection (RFC 3261 16.3 step 4): whether a Via of ours is from the same decision about this request, whichever
// of the trunks it went to then.
bool Proxy::was_here(const Message& request, const Flow& source, std::span<const TrunkId> to) const {
  std::array<std::uint32_t, config::kMaxRouteTrunks> now;
  std::size_t known = 0;
  to = to.first(std::min(to.size(), now.size()));
  const auto from_same_decision = [&](const Via& via) {
    if (!via.has_magic_cookie()) return false;
    const auto token = decode_via_token(via.branch.substr(kMagicCookie.size()), key_);
    if (!token) return false;
    for (; known < to.size(); ++known) now[known] = loop_hash(request, source, to[known], key_);
    return std::find(now.begin(), now.begin() + known, token->loop) != now.begin() + known;
  };
  if (from_same_decision(*request.facts().top_via)) return true;
  if (request.facts().vias == 1) return false;
  ValueCursor vias(request, HeaderId::kVia);
  (void)vias.next();
  while (const auto value = vias.next()) {
    const auto via = parse_via(value->text);  // the Vias of others need not be sound (RFC 4475 3.1.1.10)
    if (via && from_same_decision(*via)) return true;
  }
  return false;
}

Decision Proxy::decide_request(const Message& request, const Flow& source) const {
  if (const auto defect = check_request(request, limits_); defect.status != 0)
    return refuse(request, defect.status, defect.what);
  const Facts& facts = request.facts();
  const Uri& uri = *facts.uri;

  const bool is_for_us = uri.user.empty() && own_.is_us(uri);
  if (is_for_us && request.method() == Method::kOptions) return Reply{200, "OK", kOptionsHeaders};
  if (facts.max_forwards == 0u) return refuse(request, 483, "Too Many Hops");
  // ACK and CANCEL are exempt (20.29, 9.1): they follow an INVITE that was refused already if it had to be.
  if (request.method() != Method::kAck && request.method() != Method::kCancel &&
      ValueCursor(request, HeaderId::kProxyRequire).next())
    return refuse(request, 420, "Bad Extension");

  const std::uint64_t affinity = transaction_hash(request, *facts.top_via, key_);
  if (is_ack_to_us(request, affinity)) return Drop{"an ACK to an answer of ours"};
  const RoutePlan plan = plan_routes(request, uri, own_, key_);
  const Needs needs = plan.sips ? Needs::kTls : Needs::kAnyTransport;
  // A sips URI that came in the clear has been read already; a dialog that began with one has TLS at both sides.
  if (needs == Needs::kTls && source.transport != config::Transport::kTls) return refuse_sips(request);
  switch (plan.next) {
    case RoutePlan::Next::kForged:
      return refuse(request, 403, "Invalid Flow Token");
    case RoutePlan::Next::kBroken:
      return refuse(request, 400, "Bad Route");
    case RoutePlan::Next::kToken:
      if (const Flow* next = other_side(plan.token, source)) {
        if (was_here(request, source, {&next->trunk, 1})) return refuse(request, 482, "Loop Detected");
        return ToFlow{*next, affinity, needs};
      }
      return refuse(request, 403, "Not Your Dialog");
    case RoutePlan::Next::kTable:
      break;
  }
  const config::Route* route = routes_.find({.from_trunk = source.trunk,
                                             .from_listener = source.listener,
                                             .method = request.method_name(),
                                             .user = uri.user,
                                             .host = uri.host,
                                             .request = &request});
  if (route == nullptr) return refuse(request, 404, "No Route");
  if (route->reject != 0) return reject(request, *route);
  if (was_here(request, source, route->to)) return refuse(request, 482, "Loop Detected");
  return ToTrunk{route, affinity, needs};
}

Decision Proxy::decide_response(const Message& response, const Flow& source, Edits& edits) const {
  if (const auto defect = check_response(response, limits_); defect.status != 0) return Drop{defect.what};
  const Via& top_via = *response.facts().top_via;
  if (!top_via.has_magic_cookie()) return Drop{"the top Via is not ours"};
  const auto token = decode_via_token(top_via.branch.substr(kMagicCookie.size()), key_);
  if (!token) return Drop{"the top Via is not ours"};
  if (token->destination != peer_of(source)) return Drop{"a response from where its request did not go"};
  pop_top_via(response, edits);
  add_missing_content_length(response, edits);
  Flow to = token->source;
  if (!top_via.flow.empty() && !to.connection.valid()) to.connection = parse_flow_hint(top_via.flow);
  return ToFlow{to, token->transaction};
}

}  // namespace ktrunk::sip
