// A certificate authority for tests: makes PEM files in a temporary folder that goes with it.
#pragma once

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>
#include <string>
#include <vector>

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
    std::string key_usage;  // keyUsage; empty: none
  };
  struct Files {
    std::string certificate;
    std::string key;
  };

  explicit Pki(const std::string& authority = "Test CA");
  Pki(const std::string& authority, const Pki& above);  // an intermediate CA
  ~Pki();
  Pki(const Pki&) = delete;
  Pki& operator=(const Pki&) = delete;

  [[nodiscard]] Files issue(const Wish& wish);
  // The same file with the CA's own certificate behind the leaf.
  [[nodiscard]] std::string chain_file(const Files& files) const;

  // A certificate revocation list of this CA, PEM. Times from now.
  [[nodiscard]] std::string revocations(const std::vector<Files>& revoked, long valid_to_s = 3600) const;
  // An OCSP response about the certificate, signed by this CA, DER.
  enum class Ocsp { kGood, kRevoked, kTryLater };
  [[nodiscard]] std::string ocsp(const Files& files, Ocsp status = Ocsp::kGood, long this_update_s = -60,
                                 long next_update_s = 3600) const;
  [[nodiscard]] std::string authority_text() const;

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
  Pki(const std::string& authority, const Pki* above);
  [[nodiscard]] std::unique_ptr<X509, FreeX509> sign(const Wish& wish, EVP_PKEY* subject_key, X509* issuer,
                                                     EVP_PKEY* issuer_key);

  std::string folder_;
  Key key_;
  std::unique_ptr<X509, FreeX509> certificate_;
  long serial_ = 1;
};

}  // namespace ktrunk::test
