#include "handshake/key_export.h"

#include <openssl/evp.h>
#include <openssl/obj_mac.h>
#include <openssl/tls1.h>

#include <array>
#include <span>
#include <utility>

namespace ktrunk::handshake {
namespace {

Status check_direction(const DirectionTrace& trace, std::string_view name) {
  if (!trace.at_record_boundary) return fail("a {} record is half done", name);
  if (trace.announced != trace.passed)
    return fail("OpenSSL counts {} {} records, the socket {}", trace.announced, name, trace.passed);
  return {};
}

Status check_quiet(SSL* ssl, const SessionTrace& trace) {
  if (SSL_is_init_finished(ssl) != 1) return fail("the handshake is not finished");
  if (SSL_has_pending(ssl) != 0) return fail("OpenSSL holds received bytes");
  if (auto status = check_direction(trace.receive, "received"); !status) return status;
  if (auto status = check_direction(trace.transmit, "sent"); !status) return status;
  // RFC 6066 4: the kernel makes records of up to 16384 octets, whatever was agreed on.
  const SSL_SESSION* session = SSL_get0_session(ssl);
  if (session != nullptr && SSL_SESSION_get_max_fragment_length(session) != TLSEXT_max_fragment_length_DISABLED)
    return fail("the peer asked for short records (max_fragment_length), which the kernel does not make");
  return {};
}

template <ktls::Direction D>
Result<ktls::Keys<D>> keys_of(const Suite& suite, DirectionTrace& trace) {
  TrafficKeys& made = trace.keys;
  if (made.secret.size() != ktls::hash_bytes(suite.hash) || made.key.size() != ktls::key_bytes(suite.aead) ||
      made.iv.size() != ktls::kNonceBytes)
    return fail("OpenSSL was not seen to derive application traffic keys of the cipher suite's lengths");
  return ktls::Keys<D>{.version = ktls::Version::kTls13,
                       .aead = suite.aead,
                       .key = std::move(made.key),
                       .nonce = std::move(made.iv),
                       .next = {trace.passed}};
}

Result<HandoverKeys> export_tls13(const Suite& suite, ktls::Endpoint self, SessionTrace& trace) {
  auto transmit = keys_of<ktls::Direction::kTransmit>(suite, trace.transmit);
  if (!transmit) return std::unexpected(std::move(transmit.error()));
  auto receive = keys_of<ktls::Direction::kReceive>(suite, trace.receive);
  if (!receive) return std::unexpected(std::move(receive.error()));
  return HandoverKeys{{std::move(*transmit), std::move(*receive)},
                      suite.hash,
                      self,
                      std::move(trace.transmit.keys.secret),
                      std::move(trace.receive.keys.secret)};
}

Result<HandoverKeys> export_tls12(SSL* ssl, const Suite& suite, ktls::Endpoint self, const SessionTrace& trace) {
  ktls::Secret<SSL_MAX_MASTER_KEY_LENGTH> master;
  master.resize(SSL_MAX_MASTER_KEY_LENGTH);
  const auto out = master.writable();
  master.resize(
      SSL_SESSION_get_master_key(SSL_get0_session(ssl), reinterpret_cast<unsigned char*>(out.data()), out.size()));
  std::array<unsigned char, SSL3_RANDOM_SIZE> client = {};
  std::array<unsigned char, SSL3_RANDOM_SIZE> server = {};
  if (SSL_get_client_random(ssl, client.data(), client.size()) != client.size() ||
      SSL_get_server_random(ssl, server.data(), server.size()) != server.size())
    return fail("OpenSSL gave no handshake randoms");

  // OpenSSL starts the explicit nonces of AES-GCM anywhere and counts up: going on behind the last one that was sent
  // uses none of them twice under this key.
  auto keys = ktls::keys_from_master_secret(
      self, suite.aead, suite.hash,
      {master.bytes(), std::as_bytes(std::span(client)), std::as_bytes(std::span(server))},
      {{trace.transmit.passed}, {trace.receive.passed}, trace.transmit.last_explicit_nonce + 1});
  if (!keys) return std::unexpected(std::move(keys.error()));
  return HandoverKeys{std::move(*keys), suite.hash, self, {}, {}};
}

}  // namespace

Result<Suite> kernel_suite(const SSL* ssl) {
  const SSL_CIPHER* cipher = SSL_get_current_cipher(ssl);
  if (cipher == nullptr) return fail("no cipher suite is agreed on");
  Suite suite = {};
  switch (SSL_version(ssl)) {
    case TLS1_2_VERSION:
      suite.version = ktls::Version::kTls12;
      break;
    case TLS1_3_VERSION:
      suite.version = ktls::Version::kTls13;
      break;
    default:
      return fail("{} is not a version that the kernel does", SSL_get_version(ssl));
  }
  switch (SSL_CIPHER_get_cipher_nid(cipher)) {
    case NID_aes_128_gcm:
      suite.aead = ktls::Aead::kAes128Gcm;
      break;
    case NID_aes_256_gcm:
      suite.aead = ktls::Aead::kAes256Gcm;
      break;
    case NID_chacha20_poly1305:
      suite.aead = ktls::Aead::kChaCha20Poly1305;
      break;
    default:
      return fail("{} with {} is not a cipher suite that goes to the kernel", SSL_get_version(ssl),
                  SSL_CIPHER_get_name(cipher));
  }
  const EVP_MD* digest = SSL_CIPHER_get_handshake_digest(cipher);
  switch (digest != nullptr ? EVP_MD_get_type(digest) : NID_undef) {
    case NID_sha256:
      suite.hash = ktls::Hash::kSha256;
      break;
    case NID_sha384:
      suite.hash = ktls::Hash::kSha384;
      break;
    default:
      return fail("{}: a handshake hash that is neither SHA-256 nor SHA-384", SSL_CIPHER_get_name(cipher));
  }
  return suite;
}

Result<HandoverKeys> export_keys(SSL* ssl, SessionTrace& trace) {
  if (auto status = check_quiet(ssl, trace); !status) return std::unexpected(std::move(status.error()));
  auto suite = kernel_suite(ssl);
  if (!suite) return std::unexpected(std::move(suite.error()));
  const ktls::Endpoint self = SSL_is_server(ssl) == 1 ? ktls::Endpoint::kServer : ktls::Endpoint::kClient;
  return suite->version == ktls::Version::kTls13 ? export_tls13(*suite, self, trace)
                                                 : export_tls12(ssl, *suite, self, trace);
}

}  // namespace ktrunk::handshake
