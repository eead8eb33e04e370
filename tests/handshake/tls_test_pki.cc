#include "handshake/tls_test_pki.h"

#include <gtest/gtest.h>
#include <openssl/ec.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace ktrunk::test {
namespace {

void need(bool ok, const char* what) {
  if (!ok) throw std::runtime_error(what);
}

struct Close {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Close>;

std::string text_of(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

std::unique_ptr<X509, decltype(&X509_free)> read_certificate(const std::string& path) {
  const File file(std::fopen(path.c_str(), "r"));
  need(file != nullptr, "certificate file");
  return {PEM_read_X509(file.get(), nullptr, nullptr, nullptr), X509_free};
}

void add_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context = {};
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  need(extension != nullptr, "extension");
  need(X509_add_ext(certificate, extension, -1) == 1, "X509_add_ext");
  X509_EXTENSION_free(extension);
}

}  // namespace

Pki::Pki(const std::string& authority) : Pki(authority, nullptr) {}
Pki::Pki(const std::string& authority, const Pki& above) : Pki(authority, &above) {}

Pki::Pki(const std::string& authority, const Pki* above) {
  std::string name = (std::filesystem::temp_directory_path() / "ktrunk-pki-XXXXXX").string();
  need(::mkdtemp(name.data()) != nullptr, "mkdtemp");
  folder_ = name;
  key_.reset(EVP_EC_gen("P-256"));
  certificate_ =
      sign({.common_name = authority, .names = ""}, key_.get(), above != nullptr ? above->certificate_.get() : nullptr,
           above != nullptr ? above->key_.get() : key_.get());
  const File file(std::fopen(authority_file().c_str(), "w"));
  need(file && PEM_write_X509(file.get(), certificate_.get()) == 1, "ca.pem");
}

Pki::~Pki() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

std::unique_ptr<X509, Pki::FreeX509> Pki::sign(const Wish& wish, EVP_PKEY* subject_key, X509* issuer,
                                               EVP_PKEY* issuer_key) {
  std::unique_ptr<X509, FreeX509> made(X509_new());
  X509* certificate = made.get();
  X509_set_version(certificate, X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial_++);
  X509_gmtime_adj(X509_getm_notBefore(certificate), wish.valid_from_s);
  X509_gmtime_adj(X509_getm_notAfter(certificate), wish.valid_to_s);
  X509_set_pubkey(certificate, subject_key);
  X509_NAME* subject = X509_get_subject_name(certificate);
  if (!wish.common_name.empty())
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
                               reinterpret_cast<const unsigned char*>(wish.common_name.data()),
                               static_cast<int>(wish.common_name.size()), -1, 0);
  X509_set_issuer_name(certificate, issuer != nullptr ? X509_get_subject_name(issuer) : subject);
  X509* signer = issuer != nullptr ? issuer : certificate;
  const bool authority = subject_key == key_.get();
  add_extension(certificate, signer, NID_basic_constraints, authority ? "critical,CA:TRUE" : "CA:FALSE");
  if (!wish.names.empty()) add_extension(certificate, signer, NID_subject_alt_name, wish.names);
  if (!wish.usage.empty()) add_extension(certificate, signer, NID_ext_key_usage, wish.usage);
  if (!wish.key_usage.empty()) add_extension(certificate, signer, NID_key_usage, wish.key_usage);
  need(X509_sign(certificate, issuer_key, EVP_sha256()) > 0, "X509_sign");
  return made;
}

