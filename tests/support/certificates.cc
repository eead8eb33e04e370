#include "support/certificates.h"

#include <fmt/format.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <cstdio>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace ktrunk::test {
namespace {

constexpr long kDay = 24L * 3600;

struct FreeAny {
  void operator()(X509* value) const { ::X509_free(value); }
  void operator()(EVP_PKEY* value) const { ::EVP_PKEY_free(value); }
  void operator()(X509_EXTENSION* value) const { ::X509_EXTENSION_free(value); }
  void operator()(BIGNUM* value) const { ::BN_free(value); }
  void operator()(std::FILE* value) const { std::fclose(value); }
};
template <typename Value>
using Owned = std::unique_ptr<Value, FreeAny>;

void require(bool good, std::string_view what) {
  if (good) return;
  char reason[256] = "";
  ::ERR_error_string_n(::ERR_get_error(), reason, sizeof reason);
  throw std::runtime_error(fmt::format("certificates for tests: {}: {}", what, reason));
}

EVP_PKEY* make_key(KeyType type) {
  EVP_PKEY* key = type == KeyType::kEcP256 ? ::EVP_EC_gen("P-256") : ::EVP_RSA_gen(2048u);
  require(key != nullptr, "key");
  return key;
}

void set_serial(X509* certificate) {
  const Owned<BIGNUM> number(::BN_new());
  require(number && ::BN_rand(number.get(), 127, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) == 1 &&
              ::BN_to_ASN1_INTEGER(number.get(), ::X509_get_serialNumber(certificate)) != nullptr,
          "serial number");
}

void set_validity(X509* certificate, Validity validity) {
  long from = -kDay;
  long to = 30 * kDay;
  if (validity == Validity::kExpired) std::tie(from, to) = std::pair(-30 * kDay, -kDay);
  if (validity == Validity::kNotYet) from = kDay;
  require(::X509_gmtime_adj(::X509_getm_notBefore(certificate), from) != nullptr &&
              ::X509_gmtime_adj(::X509_getm_notAfter(certificate), to) != nullptr,
          "validity");
}

void set_common_name(X509* certificate, const std::string& name) {
  if (name.empty()) return;
  X509_NAME* subject = ::X509_get_subject_name(certificate);
  require(
      ::X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(name.data()),
                                   static_cast<int>(name.size()), -1, 0) == 1,
      "common name");
}

void add_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  ::X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const Owned<X509_EXTENSION> extension(::X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
  require(extension && ::X509_add_ext(certificate, extension.get(), -1) == 1, value);
}

// "DNS:a.example,IP:127.0.0.1,URI:sip:a.example"
std::string alternative_names(const CertificateOptions& options) {
  std::string names;
  const auto add = [&](std::string_view kind, const std::vector<std::string>& values) {
    for (const std::string& value : values) names += fmt::format("{}{}:{}", names.empty() ? "" : ",", kind, value);
  };
  add("DNS", options.dns);
  add("IP", options.ips);
  add("URI", options.uris);
  return names;
}

Owned<std::FILE> create(const std::string& path) {
  Owned<std::FILE> file(std::fopen(path.c_str(), "we"));
  require(file != nullptr, path);
  return file;
}

void write_certificates(const std::string& path, const std::vector<X509*>& certificates) {
  const Owned<std::FILE> file = create(path);
  for (X509* certificate : certificates) require(::PEM_write_X509(file.get(), certificate) == 1, path);
}

void write_key(const std::string& path, EVP_PKEY* key) {
  const Owned<std::FILE> file = create(path);
  // As an operator would: ktrunk warns of keys that others can read.
  require(::fchmod(::fileno(file.get()), 0600) == 0, path);
  require(::PEM_write_PrivateKey(file.get(), key, nullptr, nullptr, 0, nullptr, nullptr) == 1, path);
}

}  // namespace

CertificateAuthority::CertificateAuthority(std::filesystem::path folder, const std::string& name, KeyType key)
    : folder_(std::move(folder)),
      file_((folder_ / (name + ".pem")).string()),
      key_(make_key(key)),
      certificate_(::X509_new()) {
  X509* certificate = certificate_.get();
  require(certificate != nullptr && ::X509_set_version(certificate, X509_VERSION_3) == 1, "X509");
  set_serial(certificate);
  set_validity(certificate, Validity::kNow);
  set_common_name(certificate, name);
  require(::X509_set_issuer_name(certificate, ::X509_get_subject_name(certificate)) == 1 &&
              ::X509_set_pubkey(certificate, key_.get()) == 1,
          "issuer and key");
  add_extension(certificate, certificate, NID_basic_constraints, "critical,CA:TRUE");
  add_extension(certificate, certificate, NID_key_usage, "critical,keyCertSign,cRLSign");
  add_extension(certificate, certificate, NID_subject_key_identifier, "hash");
  require(::X509_sign(certificate, key_.get(), ::EVP_sha256()) > 0, "sign");
  write_certificates(file_, {certificate});
}

CertificateFiles CertificateAuthority::issue(const CertificateOptions& options) const {
  const Owned<EVP_PKEY> key(make_key(options.key));
  const Owned<X509> owner(::X509_new());
  X509* certificate = owner.get();
  require(certificate != nullptr && ::X509_set_version(certificate, X509_VERSION_3) == 1, "X509");
  set_serial(certificate);
  set_validity(certificate, options.validity);
  set_common_name(certificate, options.common_name);
  require(::X509_set_issuer_name(certificate, ::X509_get_subject_name(certificate_.get())) == 1 &&
              ::X509_set_pubkey(certificate, key.get()) == 1,
          "issuer and key");
  add_extension(certificate, certificate_.get(), NID_basic_constraints, "critical,CA:FALSE");
  add_extension(certificate, certificate_.get(), NID_key_usage, "critical,digitalSignature");
  if (options.purpose != Purpose::kClient && options.purpose != Purpose::kServer) {
    add_extension(certificate, certificate_.get(), NID_ext_key_usage, "serverAuth,clientAuth");
  } else {
    add_extension(certificate, certificate_.get(), NID_ext_key_usage,
                  options.purpose == Purpose::kClient ? "clientAuth" : "serverAuth");
  }
  if (const std::string names = alternative_names(options); !names.empty())
    add_extension(certificate, certificate_.get(), NID_subject_alt_name, names);
  require(::X509_sign(certificate, key_.get(), ::EVP_sha256()) > 0, "sign");

  CertificateFiles files{(folder_ / (options.name + ".pem")).string(), (folder_ / (options.name + ".key")).string()};
  write_certificates(files.certificate, {certificate, certificate_.get()});
  write_key(files.key, key.get());
  return files;
}

}  // namespace ktrunk::test
