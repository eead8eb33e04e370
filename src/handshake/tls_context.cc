#include "handshake/tls_context.h"

#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>
#include <utility>

#include "base/fd.h"
#include "handshake/tls_failure.h"

namespace ktrunk::handshake {
namespace {

// What the kernel can do, forward secret, AES first where both have it in hardware.
constexpr const char* kCiphers =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
constexpr const char* kCiphersuites = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
constexpr int kExpirySoonDays = 14;

struct FreeX509 {
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(BIO* bio) const { BIO_free(bio); }
};
using Certificate = std::unique_ptr<X509, FreeX509>;
using PrivateKey = std::unique_ptr<EVP_PKEY, FreeX509>;
using File = std::unique_ptr<BIO, FreeX509>;

// One TLS table of the configuration, for messages: "listener 'x': key 'listen.certificate': FILE: ...".
struct Place {
  std::string owner;
  std::string_view table;

  [[nodiscard]] std::unexpected<Error> wrong(std::string_view key, std::string_view what) const {
    return fail("{}: key '{}.{}': {}", owner, table, key, what);
  }
};

Result<File> open_file(const Place& place, std::string_view key, const std::string& path) {
  const Fd probe(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!probe.valid()) return place.wrong(key, fmt::format("{}: {}", path, errno_text(errno)));
  File file(BIO_new_file(path.c_str(), "r"));
  if (!file) return place.wrong(key, fmt::format("{}: {}", path, openssl_error()));
  return file;
}

// Nobody is there to type a password.
int no_password(char*, int, int, void*) { return -1; }

Result<Certificate> read_leaf(const Place& place, const std::string& path) {
  auto file = open_file(place, "certificate", path);
  if (!file) return std::unexpected(std::move(file.error()));
  Certificate leaf(PEM_read_bio_X509_AUX(file->get(), nullptr, no_password, nullptr));
  if (leaf) return leaf;
  const bool none = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  const std::string reason = openssl_error();
  if (none)
    return place.wrong("certificate",
                       fmt::format("{}: no PEM certificate in it; expected \"BEGIN CERTIFICATE\"", path));
  return place.wrong("certificate", fmt::format("{}: not a valid certificate: {}", path, reason));
}

// Whether a line of the file begins a private key of any kind: the decoder's own error does not tell.
bool has_private_key(BIO* file) {
  std::array<char, 128> line = {};
  bool found = false;
  BIO_ctrl(file, BIO_CTRL_RESET, 0, nullptr);
  while (!found && BIO_gets(file, line.data(), static_cast<int>(line.size())) > 0) {
    const std::string_view text(line.data());
    found = text.starts_with("-----BEGIN ") && text.find("PRIVATE KEY-----") != std::string_view::npos;
  }
  OPENSSL_cleanse(line.data(), line.size());
  return found;
}

Result<PrivateKey> read_key(const Place& place, const std::string& path) {
  auto file = open_file(place, "key", path);
  if (!file) return std::unexpected(std::move(file.error()));
  PrivateKey key(PEM_read_bio_PrivateKey(file->get(), nullptr, no_password, nullptr));
  if (key) return key;
  const int code = ERR_GET_REASON(ERR_peek_last_error());
  const std::string reason = openssl_error();
  if (code == PEM_R_BAD_PASSWORD_READ || code == PEM_R_BAD_DECRYPT)
    return place.wrong("key", fmt::format("{}: the key is encrypted; give one without a password, readable by ktrunk "
                                          "alone",
                                          path));
  if (!has_private_key(file->get()))
    return place.wrong("key", fmt::format("{}: no PEM private key in it; expected \"BEGIN PRIVATE KEY\"", path));
  return place.wrong("key", fmt::format("{}: not a valid private key: {}", path, reason));
}

void warn_about_dates(const Place& place, const std::string& path, const X509* leaf, std::vector<std::string>& out) {
  const auto add = [&](std::string_view what) {
    out.push_back(fmt::format("{}: key '{}.certificate': {}: {}", place.owner, place.table, path, what));
  };
  if (X509_cmp_current_time(X509_get0_notBefore(leaf)) > 0) add("the certificate is not valid yet; check the clock");
  if (X509_cmp_current_time(X509_get0_notAfter(leaf)) < 0) {
    add("the certificate has expired: peers will refuse it; renew it");
    return;
  }
  int days = 0;
  int seconds = 0;
  if (ASN1_TIME_diff(&days, &seconds, nullptr, X509_get0_notAfter(leaf)) == 1 && days < kExpirySoonDays)
    add(fmt::format("the certificate expires in {} days; renew it", days));
}

void warn_about_mode(const Place& place, const std::string& path, std::vector<std::string>& out) {
  struct stat status = {};
  if (::stat(path.c_str(), &status) == 0 && (status.st_mode & (S_IROTH | S_IWOTH)) != 0)
    out.push_back(
        fmt::format("{}: key '{}.key': {}: everyone on this machine may read or write the private key; "
                    "chmod 600",
                    place.owner, place.table, path));
}

Status load_certificate(SSL_CTX* context, const Place& place, const config::Tls& tls, std::vector<std::string>& out) {
  auto leaf = read_leaf(place, tls.certificate);
  if (!leaf) return std::unexpected(std::move(leaf.error()));
  auto key = read_key(place, tls.key);
  if (!key) return std::unexpected(std::move(key.error()));
  if (X509_check_private_key(leaf->get(), key->get()) != 1) {
    ERR_clear_error();
    return place.wrong("key", fmt::format("{}: does not belong to the certificate in {}; the file's first certificate "
                                          "must be the one of this key",
                                          tls.key, tls.certificate));
  }
  if (SSL_CTX_use_certificate_chain_file(context, tls.certificate.c_str()) != 1)
    return place.wrong("certificate", fmt::format("{}: {}", tls.certificate, openssl_error()));
  if (SSL_CTX_use_PrivateKey(context, key->get()) != 1)
    return place.wrong("key", fmt::format("{}: {}", tls.key, openssl_error()));
  warn_about_dates(place, tls.certificate, leaf->get(), out);
  warn_about_mode(place, tls.key, out);
  return {};
}

Status load_authorities(SSL_CTX* context, const Place& place, const std::string& path) {
  if (auto file = open_file(place, "ca", path); !file) return std::unexpected(std::move(file.error()));
  if (SSL_CTX_load_verify_file(context, path.c_str()) == 1) return {};
  return place.wrong("ca", fmt::format("{}: no CA certificate could be read: {}", path, openssl_error()));
}

Status set_protocol(SSL_CTX* context, const Place& place, const config::Tls& tls) {
  if (!tls.allow_tls12 && !tls.allow_tls13)
    return place.wrong("min_version", "no TLS version is left; expected min_version <= max_version");
  SSL_CTX_set_min_proto_version(context, tls.allow_tls12 ? TLS1_2_VERSION : TLS1_3_VERSION);
  SSL_CTX_set_max_proto_version(context, tls.allow_tls13 ? TLS1_3_VERSION : TLS1_2_VERSION);
  if (SSL_CTX_set_cipher_list(context, tls.ciphers.empty() ? kCiphers : tls.ciphers.c_str()) != 1)
    return place.wrong(
        "ciphers", fmt::format("'{}': OpenSSL knows none of these TLS 1.2 ciphers: {}", tls.ciphers, openssl_error()));
  if (SSL_CTX_set_ciphersuites(context, tls.ciphersuites.empty() ? kCiphersuites : tls.ciphersuites.c_str()) != 1)
    return place.wrong("ciphersuites",
                       fmt::format("'{}': not a list of TLS 1.3 cipher suites: {}", tls.ciphersuites, openssl_error()));
  return {};
}

void set_habits(SSL_CTX* context) {
  // The system's openssl.cnf may have set anything: say all that matters.
  SSL_CTX_clear_options(context,
                        SSL_OP_ENABLE_KTLS | SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_ALLOW_UNSAFE_LEGACY_RENEGOTIATION);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                   SSL_OP_PRIORITIZE_CHACHA | SSL_OP_NO_QUERY_MTU);
  SSL_CTX_clear_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE);
  SSL_CTX_set_mode(context, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_AUTO_RETRY | SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_read_ahead(context, 0);
  SSL_CTX_set_max_early_data(context, 0);
  SSL_CTX_set_recv_max_early_data(context, 0);
  // Tickets hold what a resumption needs; a cache would grow, and sessions of a trunk are its owner's.
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_default_passwd_cb(context, no_password);
}

}  // namespace

