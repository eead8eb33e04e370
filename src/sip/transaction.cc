#include "sip/transaction.h"

#include "sip/ip_text.h"
#include "sip/siphash.h"

namespace ktrunk::sip {

namespace {

static_assert(2 * SipHash::kKeyBytes == sizeof(TokenKey::bytes));

// A hash over several fields. What it is for comes first: equal fields give unequal numbers for different purposes.
enum class Purpose : std::uint64_t { kTransaction, kLoop, kPeer };
SipHash hash_for(Purpose purpose, const TokenKey& key) {
  SipHash hash(SipHash::Key(key.bytes.data() + SipHash::kKeyBytes, SipHash::kKeyBytes));
  hash.word(static_cast<std::uint64_t>(purpose));
  return hash;
}

}  // namespace

std::uint64_t transaction_hash(const Message& request, const Via& top_via, const TokenKey& key) {
  SipHash hash = hash_for(Purpose::kTransaction, key);
  if (top_via.has_magic_cookie()) {
    hash.text(top_via.branch);
    hash.text(top_via.host);
    hash.word(top_via.port);
    return hash.value64();
  }
  // The To tag stays out: the ACK has one that the INVITE had not. So does CSeq's method.
  hash.text(top_via.text);
  hash.text(request.facts().from_tag);
  hash.text(request.value(HeaderId::kCallId));
  hash.text(request.facts().cseq_number);
  hash.text(request.request_uri());
  return hash.value64();
}

std::uint32_t loop_hash(const Message& request, const Flow& source, TrunkId to, const TokenKey& key) {
  SipHash hash = hash_for(Purpose::kLoop, key);
  hash.text(request.request_uri());
  for (std::size_t i = request.first(HeaderId::kRoute); i != Message::kNoHeader; i = request.next_same(i))
    hash.text(request.header(i).value);
  hash.text(request.value(HeaderId::kCallId));
  hash.text(request.facts().from_tag);
  hash.text(request.facts().cseq_number);
  // Where it came from counts as far as routes can tell: a PBX that sends a call back as it was is no loop.
  hash.word(source.trunk.valid() ? std::uint64_t{source.trunk.value} : std::uint64_t{source.listener.value} << 32);
  hash.word(to.value);
  return static_cast<std::uint32_t>(hash.value64());
}

std::uint32_t peer_hash(const Flow& flow, const TokenKey& key) {
  SipHash hash = hash_for(Purpose::kPeer, key);
  if (flow.transport == config::Transport::kUdp) {
    const IpValue ip = to_ip_value(flow.remote.ip_bytes()).value_or(IpValue{});
    hash.word(flow.listener.value);
    hash.text(std::string_view(reinterpret_cast<const char*>(ip.data()), ip.size()));
  } else if (flow.trunk.valid()) {
    hash.word(flow.trunk.value);
  } else {
    hash.text("stranger");
    hash.word(std::uint64_t{flow.connection.slot.value} << 32 | flow.connection.generation.value);
  }
  return static_cast<std::uint32_t>(hash.value64());
}

}  // namespace ktrunk::sip
