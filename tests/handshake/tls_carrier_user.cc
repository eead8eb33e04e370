// RFC 8446 5.2, RFC 5246 6.2.3.3 with RFC 5288 and RFC 7905: records sealed and opened in user space, for tests alone.
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <sys/socket.h>

#include <array>
#include <memory>
#include <vector>

#include "handshake/tls_carrier.h"
#include "handshake/tls_test_peer.h"
#include "ktls/key_schedule.h"

namespace ktrunk::test {
namespace {

using Bytes = std::vector<unsigned char>;
constexpr std::size_t kHeader = 5;
constexpr std::size_t kExplicit = 8;

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

struct FreeContext {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};

std::array<unsigned char, 8> big_endian(std::uint64_t value) {
  std::array<unsigned char, 8> out = {};
  for (std::size_t i = 0; i < 8; ++i) out[i] = static_cast<unsigned char>(value >> (8 * (7 - i)));
  return out;
}

template <ktls::Direction D>
struct Protection {
  ktls::Keys<D> keys;

  [[nodiscard]] bool explicit_nonce() const {
    return keys.version == ktls::Version::kTls12 && keys.aead != ktls::Aead::kChaCha20Poly1305;
  }
  // The nonce of the next record; explicit_part: the eight octets that stand in the record.
  [[nodiscard]] Bytes nonce(std::span<const unsigned char> explicit_part) const {
    Bytes out(ktls::kNonceBytes);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<unsigned char>(keys.nonce.bytes()[i]);
    const auto number = big_endian(keys.next.value);
    for (std::size_t i = 0; i < 8; ++i) {
      if (explicit_nonce()) {
        out[4 + i] = explicit_part[i];
      } else {
        out[4 + i] ^= number[i];
      }
    }
    return out;
  }
  [[nodiscard]] Bytes associated(std::span<const unsigned char> header, std::size_t plain) const {
    if (keys.version == ktls::Version::kTls13) return {header.begin(), header.end()};
    const auto number = big_endian(keys.next.value);
    Bytes out(number.begin(), number.end());
    out.insert(out.end(), header.begin(), header.begin() + 3);
    out.push_back(static_cast<unsigned char>(plain >> 8));
    out.push_back(static_cast<unsigned char>(plain));
    return out;
  }
  // text is worked on in place; tag is written or checked.
  [[nodiscard]] bool run(const Bytes& nonce_bytes, const Bytes& aad, Bytes& text, unsigned char* tag) const {
    constexpr bool kSeal = D == ktls::Direction::kTransmit;
    const std::unique_ptr<EVP_CIPHER_CTX, FreeContext> context(EVP_CIPHER_CTX_new());
    int size = 0;
    if (EVP_CipherInit_ex(context.get(), cipher_of(keys.aead), nullptr,
                          reinterpret_cast<const unsigned char*>(keys.key.bytes().data()), nonce_bytes.data(),
                          kSeal ? 1 : 0) != 1)
      return false;
    if (!kSeal) EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_TAG, 16, tag);
    EVP_CipherUpdate(context.get(), nullptr, &size, aad.data(), static_cast<int>(aad.size()));
    if (!text.empty()) EVP_CipherUpdate(context.get(), text.data(), &size, text.data(), static_cast<int>(text.size()));
    std::array<unsigned char, 16> none = {};
    if (EVP_CipherFinal_ex(context.get(), none.data(), &size) != 1) return false;
    return !kSeal || EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, 16, tag) == 1;
  }
};

class UserSpaceCarrier final : public Carrier {
 public:
  UserSpaceCarrier(int fd, Fd own, handshake::HandoverKeys keys)
      : fd_(fd),
        own_(std::move(own)),
        hash_(keys.hash),
        transmit_secret_(std::move(keys.transmit_secret)),
        receive_secret_(std::move(keys.receive_secret)),
        transmit_{std::move(keys.keys.transmit)},
        receive_{std::move(keys.keys.receive)},
        nonce_(0) {
    for (std::size_t i = 4; i < ktls::kNonceBytes; ++i)
      nonce_ = nonce_ << 8 | std::to_integer<std::uint64_t>(transmit_.keys.nonce.bytes()[i]);
  }

