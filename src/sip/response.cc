// Proxy::build_reply: RFC 3261 8.2.6, for a stateless server (8.2.7).
#include <fmt/format.h>

#include <iterator>

#include "sip/forward.h"
#include "sip/proxy.h"
#include "sip/text.h"
#include "sip/transaction.h"
#include "sip/via.h"

namespace ktrunk::sip {

namespace {

// Appends a part of a header value on one line: a fold, and whatever bare CR or LF a broken request has, becomes a
// space, so that nothing in it can end the line.
void append_unfolded(std::string_view text, std::string& out) {
  for (const char c : text) {
    if (c != '\r' && c != '\n') {
      out += c;
    } else if (!out.ends_with(' ')) {
      out += ' ';
    }
  }
}

void append_vias(const Message& request, const Flow& source, std::string& out) {
  bool top = true;
  for (std::size_t i = request.first(HeaderId::kVia); i != Message::kNoHeader; i = request.next_same(i)) {
    std::string_view rest = request.header(i).value;
    if (rest.empty()) continue;
    out += "Via: ";
    if (top) {
      top = false;
      if (const auto& via = request.facts().top_via) {
        const TopViaChanges changes = top_via_changes(*via, source.remote);
        for (std::size_t c = 0; c < changes.count; ++c) {
          const auto before = static_cast<std::size_t>(changes.list[c].place.data() - rest.data());
          append_unfolded(rest.substr(0, before), out);
          out += changes.list[c].text.view();
          rest = rest.substr(before + changes.list[c].place.size());
        }
      }
    }
    append_unfolded(rest, out);
    out += "\r\n";
  }
}

// The first header field of a name, if there is one, as a line.
void append_first(const Message& request, HeaderId id, std::string_view name, std::string& out) {
  if (!request.has(id)) return;
  out += name;
  append_unfolded(request.value(id), out);
  out += "\r\n";
}

// Every option tag that the request demands of proxies; we support none (8.2.2.3).
void append_unsupported(const Message& request, std::string& out) {
  for (std::size_t i = request.first(HeaderId::kProxyRequire); i != Message::kNoHeader; i = request.next_same(i)) {
    if (request.header(i).value.empty()) continue;
    out += "Unsupported: ";
    append_unfolded(request.header(i).value, out);
    out += "\r\n";
  }
}

// With a tag if it has none; the same tag for a retransmission (8.2.7).
void append_to(const Message& request, const Reply& reply, const TokenKey& key, std::string& out) {
  if (!request.has(HeaderId::kTo)) return;
  out += "To: ";
  append_unfolded(request.value(HeaderId::kTo), out);
  const auto to = parse_name_addr(request.value(HeaderId::kTo));
  const auto& top_via = request.facts().top_via;
  if (reply.status > 100 && to && top_via && !find_parameter(to->parameters, "tag"))
    out.append(";tag=").append(OwnTag(transaction_hash(request, *top_via, key)).view());
  out += "\r\n";
}

}  // namespace

Address reply_address(const Message& request, const Flow& source) {
  const auto& via = request.facts().top_via;
  return via ? response_address(*via, source.remote) : source.remote;
}

void Proxy::build_reply(const Message& request, const Flow& source, const Reply& reply, std::string& out) const {
  if (!request.is_request() || request.method() == Method::kAck) return;
  if (request.facts().vias == 0) return;

  fmt::format_to(std::back_inserter(out), "SIP/2.0 {} {}\r\n", reply.status, reply.reason);
  append_vias(request, source, out);
  append_first(request, HeaderId::kFrom, "From: ", out);
  append_to(request, reply, key_, out);
  append_first(request, HeaderId::kCallId, "Call-ID: ", out);
  append_first(request, HeaderId::kCSeq, "CSeq: ", out);
  if (reply.status == 100) append_first(request, HeaderId::kTimestamp, "Timestamp: ", out);
  if (reply.status == 420) append_unsupported(request, out);
  out += reply.extra_headers;
  out += "Content-Length: 0\r\n\r\n";
}

}  // namespace ktrunk::sip
