#include "bench/common/certificate.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>

namespace ktrunk::bench {
namespace {

struct Free {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(X509_EXTENSION* extension) const { X509_EXTENSION_free(extension); }
  void operator()(std::FILE* file) const { std::fclose(file); }
};

constexpr long kDay = 24 * 3600;

std::unique_ptr<X509, Free> sign(EVP_PKEY* key, const std::string& name) {
  std::unique_ptr<X509, Free> certificate(X509_new());
  X509* made = certificate.get();
  if (made == nullptr) return nullptr;
  X509_set_version(made, X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(made), 1);
  X509_gmtime_adj(X509_getm_notBefore(made), -kDay);
  X509_gmtime_adj(X509_getm_notAfter(made), 2 * kDay);
  X509_set_pubkey(made, key);
  X509_NAME* subject = X509_get_subject_name(made);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1,
                             0);
  X509_set_issuer_name(made, subject);
  const std::string names = "DNS:" + name;
  const std::unique_ptr<X509_EXTENSION, Free> extension(
      X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, names.c_str()));
  if (extension == nullptr || X509_add_ext(made, extension.get(), -1) != 1) return nullptr;
  return X509_sign(made, key, EVP_sha256()) > 0 ? std::move(certificate) : nullptr;
}

}  // namespace

Result<TemporaryCertificate> TemporaryCertificate::make(KeyType type) {
  const char* base = std::getenv("TMPDIR");
  std::string folder = fmt::format("{}/ktrunk-bench.XXXXXX", base != nullptr ? base : "/tmp");
  if (::mkdtemp(folder.data()) == nullptr) return fail_errno(errno, "make a folder " + folder);
  TemporaryCertificate made{std::filesystem::path(folder)};
  const std::unique_ptr<EVP_PKEY, Free> key(type == KeyType::kEcdsaP256 ? EVP_EC_gen("P-256") : EVP_RSA_gen(2048));
  if (key == nullptr) return fail("OpenSSL cannot make a key");
  const auto certificate = sign(key.get(), std::string(kName));
  if (certificate == nullptr) return fail("OpenSSL cannot make a certificate");
  const std::unique_ptr<std::FILE, Free> certificate_file(std::fopen(made.certificate().c_str(), "we"));
  const std::unique_ptr<std::FILE, Free> key_file(std::fopen(made.key().c_str(), "we"));
  if (certificate_file == nullptr || key_file == nullptr) return fail_errno(errno, "write to " + folder);
  ::fchmod(::fileno(key_file.get()), S_IRUSR | S_IWUSR);
  if (PEM_write_X509(certificate_file.get(), certificate.get()) != 1 ||
      PEM_write_PrivateKey(key_file.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) != 1)
    return fail("OpenSSL cannot write to {}", folder);
  return made;
}

TemporaryCertificate::~TemporaryCertificate() {
  std::error_code ignored;
  if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
}

}  // namespace ktrunk::bench
