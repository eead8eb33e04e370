#include "support/record_protection.h"

#include <openssl/evp.h>

#include <array>
#include <memory>

namespace ktrunk::test {
namespace {

constexpr std::size_t kExplicitBytes = 8;

struct FreeContext {
  void operator()(EVP_CIPHER_CTX* context) const { ::EVP_CIPHER_CTX_free(context); }
};

const EVP_CIPHER* cipher_of(ktls::Aead aead) {
  switch (aead) {
    case ktls::Aead::kAes128Gcm:
      return ::EVP_aes_128_gcm();
    case ktls::Aead::kAes256Gcm:
      return ::EVP_aes_256_gcm();
    case ktls::Aead::kChaCha20Poly1305:
      break;
  }
  return ::EVP_chacha20_poly1305();
}

std::string big_endian(std::uint64_t value, std::size_t bytes) {
  std::string out(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i) out[i] = static_cast<char>(value >> (8 * (bytes - 1 - i)));
  return out;
}

std::string header_of(std::uint8_t type, std::uint16_t version, std::size_t length) {
  return static_cast<char>(type) + big_endian(version, 2) + big_endian(length, 2);
}

unsigned char* octets(std::string& text) { return reinterpret_cast<unsigned char*>(text.data()); }
const unsigned char* octets(const std::string& text) { return reinterpret_cast<const unsigned char*>(text.data()); }

}  // namespace

std::string plain_record(std::uint8_t type, std::string_view payload, std::uint16_t version) {
  return header_of(type, version, payload.size()).append(payload);
}

template <ktls::Direction D>
Status RecordProtection<D>::advance() {
  auto secret = ktls::next_secret(hash_, secret_);
  if (!secret) return std::unexpected(secret.error());
  auto keys = ktls::keys_from_secret<D>(keys_.aead, hash_, *secret, {0});
  if (!keys) return std::unexpected(keys.error());
  secret_ = std::move(*secret);
  keys_ = std::move(*keys);
  return {};
}

template <ktls::Direction D>
std::string RecordProtection<D>::nonce(std::uint64_t number, std::string_view explicit_part) const {
  std::string out(reinterpret_cast<const char*>(keys_.nonce.bytes().data()), ktls::kNonceBytes);
  const std::string mask = big_endian(number, kExplicitBytes);
  for (std::size_t i = 0; i < kExplicitBytes; ++i)
    out[4 + i] = explicit_nonce() ? explicit_part[i] : static_cast<char>(out[4 + i] ^ mask[i]);
  return out;
}

template <ktls::Direction D>
std::string RecordProtection<D>::associated(std::uint64_t number, std::string_view header, std::size_t plain) const {
  if (tls13()) return std::string(header);
  return big_endian(number, 8).append(header.substr(0, 3)).append(big_endian(plain, 2));
}

template <ktls::Direction D>
bool RecordProtection<D>::run(const std::string& nonce, const std::string& aad, std::string& text,
                              std::string& tag) const {
  constexpr bool kSeal = D == ktls::Direction::kTransmit;
  const std::unique_ptr<EVP_CIPHER_CTX, FreeContext> context(::EVP_CIPHER_CTX_new());
  int size = 0;
  if (::EVP_CipherInit_ex(context.get(), cipher_of(keys_.aead), nullptr,
                          reinterpret_cast<const unsigned char*>(keys_.key.bytes().data()), octets(nonce),
                          kSeal ? 1 : 0) != 1)
    return false;
  if (!kSeal) ::EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_TAG, ktls::kTagBytes, tag.data());
  ::EVP_CipherUpdate(context.get(), nullptr, &size, octets(aad), static_cast<int>(aad.size()));
  if (!text.empty())
    ::EVP_CipherUpdate(context.get(), octets(text), &size, octets(text), static_cast<int>(text.size()));
  std::array<unsigned char, 16> none = {};
  if (::EVP_CipherFinal_ex(context.get(), none.data(), &size) != 1) return false;
  return !kSeal || ::EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, ktls::kTagBytes, tag.data()) == 1;
}

template <ktls::Direction D>
std::string RecordProtection<D>::seal(std::uint8_t type, std::string_view payload, const RecordShape& shape)
  requires(D == ktls::Direction::kTransmit)
{
  std::string text(payload);
  if (tls13()) text.append(1, static_cast<char>(type)).append(shape.padding, '\0');
  const std::string explicit_part = explicit_nonce() ? big_endian(explicit_next_++, kExplicitBytes) : "";
  const std::uint8_t outer =
      shape.outer_type.value_or(tls13() ? static_cast<std::uint8_t>(ktls::RecordType::kApplicationData) : type);
  const std::size_t length = explicit_part.size() + text.size() + ktls::kTagBytes;
  const std::string header = header_of(outer, shape.version, shape.length.value_or(length));
  const std::uint64_t number = shape.number ? *shape.number : keys_.next.value++;
  std::string tag(ktls::kTagBytes, '\0');
  const std::string aad = associated(number, header, text.size());
  if (!run(nonce(number, explicit_part), aad, text, tag)) return {};
  if (shape.tag == RecordShape::Tag::kWrong) tag[0] = static_cast<char>(tag[0] ^ 1);
  if (shape.tag == RecordShape::Tag::kCutOff) return header + explicit_part + text;
  return header + explicit_part + text + tag;
}

template <ktls::Direction D>
Result<TlsRecord> RecordProtection<D>::open(std::string_view record)
  requires(D == ktls::Direction::kReceive)
{
  const std::string_view header = record.substr(0, kRecordHeaderBytes);
  std::string_view body = record.substr(kRecordHeaderBytes);
  TlsRecord out{static_cast<std::uint8_t>(header[0]), {}};
  const bool compatibility = tls13() && out.type == static_cast<std::uint8_t>(ktls::RecordType::kChangeCipherSpec);
  if (compatibility) return TlsRecord{out.type, std::string(body)};
  const std::size_t before = explicit_nonce() ? kExplicitBytes : 0;
  if (body.size() < before + ktls::kTagBytes) return fail("a record of {} octets", body.size());
  const std::string_view explicit_part = body.substr(0, before);
  std::string tag(body.substr(body.size() - ktls::kTagBytes));
  out.payload = body.substr(before, body.size() - before - ktls::kTagBytes);
  const std::uint64_t number = keys_.next.value;
  const std::string aad = associated(number, header, out.payload.size());
  if (!run(nonce(number, explicit_part), aad, out.payload, tag)) return fail("record {} cannot be opened", number);
  ++keys_.next.value;
  if (!tls13()) return out;
  const std::size_t last = out.payload.find_last_not_of('\0');
  if (last == std::string::npos) return fail("a record without a type");
  out.type = static_cast<std::uint8_t>(out.payload[last]);
  out.payload.resize(last);
  return out;
}

template class RecordProtection<ktls::Direction::kTransmit>;
template class RecordProtection<ktls::Direction::kReceive>;

}  // namespace ktrunk::test
