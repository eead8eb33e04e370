#include "handshake/tls_context_verification.h"

#include <openssl/err.h>
#include <openssl/objects.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>

#include "handshake/tls_failure.h"

namespace ktrunk::handshake {
namespace {

struct Purpose {
  PeerPurpose purpose = PeerPurpose::kServer;
};

constexpr const char* kSipDomain = "1.3.6.1.5.5.7.3.20";  // RFC 5924 4, id-kp-sipDomain

// For SIP, or for anything: what OpenSSL's purposes know nothing of.
bool is_for_sip(const X509* certificate) {
  const std::unique_ptr<EXTENDED_KEY_USAGE, decltype(&EXTENDED_KEY_USAGE_free)> usages(
      static_cast<EXTENDED_KEY_USAGE*>(X509_get_ext_d2i(certificate, NID_ext_key_usage, nullptr, nullptr)),
      EXTENDED_KEY_USAGE_free);
  for (int i = 0; usages && i < sk_ASN1_OBJECT_num(usages.get()); ++i) {
    const ASN1_OBJECT* usage = sk_ASN1_OBJECT_value(usages.get(), i);
    std::array<char, 32> text = {};
    constexpr int kAsNumbers = 1;
    OBJ_obj2txt(text.data(), static_cast<int>(text.size()), usage, kAsNumbers);
    if (OBJ_obj2nid(usage) == NID_anyExtendedKeyUsage || std::string_view(text.data()) == kSipDomain) return true;
  }
  return false;
}

enum class Place509 : std::uint8_t { kLeaf, kIssuer };

// keyUsage as TLS needs it (RFC 5280 4.2.1.3); X509_get_key_usage() gives all bits where there is no such extension.
bool key_usage_fits(X509* certificate, int purpose, Place509 place) {
  const std::uint32_t usage = X509_get_key_usage(certificate);
  if (place == Place509::kIssuer) return (usage & KU_KEY_CERT_SIGN) != 0;
  const std::uint32_t wanted = purpose == X509_PURPOSE_SSL_CLIENT
                                   ? KU_DIGITAL_SIGNATURE | KU_KEY_AGREEMENT
                                   : KU_DIGITAL_SIGNATURE | KU_KEY_ENCIPHERMENT | KU_KEY_AGREEMENT;
  return (usage & wanted) != 0;
}

bool is_for(X509* certificate, int purpose, Place509 place) {
  if (X509_check_purpose(certificate, purpose, place == Place509::kIssuer ? 1 : 0) == 1) return true;
  return is_for_sip(certificate) && key_usage_fits(certificate, purpose, place);
}

// The first certificate of the chain that is not for the purpose; -1: all are.
int first_unfit(STACK_OF(X509) * chain, int purpose) {
  for (int i = 0; i < sk_X509_num(chain); ++i)
    if (!is_for(sk_X509_value(chain, i), purpose, i == 0 ? Place509::kLeaf : Place509::kIssuer)) return i;
  return -1;
}

int first_unfit(STACK_OF(X509) * chain, PeerPurpose purpose) {
  const int as_client = purpose == PeerPurpose::kServer ? 0 : first_unfit(chain, X509_PURPOSE_SSL_CLIENT);
  if (purpose == PeerPurpose::kClient || (purpose == PeerPurpose::kClientOrServer && as_client < 0)) return as_client;
  return first_unfit(chain, X509_PURPOSE_SSL_SERVER);
}

SSL_verify_cb callback_of(X509_STORE_CTX* store) {
  const auto* session =
      static_cast<const SSL*>(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
  return session != nullptr ? SSL_get_verify_callback(session) : nullptr;
}

// Before the session's own callback. CRLs are looked for along the whole chain; only the peer's own is a must.
int on_verify(int ok, X509_STORE_CTX* store) {
  if (ok != 1 && X509_STORE_CTX_get_error(store) == X509_V_ERR_UNABLE_TO_GET_CRL &&
      X509_STORE_CTX_get_error_depth(store) > 0) {
    X509_STORE_CTX_set_error(store, X509_V_OK);
    return 1;
  }
  const SSL_verify_cb session = callback_of(store);
  return session != nullptr ? session(ok, store) : ok;
}

// In place of X509_verify_cert(). OpenSSL's own check of purposes is left out, for it knows neither sipDomain nor
// "client or server"; ours comes behind it.
int verify_chain(X509_STORE_CTX* store, void* argument) {
  const auto& wanted = *static_cast<const Purpose*>(argument);
  X509_VERIFY_PARAM_set_purpose(X509_STORE_CTX_get0_param(store), X509_PURPOSE_ANY);
  X509_STORE_CTX_set_verify_cb(store, on_verify);
  const int result = X509_verify_cert(store);
  if (result != 1 || X509_STORE_CTX_get_error(store) != X509_V_OK) return result;
  STACK_OF(X509)* chain = X509_STORE_CTX_get0_chain(store);
  const int unfit = first_unfit(chain, wanted.purpose);
  if (unfit < 0) return 1;
  X509_STORE_CTX_set_error(store, X509_V_ERR_INVALID_PURPOSE);
  X509_STORE_CTX_set_error_depth(store, unfit);
  X509_STORE_CTX_set_current_cert(store, sk_X509_value(chain, unfit));
  on_verify(0, store);  // so that the session can say what it was; there is no way past it
  return 0;
}

std::string name_text(const X509_NAME* name) {
  std::array<char, 256> text = {};
  return X509_NAME_oneline(name, text.data(), static_cast<int>(text.size())) != nullptr ? text.data() : "";
}

// All certificates and lists of a PEM text.
using Infos = std::unique_ptr<STACK_OF(X509_INFO), void (*)(STACK_OF(X509_INFO)*)>;
Infos read_infos(std::string_view text) {
  const BioPtr bio = memory_bio(text);
  return {bio ? PEM_X509_INFO_read_bio(bio.get(), nullptr, nullptr, nullptr) : nullptr,
          [](STACK_OF(X509_INFO) * infos) { sk_X509_INFO_pop_free(infos, X509_INFO_free); }};
}

}  // namespace

std::string digest_of(std::string_view octets) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest = {};
  unsigned size = 0;
  EVP_Digest(octets.data(), octets.size(), digest.data(), &size, EVP_sha256(), nullptr);
  return {reinterpret_cast<const char*>(digest.data()), size};
}

Status Trust::add_authorities(const Place& place, const std::string& path, const std::string& text) {
  const Infos infos = read_infos(text);
  for (int i = 0; infos && i < sk_X509_INFO_num(infos.get()); ++i) {
    X509_INFO* info = sk_X509_INFO_value(infos.get(), i);
    if (info->x509 == nullptr) continue;
    if (X509_STORE_add_cert(store_.get(), info->x509) != 1)
      return place.wrong("ca", fmt::format("{}: {}", path, openssl_error()));
    authorities_.emplace_back(std::exchange(info->x509, nullptr));
  }
  if (infos && !authorities_.empty()) return {};
  return place.wrong("ca", fmt::format("{}: no CA certificate could be read: {}", path, openssl_error()));
}

Status Trust::add_revocations(const Place& place, const std::string& path, const std::string& text,
                              std::vector<std::string>& warnings) {
  const Infos infos = read_infos(text);
  int lists = 0;
  for (int i = 0; infos && i < sk_X509_INFO_num(infos.get()); ++i) {
    X509_CRL* list = sk_X509_INFO_value(infos.get(), i)->crl;
    if (list == nullptr) continue;
    ++lists;
    if (X509_STORE_add_crl(store_.get(), list) != 1)
      return place.wrong("crl", fmt::format("{}: {}", path, openssl_error()));
    const auto warn = [&](std::string_view what) {
      warnings.push_back(place.message(
          "crl", fmt::format("{}: the list of '{}' {}", path, name_text(X509_CRL_get_issuer(list)), what)));
    };
    const ASN1_TIME* next = X509_CRL_get0_nextUpdate(list);
    if (next != nullptr && X509_cmp_current_time(next) < 0)
      warn("has expired: every certificate of that CA will be refused; fetch a new one, then reload");
    if (X509_cmp_current_time(X509_CRL_get0_lastUpdate(list)) > 0) warn("is not valid yet; check the clock");
  }
  if (!infos || lists == 0)
    return place.wrong("crl", fmt::format("{}: no certificate revocation list could be read: {}", path,
                                          infos ? "expected PEM, \"BEGIN X509 CRL\"" : openssl_error()));
  ERR_clear_error();
  X509_STORE_set_flags(store_.get(), X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
  return {};
}

Result<Trust> Trust::read(const Place& place, const std::string& ca, const std::string& crl,
                          std::vector<std::string>& warnings) {
  Trust trust;
  ERR_clear_error();
  trust.store_.reset(X509_STORE_new());
  if (!trust.store_) return fail("{}: OpenSSL gives no store: {}", place.owner, openssl_error());
  std::string digests;
  if (!ca.empty()) {
    const auto text = read_whole(place, "ca", ca);
    if (!text) return std::unexpected(text.error());
    if (Status status = trust.add_authorities(place, ca, *text); !status) return std::unexpected(status.error());
    digests += digest_of(*text);
  } else if (X509_STORE_set_default_paths(trust.store_.get()) != 1) {
    return place.wrong("ca", fmt::format("missing, and the system has no CA store: {}", openssl_error()));
  }
  if (!crl.empty()) {
    const auto text = read_whole(place, "crl", crl);
    if (!text) return std::unexpected(text.error());
    if (Status status = trust.add_revocations(place, crl, *text, warnings); !status)
      return std::unexpected(status.error());
    digests += digest_of(*text);
  }
  trust.digest_ = digest_of(digests);
  ERR_clear_error();
  return trust;
}

Status Trust::use(SSL_CTX* context, const Place& place, PeerPurpose purpose) const {
  auto wanted = std::make_unique<Purpose>(purpose);
  Purpose* argument = wanted.get();
  if (!attach(context, std::move(wanted))) return place.wrong("ca", openssl_error());
  SSL_CTX_set1_cert_store(context, store_.get());
  SSL_CTX_set_cert_verify_callback(context, verify_chain, argument);
  return {};
}

void Trust::name_to_clients(SSL_CTX* context) const {
  for (const CertificatePtr& authority : authorities_) SSL_CTX_add_client_CA(context, authority.get());
  ERR_clear_error();
}

}  // namespace ktrunk::handshake