Pki::Files Pki::issue(const Wish& wish) {
  const Key key(wish.rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256"));
  const auto certificate = sign(wish, key.get(), certificate_.get(), key_.get());
  const std::string base = folder_ + "/" + std::to_string(serial_);
  Files files{base + ".pem", base + ".key"};
  const File chain(std::fopen(files.certificate.c_str(), "w"));
  need(chain && PEM_write_X509(chain.get(), certificate.get()) == 1, "certificate file");
  const File secret(std::fopen(files.key.c_str(), "w"));
  need(secret && PEM_write_PrivateKey(secret.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) == 1, "key file");
  ::chmod(files.key.c_str(), 0600);
  return files;
}

std::unique_ptr<X509, Pki::FreeX509> Pki::certificate(const Wish& wish) {
  const Key key(EVP_EC_gen("P-256"));
  return sign(wish, key.get(), certificate_.get(), key_.get());
}

std::string Pki::authority_text() const { return text_of(authority_file()); }

std::string Pki::chain_file(const Files& files) const {
  const std::string path = files.certificate + ".chain.pem";
  const File file(std::fopen(path.c_str(), "w"));
  const std::string text = text_of(files.certificate) + authority_text();
  need(file && std::fwrite(text.data(), 1, text.size(), file.get()) == text.size(), "chain file");
  return path;
}

std::string Pki::revocations(const std::vector<Files>& revoked, long valid_to_s) const {
  const std::unique_ptr<X509_CRL, decltype(&X509_CRL_free)> list(X509_CRL_new(), X509_CRL_free);
  const std::unique_ptr<ASN1_TIME, decltype(&ASN1_TIME_free)> time(X509_gmtime_adj(nullptr, -7200), ASN1_TIME_free);
  X509_CRL_set_version(list.get(), X509_CRL_VERSION_2);
  X509_CRL_set_issuer_name(list.get(), X509_get_subject_name(certificate_.get()));
  X509_CRL_set1_lastUpdate(list.get(), time.get());
  for (const Files& files : revoked) {
    X509_REVOKED* entry = X509_REVOKED_new();
    const auto certificate = read_certificate(files.certificate);
    X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(certificate.get()));
    X509_REVOKED_set_revocationDate(entry, time.get());
    X509_CRL_add0_revoked(list.get(), entry);
  }
  X509_gmtime_adj(time.get(), valid_to_s);
  X509_CRL_set1_nextUpdate(list.get(), time.get());
  X509_CRL_sort(list.get());
  need(X509_CRL_sign(list.get(), key_.get(), EVP_sha256()) > 0, "X509_CRL_sign");
  const std::unique_ptr<BIO, decltype(&BIO_free)> memory(BIO_new(BIO_s_mem()), BIO_free);
  need(PEM_write_bio_X509_CRL(memory.get(), list.get()) == 1, "CRL");
  char* data = nullptr;
  const long size = BIO_get_mem_data(memory.get(), &data);
  return {data, static_cast<std::size_t>(size)};
}

std::string Pki::ocsp(const Files& files, Ocsp status, long this_update_s, long next_update_s) const {
  const auto certificate = read_certificate(files.certificate);
  const std::unique_ptr<OCSP_BASICRESP, decltype(&OCSP_BASICRESP_free)> basic(OCSP_BASICRESP_new(),
                                                                              OCSP_BASICRESP_free);
  const std::unique_ptr<OCSP_CERTID, decltype(&OCSP_CERTID_free)> id(
      OCSP_cert_to_id(EVP_sha1(), certificate.get(), certificate_.get()), OCSP_CERTID_free);
  const std::unique_ptr<ASN1_TIME, decltype(&ASN1_TIME_free)> from(X509_gmtime_adj(nullptr, this_update_s),
                                                                   ASN1_TIME_free);
  const std::unique_ptr<ASN1_TIME, decltype(&ASN1_TIME_free)> until(X509_gmtime_adj(nullptr, next_update_s),
                                                                    ASN1_TIME_free);
  const bool revoked = status == Ocsp::kRevoked;
  need(OCSP_basic_add1_status(basic.get(), id.get(), revoked ? V_OCSP_CERTSTATUS_REVOKED : V_OCSP_CERTSTATUS_GOOD, 0,
                              revoked ? from.get() : nullptr, from.get(), until.get()) != nullptr &&
           OCSP_basic_sign(basic.get(), certificate_.get(), key_.get(), EVP_sha256(), nullptr, OCSP_NOCERTS) == 1,
       "OCSP");
  const bool later = status == Ocsp::kTryLater;
  const std::unique_ptr<OCSP_RESPONSE, decltype(&OCSP_RESPONSE_free)> response(
      OCSP_response_create(later ? OCSP_RESPONSE_STATUS_TRYLATER : OCSP_RESPONSE_STATUS_SUCCESSFUL,
                           later ? nullptr : basic.get()),
      OCSP_RESPONSE_free);
  unsigned char* der = nullptr;
  const int size = i2d_OCSP_RESPONSE(response.get(), &der);
  need(size > 0, "OCSP response");
  std::string text(reinterpret_cast<const char*>(der), static_cast<std::size_t>(size));
  OPENSSL_free(der);
  return text;
}

std::string Pki::write_file(const std::string& name, const std::string& text) const {
  const std::string path = folder_ + "/" + name;
  const File file(std::fopen(path.c_str(), "w"));
  need(file && std::fwrite(text.data(), 1, text.size(), file.get()) == text.size(), "file");
  return path;
}

config::Listener Pki::listener(const Files& files, unsigned tickets) const {
  config::Listener listener;
  listener.name = "edge";
  listener.tls.certificate = files.certificate;
  listener.tls.key = files.key;
  listener.tickets = tickets;
  return listener;
}

config::Trunk Pki::trunk() const {
  config::Trunk trunk;
  trunk.name = "carrier";
  trunk.tls.ca = authority_file();
  return trunk;
}

}  // namespace ktrunk::test
