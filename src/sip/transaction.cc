#include "sip/transaction.h"

#include <sodium.h>

#include <cstring>

#include "sip/ip_text.h"
#include "sip/text.h"
#include "sip/uri.h"

namespace ktrunk::sip {

namespace {

static_assert(crypto_shorthash_BYTES == sizeof(std::uint64_t));
static_assert(crypto_shorthash_siphashx24_KEYBYTES + crypto_shorthash_KEYBYTES == sizeof(TokenKey::bytes));

// A hash over several texts. Each is hashed alone, then the hashes together, so that no text can run over into the
// next. What it is for comes first: equal texts give unequal numbers for different purposes.
class FieldHash {
 public:
  enum class Purpose : unsigned char { kTransaction, kLoop, kPeer };
  FieldHash(Purpose purpose, const TokenKey& key)
      : key_(key.bytes.data() + crypto_shorthash_siphashx24_KEYBYTES), sums_{static_cast<unsigned char>(purpose)} {}

  void add(std::string_view text) {
    if (used_ == sizeof sums_) fold();
    crypto_shorthash(sums_ + used_, reinterpret_cast<const unsigned char*>(text.data()), text.size(), key_);
    used_ += crypto_shorthash_BYTES;
  }
  void add(std::uint64_t number) {
    if (used_ == sizeof sums_) fold();
    std::memcpy(sums_ + used_, &number, sizeof number);
    used_ += sizeof number;
  }
  [[nodiscard]] std::uint64_t value() {
    fold();
    std::uint64_t number = 0;
    std::memcpy(&number, sums_, sizeof number);
    return number;
  }

 private:
  void fold() {
    unsigned char sum[crypto_shorthash_BYTES];
    crypto_shorthash(sum, sums_, used_, key_);
    std::memcpy(sums_, sum, sizeof sum);
    used_ = sizeof sum;
  }

  const unsigned char* key_;
  unsigned char sums_[10 * crypto_shorthash_BYTES];  // enough for all but long route sets
  std::size_t used_ = crypto_shorthash_BYTES;
};

std::string_view from_tag(const Message& request) {
  const auto from = parse_name_addr(request.value(HeaderId::kFrom));
  return from ? find_parameter(from->parameters, "tag").value_or("") : std::string_view{};
}

std::string_view cseq_number(const Message& request) {
  const std::string_view cseq = request.value(HeaderId::kCSeq);
  return cseq.substr(0, cseq.find_first_of(" \t\r\n"));
}

}  // namespace

std::uint64_t transaction_hash(const Message& request, const Via& top_via, const TokenKey& key) {
  FieldHash hash(FieldHash::Purpose::kTransaction, key);
  if (top_via.has_magic_cookie()) {
    hash.add(top_via.branch);
    hash.add(top_via.host);
    hash.add(std::uint64_t{top_via.port});
    return hash.value();
  }
  // The To tag stays out: the ACK has one that the INVITE had not. So does CSeq's method.
  hash.add(top_via.text);
  hash.add(from_tag(request));
  hash.add(request.value(HeaderId::kCallId));
  hash.add(cseq_number(request));
  hash.add(request.request_uri());
  return hash.value();
}

std::uint32_t loop_hash(const Message& request, const Flow& source, TrunkId to, const TokenKey& key) {
  FieldHash hash(FieldHash::Purpose::kLoop, key);
  hash.add(request.request_uri());
  for (std::size_t i = request.first(HeaderId::kRoute); i != Message::kNoHeader; i = request.next_same(i))
    hash.add(request.header(i).value);
  hash.add(request.value(HeaderId::kCallId));
  hash.add(from_tag(request));
  hash.add(cseq_number(request));
  // Where it came from counts as far as routes can tell: a PBX that sends a call back as it was is no loop.
  hash.add(source.trunk.valid() ? std::uint64_t{source.trunk.value} : std::uint64_t{source.listener.value} << 32);
  hash.add(std::uint64_t{to.value});
  return static_cast<std::uint32_t>(hash.value());
}

std::uint32_t peer_hash(const Flow& flow, const TokenKey& key) {
  FieldHash hash(FieldHash::Purpose::kPeer, key);
  if (flow.transport == config::Transport::kUdp) {
    const IpValue ip = to_ip_value(flow.remote.ip_bytes()).value_or(IpValue{});
    hash.add(std::uint64_t{flow.listener.value});
    hash.add(std::string_view(reinterpret_cast<const char*>(ip.data()), ip.size()));
  } else if (flow.trunk.valid()) {
    hash.add(std::uint64_t{flow.trunk.value});
  } else {
    hash.add("stranger");
    hash.add(std::uint64_t{flow.connection.slot.value} << 32 | flow.connection.generation.value);
  }
  return static_cast<std::uint32_t>(hash.value());
}

}  // namespace ktrunk::sip
