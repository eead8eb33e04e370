// Proxy::forward_request: RFC 3261 16.6.
#include "sip/forward.h"

#include "sip/ip_text.h"
#include "sip/proxy.h"
#include "sip/route_actions.h"
#include "sip/route_set.h"
#include "sip/text.h"
#include "sip/transaction.h"
#include "sip/validate.h"
#include "sip/via.h"

namespace ktrunk::sip {

namespace {

std::string_view via_transport(config::Transport transport) {
  switch (transport) {
    case config::Transport::kTls:
      return "TLS";
    case config::Transport::kTcp:
      return "TCP";
    case config::Transport::kUdp:
      return "UDP";
  }
  return "TLS";
}

std::string_view uri_transport(config::Transport transport) {
  switch (transport) {
    case config::Transport::kTls:
      return ";transport=tls";
    case config::Transport::kTcp:
      return ";transport=tcp";
    case config::Transport::kUdp:
      return ";transport=udp";
  }
  return "";
}

bool forms_dialog(const Message& request) {
  const Method method = request.method();
  return method == Method::kInvite || method == Method::kSubscribe || method == Method::kRefer;
}

using Line = FixedText<640>;  // one header field of ours: a token, a host name of up to 255 octets and fixed words

}  // namespace

TopViaChanges top_via_changes(const Via& via, const Address& source) {
  TopViaChanges changes;
  const IpText ip(source);
  if (ip.view().empty()) return changes;
  const auto add_received = [&] {
    TopViaChange& received = changes.list[changes.count++];
    const bool is_new = via.received_parameter.empty();
    received.place = is_new ? via.text.substr(via.text.size()) : via.received_parameter;
    if (is_new) received.text << ";";
    received.text << "received=" << ip.view();
  };
  if (!via.wants_rport()) {
    // One that the peer wrote itself is not left.
    if (!via.received_parameter.empty() || !sent_by_is(via, source)) add_received();
    return changes;
  }
  // RFC 3581 4: with rport, received is due even if sent-by says the same.
  const bool received_first =
      !via.received_parameter.empty() && via.received_parameter.data() < via.rport_parameter.data();
  if (received_first) add_received();
  TopViaChange& rport = changes.list[changes.count++];
  rport.place = via.rport_parameter;
  rport.text << "rport=" << std::uint64_t{source.port()};
  if (!received_first) add_received();
  return changes;
}

void add_missing_content_length(const Message& message, Edits& edits) {
  if (message.has(HeaderId::kContentLength)) return;
  FixedText<64> line;
  line << "Content-Length: " << std::uint64_t{message.body().size()} << "\r\n";
  edits.insert(message.header_section_size() - 2, line.view());  // before the empty line
}

void Proxy::add_via(const Message& request, const Flow& source, const Flow& destination, std::uint64_t transaction,
                    std::size_t offset, Edits& edits) const {
  ViaToken token{.source = source,
                 .transaction = transaction,
                 .loop = loop_hash(request, source, destination.trunk, key_),
                 .destination = peer_of(destination)};
  if (source.transport == config::Transport::kUdp) token.source.remote = reply_address(request, source);
  Line line;
  line << "Via: SIP/2.0/" << via_transport(destination.transport) << " " << own_.sent_by(destination.listener);
  if (destination.transport == config::Transport::kUdp) line << ";rport";
  line << ";branch=" << kMagicCookie << encode_token(token, key_).view();
  if (const FlowHint hint(source); !hint.view().empty()) line << ";flow=" << hint.view();
  line << "\r\n";
  if (line.overflowed()) edits.fail();
  edits.insert(offset, line.view());
}

void Proxy::add_record_route(std::string_view scheme, const Flow& source, const Flow& destination, std::size_t offset,
                             Edits& edits) const {
  const bool two = source.transport != destination.transport || source.listener != destination.listener;
  const TokenText token = encode_token(
      RouteToken{.a = source, .b = destination, .lines = two ? RouteToken::Lines::kTwo : RouteToken::Lines::kOne},
      key_);
  // RFC 5658: each side finds the URI by which it reaches us next to itself.
  const Flow* const sides[] = {&destination, &source};
  for (const Flow* side : sides) {
    Line line;
    line << "Record-Route: <" << scheme << ":" << token.view() << "@" << own_.sent_by(side->listener);
    if (scheme == "sip") line << uri_transport(side->transport);  // sips is TLS already (RFC 5630 3.1.3)
    line << ";lr>\r\n";
    if (line.overflowed()) edits.fail();
    edits.insert(offset, line.view());
    if (!two) break;
  }
}

void Proxy::forward_request(const Message& request, const Flow& source, const Flow& destination, Edits& edits,
                            const config::Route* route, std::optional<std::uint64_t> affinity,
                            const Flow* carrier) const {
  edits.clear();
  const Facts& facts = request.facts();
  if (!request.is_request() || check_request(request, limits_).status != 0 || facts.max_forwards == 0u)
    return edits.fail();
  const RoutePlan plan = plan_routes(request, *facts.uri, own_, key_);
  edit_routes(request, plan, route != nullptr ? uri_changes(*facts.uri, *route) : UriChanges{}, edits);

  const std::size_t via_line = request.header(request.first(HeaderId::kVia)).line;
  if (!affinity) affinity = transaction_hash(request, *facts.top_via, key_);
  add_via(request, source, carrier != nullptr ? *carrier : destination, *affinity, via_line, edits);
  const TopViaChanges changes = top_via_changes(*facts.top_via, source.remote);
  for (std::size_t i = 0; i < changes.count; ++i) {
    const TopViaChange& change = changes.list[i];
    edits.replace(request.offset_of(change.place), change.place.size(), change.text.view());
  }

  FixedText<64> hops;
  if (facts.max_forwards) {
    const std::string_view old = request.value(HeaderId::kMaxForwards);
    hops << std::uint64_t{*facts.max_forwards - 1};
    edits.replace(request.offset_of(old), old.size(), hops.view());
  } else {
    hops << "Max-Forwards: " << std::uint64_t{kDefaultMaxForwards} << "\r\n";
    edits.insert(via_line, hops.view());
  }

  if (forms_dialog(request) && !facts.to_has_tag) {
    const std::size_t first = request.first(HeaderId::kRecordRoute);
    add_record_route(plan.sips ? "sips" : "sip", source, destination,
                     first == Message::kNoHeader ? via_line : request.header(first).line, edits);
  }
  if (route != nullptr) edit_header_fields(request, *route, edits);
  add_missing_content_length(request, edits);
}

}  // namespace ktrunk::sip
