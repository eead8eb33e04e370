#include "sip/transaction.h"

#include <sodium.h>

#include <cstring>

#include "sip/text.h"
#include "sip/uri.h"

namespace ktrunk::sip {

namespace {

// A hash over several texts, each hashed alone, so that no text can run over into the next.
class FieldHash {
 public:
  explicit FieldHash(const TokenKey& key) : key_(key.bytes.data() + crypto_shorthash_siphashx24_KEYBYTES) {}

  void add(std::string_view text) {
    crypto_shorthash(sums_ + used_, reinterpret_cast<const unsigned char*>(text.data()), text.size(), key_);
    used_ += crypto_shorthash_BYTES;
  }
  [[nodiscard]] std::uint64_t value() const {
    unsigned char sum[crypto_shorthash_BYTES];
    crypto_shorthash(sum, sums_, used_, key_);
    std::uint64_t number = 0;
    std::memcpy(&number, sum, sizeof number);
    return number;
  }

 private:
  static_assert(crypto_shorthash_BYTES == sizeof(std::uint64_t));
  static_assert(crypto_shorthash_siphashx24_KEYBYTES + crypto_shorthash_KEYBYTES == sizeof(TokenKey::bytes));
  const unsigned char* key_;
  unsigned char sums_[6 * crypto_shorthash_BYTES];
  std::size_t used_ = 0;
};

}  // namespace

std::uint64_t transaction_hash(const Message& request, const Via& top_via, const TokenKey& key) {
  FieldHash hash(key);
  if (top_via.has_magic_cookie()) {
    const unsigned char port[2] = {static_cast<unsigned char>(top_via.port >> 8),
                                   static_cast<unsigned char>(top_via.port & 0xff)};
    hash.add(top_via.branch);
    hash.add(top_via.host);
    hash.add({reinterpret_cast<const char*>(port), sizeof port});
    return hash.value();
  }
  // The To tag stays out: the ACK has one that the INVITE had not. So does CSeq's method.
  const auto from = parse_name_addr(request.value(HeaderId::kFrom));
  const std::string_view cseq = request.value(HeaderId::kCSeq);
  hash.add(top_via.text);
  hash.add(from ? find_parameter(from->parameters, "tag").value_or("") : std::string_view{});
  hash.add(request.value(HeaderId::kCallId));
  hash.add(cseq.substr(0, cseq.find_first_of(" \t\r\n")));
  hash.add(request.request_uri());
  return hash.value();
}

}  // namespace ktrunk::sip
