#include "handshake/ticket_reader.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "ktls/control_record.h"

namespace ktrunk::handshake {
namespace {

struct FreeContext {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};

const EVP_CIPHER* cipher_of(ktls::Aead aead) {
  switch (aead) {
    case ktls::Aead::kAes128Gcm:
      return EVP_aes_128_gcm();
    case ktls::Aead::kAes256Gcm:
      return EVP_aes_256_gcm();
    case ktls::Aead::kChaCha20Poly1305:
      break;
  }
  return EVP_chacha20_poly1305();
}

const unsigned char* octets(std::span<const std::byte> bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

// One TLSCiphertext of TLS 1.3 (RFC 8446 5.2), a handshake record, behind what `out` has.
Status seal(const ktls::ReceiveKeys& keys, std::span<const std::byte> fragment, std::vector<std::byte>& out) {
  constexpr std::size_t kHeader = 5;
  const std::size_t plain = fragment.size() + 1;  // and the inner type
  const std::size_t body = plain + ktls::kTagBytes;
  const std::array header = {std::byte{23}, std::byte{3}, std::byte{3}, static_cast<std::byte>(body >> 8),
                             static_cast<std::byte>(body)};
  std::array<std::byte, ktls::kNonceBytes> nonce = {};
  std::copy_n(keys.nonce.bytes().begin(), nonce.size(), nonce.begin());
  for (std::size_t i = 0; i < 8; ++i) nonce[4 + i] ^= static_cast<std::byte>(keys.next.value >> (8 * (7 - i)));

  const std::size_t start = out.size();
  out.insert(out.end(), header.begin(), header.end());
  out.insert(out.end(), fragment.begin(), fragment.end());
  out.push_back(static_cast<std::byte>(ktls::RecordType::kHandshake));
  out.resize(start + kHeader + body);
  auto* text = reinterpret_cast<unsigned char*>(out.data() + start + kHeader);
  const std::unique_ptr<EVP_CIPHER_CTX, FreeContext> context(EVP_CIPHER_CTX_new());
  int size = 0;
  const bool sealed =
      context &&
      EVP_EncryptInit_ex(context.get(), cipher_of(keys.aead), nullptr, octets(keys.key.bytes()), octets(nonce)) == 1 &&
      EVP_EncryptUpdate(context.get(), nullptr, &size, octets(header), static_cast<int>(header.size())) == 1 &&
      EVP_EncryptUpdate(context.get(), text, &size, text, static_cast<int>(plain)) == 1 &&
      EVP_EncryptFinal_ex(context.get(), text + plain, &size) == 1 &&
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, ktls::kTagBytes, text + plain) == 1;
  if (!sealed) return fail("libcrypto could not encrypt with {}", ktls::aead_name(keys.aead));
  return {};
}

}  // namespace

std::optional<TicketReader> TicketReader::create(TlsSession session, const KernelSecrets& secrets) {
  if (secrets.version != ktls::Version::kTls13 || secrets.self != ktls::Endpoint::kClient) return std::nullopt;
  const auto next = session.detach();
  if (!next) return std::nullopt;
  auto keys = ktls::keys_from_secret<ktls::Direction::kReceive>(secrets.aead, secrets.hash, secrets.receive, *next);
  if (!keys) return std::nullopt;
  return TicketReader(std::move(session), std::move(*keys));
}

Result<Resumption> TicketReader::feed(std::span<const std::byte> message) {
  if (done()) return fail("enough tickets of this session have been read");
  std::vector<std::byte> records;
  while (!message.empty()) {
    const auto fragment = message.first(std::min(message.size(), ktls::kMaxRecordBytes));
    auto status = seal(keys_, fragment, records);
    if (status && message.size() == fragment.size()) status = session_.read_detached(records);
    if (!status) {
      left_ = 0;
      return std::unexpected(std::move(status.error()));
    }
    ++keys_.next.value;
    message = message.subspan(fragment.size());
  }
  --left_;
  return session_.resumption();
}

}  // namespace ktrunk::handshake
