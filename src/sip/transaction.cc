#include "sip/transaction.h"

#include "sip/ip_text.h"
#include "sip/siphash.h"

namespace ktrunk::sip {

namespace {

static_assert(2 * SipHash13::kKeyBytes == sizeof(TokenKey::bytes));

// A hash over several fields. What it is for comes first: equal fields give unequal numbers for different purposes.
enum class Purpose : std::uint8_t { kTransaction, kLoop, kPeer, kOldTransaction };
// number: a first field of at most 56 bits.
SipHash13 hash_for(Purpose purpose, const TokenKey& key, std::uint64_t number = 0) {
  SipHash13 hash(SipHash13::Key(key.bytes.data() + SipHash13::kKeyBytes, SipHash13::kKeyBytes));
  hash.word(static_cast<std::uint64_t>(purpose) | number << 8);
  return hash;
}

}  // namespace

std::uint64_t transaction_hash(const Message& request, const Via& top_via, const TokenKey& key) {
  if (top_via.has_magic_cookie()) {
    static_assert(kMaxHeaderSectionBytes <= 0xffff);
    SipHash13 hash = hash_for(Purpose::kTransaction, key,
                              top_via.branch.size() | std::uint64_t{top_via.port} << 16 | top_via.host.size() << 32);
    hash.padded(top_via.branch);
    hash.padded(top_via.host);
    return hash.value64();
  }
  // The To tag stays out: the ACK has one that the INVITE had not. So does CSeq's method.
  SipHash13 hash = hash_for(Purpose::kOldTransaction, key);
  hash.text(top_via.text);
  hash.text(request.facts().from_tag);
  hash.text(request.value(HeaderId::kCallId));
  hash.text(request.facts().cseq_number);
  hash.text(request.request_uri());
  return hash.value64();
}

OwnTag::OwnTag(std::uint64_t transaction) {
  for (std::size_t i = digits_.size(); i-- > 0; transaction >>= 4) digits_[i] = "0123456789abcdef"[transaction & 15];
}

std::uint32_t loop_hash(const Message& request, const Flow& source, TrunkId to, const TokenKey& key) {
  const std::string_view uri = request.request_uri();
  SipHash13 hash = hash_for(Purpose::kLoop, key, uri.size() | std::uint64_t{to.value} << 16);
  hash.padded(uri);
  hash.text(request.value(HeaderId::kCallId));
  hash.text(request.facts().from_tag);
  hash.text(request.facts().cseq_number);
  for (std::size_t i = request.first(HeaderId::kRoute); i != Message::kNoHeader; i = request.next_same(i))
    hash.text(request.header(i).value);
  // Where it came from counts as far as routes can tell: a PBX that sends a call back as it was is no loop.
  hash.word(source.trunk.valid() ? std::uint64_t{source.trunk.value} : std::uint64_t{source.listener.value} << 32);
  return static_cast<std::uint32_t>(hash.value64());
}

std::uint32_t peer_hash(const Flow& flow, const TokenKey& key) {
  SipHash13 hash = hash_for(Purpose::kPeer, key);
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