Result<TlsContext> TlsContext::for_listener(const config::Listener& listener) {
  const Place place{fmt::format("listener '{}'", listener.name), "listen"};
  TlsContext made;
  made.owner_ = place.owner;
  made.context_.reset(SSL_CTX_new(TLS_server_method()));
  SSL_CTX* context = made.context_.get();
  if (context == nullptr) return fail("{}: OpenSSL gives no context: {}", place.owner, openssl_error());
  set_habits(context);
  if (auto status = set_protocol(context, place, listener.tls); !status) return std::unexpected(status.error());
  if (listener.tls.certificate.empty() || listener.tls.key.empty())
    return place.wrong(listener.tls.certificate.empty() ? "certificate" : "key", "missing; a TLS listener needs both");
  if (auto status = load_certificate(context, place, listener.tls, made.warnings_); !status)
    return std::unexpected(status.error());

  if (listener.verify_client != config::ClientVerification::kOff) {
    if (listener.tls.ca.empty())
      return place.wrong("ca", "missing; client certificates can only be verified against a CA file");
    if (auto status = load_authorities(context, place, listener.tls.ca); !status)
      return std::unexpected(status.error());
    // Not fatal: the list of acceptable CAs is a hint to the client.
    if (STACK_OF(X509_NAME)* names = SSL_load_client_CA_file(listener.tls.ca.c_str()); names != nullptr)
      SSL_CTX_set_client_CA_list(context, names);
    ERR_clear_error();
    const bool require = listener.verify_client == config::ClientVerification::kRequire;
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | (require ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), nullptr);
  } else {
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, nullptr);
  }

  SSL_CTX_set_num_tickets(context, listener.tickets);
  if (listener.tickets == 0) SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
  // A ticket of one context never opens in another, for the ticket keys differ; OpenSSL still wants a name here.
  constexpr std::string_view kIdContext = "ktrunk";
  SSL_CTX_set_session_id_context(context, reinterpret_cast<const unsigned char*>(kIdContext.data()),
                                 static_cast<unsigned>(kIdContext.size()));
  return made;
}

