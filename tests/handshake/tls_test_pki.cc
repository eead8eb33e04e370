#include "handshake/tls_test_pki.h"

#include <gtest/gtest.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cstdio>
#include <filesystem>
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

void add_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context = {};
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  need(extension != nullptr, "extension");
  need(X509_add_ext(certificate, extension, -1) == 1, "X509_add_ext");
  X509_EXTENSION_free(extension);
}

}  // namespace

Pki::Pki(const std::string& authority) {
  std::string name = (std::filesystem::temp_directory_path() / "ktrunk-pki-XXXXXX").string();
  need(::mkdtemp(name.data()) != nullptr, "mkdtemp");
  folder_ = name;
  key_.reset(EVP_EC_gen("P-256"));
  certificate_ = sign({.common_name = authority, .names = ""}, key_.get(), nullptr);
  const File file(std::fopen(authority_file().c_str(), "w"));
  need(file && PEM_write_X509(file.get(), certificate_.get()) == 1, "ca.pem");
}

Pki::~Pki() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

std::unique_ptr<X509, Pki::FreeX509> Pki::sign(const Wish& wish, EVP_PKEY* subject_key, X509* issuer) {
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
  add_extension(certificate, signer, NID_basic_constraints, issuer != nullptr ? "CA:FALSE" : "critical,CA:TRUE");
  if (!wish.names.empty()) add_extension(certificate, signer, NID_subject_alt_name, wish.names);
  if (!wish.usage.empty()) add_extension(certificate, signer, NID_ext_key_usage, wish.usage);
  need(X509_sign(certificate, key_.get(), EVP_sha256()) > 0, "X509_sign");
  return made;
}

Pki::Files Pki::issue(const Wish& wish) {
  const Key key(wish.rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256"));
  const auto certificate = sign(wish, key.get(), certificate_.get());
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
  return sign(wish, key.get(), certificate_.get());
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