  bool send(ktls::RecordType type, const std::string& payload) override {
    const bool tls13 = transmit_.keys.version == ktls::Version::kTls13;
    Bytes text(payload.begin(), payload.end());
    if (tls13) text.push_back(static_cast<unsigned char>(type));
    const std::size_t before = transmit_.explicit_nonce() ? kExplicit : 0;
    const std::size_t length = before + text.size() + ktls::kTagBytes;
    Bytes record = {static_cast<unsigned char>(tls13 ? ktls::RecordType::kApplicationData : type), 3, 3,
                    static_cast<unsigned char>(length >> 8), static_cast<unsigned char>(length)};
    const auto explicit_part = big_endian(nonce_++);
    const Bytes aad = transmit_.associated(record, text.size());
    std::array<unsigned char, ktls::kTagBytes> tag = {};
    if (!transmit_.run(transmit_.nonce(explicit_part), aad, text, tag.data())) return false;
    if (before != 0) record.insert(record.end(), explicit_part.begin(), explicit_part.end());
    record.insert(record.end(), text.begin(), text.end());
    record.insert(record.end(), tag.begin(), tag.end());
    ++transmit_.keys.next.value;
    return ::send(fd_, record.data(), record.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(record.size());
  }

  std::optional<Record> receive() override {
    Bytes header(kHeader);
    if (!read_exactly(header)) return std::nullopt;
    Bytes body(static_cast<std::size_t>(header[3]) << 8 | header[4]);
    const std::size_t before = receive_.explicit_nonce() ? kExplicit : 0;
    if (body.size() < before + ktls::kTagBytes || !read_exactly(body)) return std::nullopt;
    const Bytes explicit_part(body.begin(), body.begin() + static_cast<std::ptrdiff_t>(before));
    Bytes tag(body.end() - static_cast<std::ptrdiff_t>(ktls::kTagBytes), body.end());
    Bytes text(body.begin() + static_cast<std::ptrdiff_t>(before),
               body.end() - static_cast<std::ptrdiff_t>(ktls::kTagBytes));
    const Bytes aad = receive_.associated(header, text.size());
    if (!receive_.run(receive_.nonce(explicit_part), aad, text, tag.data())) return std::nullopt;
    ++receive_.keys.next.value;
    Record record{static_cast<ktls::RecordType>(header[0]), {}};
    if (receive_.keys.version == ktls::Version::kTls13) {
      while (!text.empty() && text.back() == 0) text.pop_back();  // padding
      if (text.empty()) return std::nullopt;
      record.type = static_cast<ktls::RecordType>(text.back());
      text.pop_back();
    }
    record.payload.assign(text.begin(), text.end());
    return record;
  }

  bool update_receive_keys() override { return update(receive_secret_, receive_.keys); }
  bool update_transmit_keys() override { return update(transmit_secret_, transmit_.keys); }

 private:
  template <ktls::Direction D>
  bool update(ktls::TrafficSecret& secret, ktls::Keys<D>& keys) const {
    auto next = ktls::next_secret(hash_, secret);
    if (!next) return false;
    auto next_keys = ktls::keys_from_secret<D>(keys.aead, hash_, *next, {0});
    if (!next_keys) return false;
    secret = std::move(*next);
    keys = std::move(*next_keys);
    return true;
  }

  bool read_exactly(Bytes& into) const {
    std::size_t have = 0;
    while (have < into.size()) {
      if (!wait_readable(fd_)) return false;
      const ssize_t count = ::recv(fd_, into.data() + have, into.size() - have, 0);
      if (count <= 0) return false;
      have += static_cast<std::size_t>(count);
    }
    return true;
  }

  int fd_;
  Fd own_;
  ktls::Hash hash_;
  ktls::TrafficSecret transmit_secret_;
  ktls::TrafficSecret receive_secret_;
  Protection<ktls::Direction::kTransmit> transmit_;
  Protection<ktls::Direction::kReceive> receive_;
  std::uint64_t nonce_;
};

}  // namespace

std::unique_ptr<Carrier> hand_over_to_user_space(handshake::TlsSession& session) {
  auto keys = session.export_keys();
  if (!keys) {
    ADD_FAILURE() << keys.error().what;
    return nullptr;
  }
  return std::make_unique<UserSpaceCarrier>(session.fd(), Fd(), std::move(*keys));
}

std::unique_ptr<Carrier> carry_in_user_space(Fd socket, handshake::HandoverKeys keys) {
  const int fd = socket.get();
  return std::make_unique<UserSpaceCarrier>(fd, std::move(socket), std::move(keys));
}

}  // namespace ktrunk::test