Result<TlsContext> TlsContext::for_trunk(const config::Trunk& trunk) {
  const Place place{fmt::format("trunk '{}'", trunk.name), "trunk"};
  TlsContext made;
  made.owner_ = place.owner;
  made.verify_name_ = trunk.verify_name;
  made.context_.reset(SSL_CTX_new(TLS_client_method()));
  SSL_CTX* context = made.context_.get();
  if (context == nullptr) return fail("{}: OpenSSL gives no context: {}", place.owner, openssl_error());
  set_habits(context);
  if (auto status = set_protocol(context, place, trunk.tls); !status) return std::unexpected(status.error());
  if (trunk.tls.certificate.empty() != trunk.tls.key.empty())
    return place.wrong(trunk.tls.certificate.empty() ? "certificate" : "key", "missing; give both or neither");
  if (!trunk.tls.certificate.empty()) {
    if (auto status = load_certificate(context, place, trunk.tls, made.warnings_); !status)
      return std::unexpected(status.error());
  }
  if (!trunk.tls.ca.empty()) {
    if (auto status = load_authorities(context, place, trunk.tls.ca); !status) return std::unexpected(status.error());
  } else if (SSL_CTX_set_default_verify_paths(context) != 1) {
    return place.wrong("ca", fmt::format("missing, and the system has no CA store: {}", openssl_error()));
  }
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  return made;
}

}  // namespace ktrunk::handshake
