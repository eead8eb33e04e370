// Certificates for tests: an authority and what it signs, as PEM files. Made anew for every run: nothing that expires
// lies in the tree.
#pragma once

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace ktrunk::test {

enum class KeyType { kEcP256, kRsa2048 };
enum class Validity { kNow, kExpired, kNotYet };
enum class Purpose { kBoth, kServer, kClient };  // extendedKeyUsage

struct CertificateOptions {
  std::string name = "leaf";  // of the files: NAME.pem, NAME.key
  std::string common_name;    // empty: no subject CN
  std::vector<std::string> dns;
  std::vector<std::string> ips;
  std::vector<std::string> uris;  // "sip:example.com" (RFC 5922 4)
  KeyType key = KeyType::kEcP256;
  Validity validity = Validity::kNow;
  Purpose purpose = Purpose::kBoth;
};

struct CertificateFiles {
  std::string certificate;
  std::string key;
};

class CertificateAuthority {
 public:
  // Makes a self-signed authority and writes FOLDER/NAME.pem. Throws std::runtime_error.
  CertificateAuthority(std::filesystem::path folder, const std::string& name, KeyType key = KeyType::kEcP256);

  [[nodiscard]] const std::string& file() const { return file_; }
  // Signs a certificate for a new key and writes both files. Throws std::runtime_error.
  [[nodiscard]] CertificateFiles issue(const CertificateOptions& options) const;

 private:
  struct Free {
    void operator()(X509* certificate) const { ::X509_free(certificate); }
    void operator()(EVP_PKEY* key) const { ::EVP_PKEY_free(key); }
  };
  std::filesystem::path folder_;
  std::string file_;
  std::unique_ptr<EVP_PKEY, Free> key_;
  std::unique_ptr<X509, Free> certificate_;
};

}  // namespace ktrunk::test
