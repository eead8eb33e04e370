// The files of a TLS context: PEM certificates and keys, read with errors that name the file and the configuration's
// key. The handshake process runs it, when it starts and when it reloads. Private to tls_context*.cc.
#pragma once

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace ktrunk::handshake {

struct FreeOpenssl {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(X509* certificate) const { X509_free(certificate); }
};
using BioPtr = std::unique_ptr<BIO, FreeOpenssl>;
using KeyPtr = std::unique_ptr<EVP_PKEY, FreeOpenssl>;
using ContextPtr = std::unique_ptr<SSL_CTX, FreeOpenssl>;
using CertificatePtr = std::unique_ptr<X509, FreeOpenssl>;

// One TLS table of the configuration, for messages: "listener 'x': key 'listen.certificate': FILE: ...".
struct Place {
  std::string owner;
  std::string table;

  [[nodiscard]] std::string message(std::string_view key, std::string_view what) const {
    return fmt::format("{}: key '{}.{}': {}", owner, table, key, what);
  }
  [[nodiscard]] std::unexpected<Error> wrong(std::string_view key, std::string_view what) const {
    return fail("{}", message(key, what));
  }
};

// What a certificate file and its key file hold, found to belong together.
struct Pair {
  std::string certificate_file;
  std::string key_file;
  CertificatePtr leaf;
  std::vector<CertificatePtr> chain;  // the issuers, in the file's order
  KeyPtr key;
};

// Warnings: dates of the certificate, and a key that others may read.
[[nodiscard]] Result<Pair> read_pair(const Place& place, const std::string& certificate_file,
                                     const std::string& key_file, std::vector<std::string>& warnings);

// A file without secrets, whole; of a bounded size.
[[nodiscard]] Result<std::string> read_whole(const Place& place, std::string_view key, const std::string& path);

// A view of text, which must outlive it.
[[nodiscard]] BioPtr memory_bio(std::string_view text);

// An object of ours that goes with an SSL_CTX: callbacks find it there, for as long as a session uses the context.
template <typename T>
int attachment_index() {
  static const int index = SSL_CTX_get_ex_new_index(
      0, nullptr, nullptr, nullptr,
      [](void*, void* object, CRYPTO_EX_DATA*, int, long, void*) { delete static_cast<T*>(object); });
  return index;
}
template <typename T>
[[nodiscard]] bool attach(SSL_CTX* context, std::unique_ptr<T> object) {
  if (SSL_CTX_set_ex_data(context, attachment_index<T>(), object.get()) != 1) return false;
  (void)object.release();
  return true;
}
template <typename T>
[[nodiscard]] T* attached(const SSL_CTX* context) {
  return static_cast<T*>(SSL_CTX_get_ex_data(context, attachment_index<T>()));
}

}  // namespace ktrunk::handshake
