// A certificate authority for tests: makes PEM files in a temporary folder that goes with it.
#pragma once

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>
#include <string>

#include "config/config.h"

namespace ktrunk::test {

class Pki {
 public:
  struct Wish {
    std::string common_name = "test";
    std::string names = "DNS:sip.example.com";  // subjectAltName as OpenSSL's configuration writes it; empty: none
    std::string usage;                          // extendedKeyUsage; empty: none
    long valid_from_s = -3600;                  // from now
    long valid_to_s = 100L * 86400;
    bool rsa = false;
  };
  struct Files {
    std::string certificate;
    std::string key;
  };

  explicit Pki(const std::string& authority = "Test CA");
  ~Pki();
  Pki(const Pki&) = delete;
  Pki& operator=(const Pki&) = delete;

  [[nodiscard]] Files issue(const Wish& wish);
  // A certificate alone, for what reads certificates.
  struct FreeX509 {
    void operator()(X509* certificate) const { X509_free(certificate); }
  };
  [[nodiscard]] std::unique_ptr<X509, FreeX509> certificate(const Wish& wish);
  [[nodiscard]] std::string authority_file() const { return folder_ + "/ca.pem"; }
  [[nodiscard]] std::string write_file(const std::string& name, const std::string& text) const;
  [[nodiscard]] std::string folder() const { return folder_; }

  // Tables as the configuration makes them.
  [[nodiscard]] config::Listener listener(const Files& files, unsigned tickets = 2) const;
  [[nodiscard]] config::Trunk trunk() const;

 private:
  struct FreeKey {
    void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  };
  using Key = std::unique_ptr<EVP_PKEY, FreeKey>;
  [[nodiscard]] std::unique_ptr<X509, FreeX509> sign(const Wish& wish, EVP_PKEY* subject_key, X509* issuer);

  std::string folder_;
  Key key_;
  std::unique_ptr<X509, FreeX509> certificate_;
  long serial_ = 1;
};

}  // namespace ktrunk::test
