#include "handshake/tls_context_stapling.h"

#include <openssl/err.h>
#include <openssl/ocsp.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <string_view>

#include "base/log.h"
#include "handshake/tls_failure.h"

namespace ktrunk::handshake {
namespace {

constexpr long kClockSkew_s = 300;

struct FreeOcsp {
  void operator()(OCSP_RESPONSE* response) const { OCSP_RESPONSE_free(response); }
  void operator()(OCSP_BASICRESP* basic) const { OCSP_BASICRESP_free(basic); }
  void operator()(X509_STORE* store) const { X509_STORE_free(store); }
  void operator()(STACK_OF(X509) * stack) const { sk_X509_free(stack); }
};

struct Staples {
  std::vector<std::shared_ptr<Staple>> all;
};

std::string_view octets(const ASN1_OCTET_STRING* text) {
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
          static_cast<std::size_t>(ASN1_STRING_length(text))};
}

// The issuer's certificate, where the chain has it.
X509* issuer_of(const Pair& pair) {
  const auto found = std::ranges::find_if(pair.chain, [&](const CertificatePtr& candidate) {
    return X509_check_issued(candidate.get(), pair.leaf.get()) == X509_V_OK;
  });
  return found == pair.chain.end() ? nullptr : found->get();
}

// RFC 6960 4.1.1: hashes of the issuer's name and key, and the serial number.
bool is_about(const OCSP_SINGLERESP* single, const Pair& pair) {
  ASN1_OCTET_STRING* name_hash = nullptr;
  ASN1_OCTET_STRING* key_hash = nullptr;
  ASN1_OBJECT* algorithm = nullptr;
  ASN1_INTEGER* serial = nullptr;
  auto* id = const_cast<OCSP_CERTID*>(OCSP_SINGLERESP_get0_id(single));  // OpenSSL's getter takes no const
  if (OCSP_id_get0_info(&name_hash, &algorithm, &key_hash, &serial, id) != 1) return false;
  const EVP_MD* digest = EVP_get_digestbyobj(algorithm);
  if (digest == nullptr || ASN1_INTEGER_cmp(serial, X509_get0_serialNumber(pair.leaf.get())) != 0) return false;
  std::array<unsigned char, EVP_MAX_MD_SIZE> hash = {};
  unsigned size = 0;
  const auto equals = [&](const ASN1_OCTET_STRING* expected) {
    return octets(expected) == std::string_view(reinterpret_cast<const char*>(hash.data()), size);
  };
  if (X509_NAME_digest(X509_get_issuer_name(pair.leaf.get()), digest, hash.data(), &size) != 1 || !equals(name_hash))
    return false;
  const X509* issuer = issuer_of(pair);
  return issuer == nullptr || (X509_pubkey_digest(issuer, digest, hash.data(), &size) == 1 && equals(key_hash));
}

OCSP_SINGLERESP* response_about(OCSP_BASICRESP* basic, const Pair& pair) {
  for (int i = 0; i < OCSP_resp_count(basic); ++i) {
    OCSP_SINGLERESP* single = OCSP_resp_get0(basic, i);
    if (is_about(single, pair)) return single;
  }
  return nullptr;
}

// Signed by the issuer, or by a responder that the issuer made one (RFC 6960 4.2.2.2).
bool is_signed(OCSP_BASICRESP* basic, const Pair& pair) {
  X509* issuer = issuer_of(pair);
  if (issuer == nullptr) return true;
  const std::unique_ptr<X509_STORE, FreeOcsp> store(X509_STORE_new());
  const std::unique_ptr<STACK_OF(X509), FreeOcsp> known(sk_X509_new_null());
  if (!store || !known || X509_STORE_add_cert(store.get(), issuer) != 1 || sk_X509_push(known.get(), issuer) < 1)
    return false;
  X509_STORE_set_flags(store.get(), X509_V_FLAG_PARTIAL_CHAIN);
  return OCSP_basic_verify(basic, known.get(), store.get(), 0) == 1;
}

std::optional<std::chrono::system_clock::time_point> time_of(const ASN1_GENERALIZEDTIME* time) {
  std::tm parts = {};
  if (time == nullptr || ASN1_TIME_to_tm(time, &parts) != 1) return std::nullopt;
  return std::chrono::system_clock::from_time_t(::timegm(&parts));
}

int on_status_request(SSL* session, void*) {
  const auto* staples = attached<Staples>(SSL_get_SSL_CTX(session));
  const X509* leaf = SSL_get_certificate(session);
  if (staples == nullptr || leaf == nullptr) return SSL_TLSEXT_ERR_NOACK;
  for (const std::shared_ptr<Staple>& staple : staples->all) {
    if (X509_cmp(staple->leaf.get(), leaf) != 0) continue;
    if (!staple->is_current(std::chrono::system_clock::now())) {
      if (!std::exchange(staple->expiry_said, true))
        log::warn("{}: the OCSP response has expired and is not stapled any more; fetch a new one, then reload",
                  staple->file);
      return SSL_TLSEXT_ERR_NOACK;
    }
    void* copy = OPENSSL_memdup(staple->der.data(), staple->der.size());
    if (copy == nullptr) return SSL_TLSEXT_ERR_NOACK;
    SSL_set_tlsext_status_ocsp_resp(session, copy, static_cast<long>(staple->der.size()));  // frees it
    return SSL_TLSEXT_ERR_OK;
  }
  return SSL_TLSEXT_ERR_NOACK;
}

}  // namespace

Result<std::shared_ptr<Staple>> read_staple(const Place& place, const std::string& path, const Pair& pair,
                                            std::vector<std::string>& warnings) {
  auto der = read_whole(place, "ocsp", path);
  if (!der) return std::unexpected(std::move(der.error()));
  const auto wrong = [&](std::string_view what) {
    ERR_clear_error();
    return place.wrong("ocsp", fmt::format("{}: {}", path, what));
  };
  const auto* at = reinterpret_cast<const unsigned char*>(der->data());
  const auto* end = at + der->size();
  const std::unique_ptr<OCSP_RESPONSE, FreeOcsp> response(
      d2i_OCSP_RESPONSE(nullptr, &at, static_cast<long>(der->size())));
  if (!response || at != end) return wrong("not an OCSP response; expected DER, as openssl ocsp -respout writes it");
  if (const int status = OCSP_response_status(response.get()); status != OCSP_RESPONSE_STATUS_SUCCESSFUL)
    return wrong(fmt::format("the responder answered {}; fetch a new one", OCSP_response_status_str(status)));
  const std::unique_ptr<OCSP_BASICRESP, FreeOcsp> basic(OCSP_response_get1_basic(response.get()));
  if (!basic) return wrong("not a basic OCSP response");
  OCSP_SINGLERESP* single = response_about(basic.get(), pair);
  if (single == nullptr)
    return wrong(fmt::format("it is not about the certificate in {}; fetch one that is", pair.certificate_file));
  if (!is_signed(basic.get(), pair))
    return wrong(fmt::format("its signature is not by the issuer in {} or its responder", pair.certificate_file));

  ASN1_GENERALIZEDTIME* this_update = nullptr;
  ASN1_GENERALIZEDTIME* next_update = nullptr;
  const int state = OCSP_single_get0_status(single, nullptr, nullptr, &this_update, &next_update);
  const auto unused = [&](std::string_view what) {
    ERR_clear_error();
    warnings.push_back(place.message("ocsp", fmt::format("{}: {}; it is not stapled", path, what)));
    return std::shared_ptr<Staple>();
  };
  if (state != V_OCSP_CERTSTATUS_GOOD)
    return unused(fmt::format("it says that our certificate is {}: peers will refuse it; renew the certificate",
                              OCSP_cert_status_str(state)));
  auto staple = std::make_shared<Staple>();
  staple->file = path;
  staple->next_update = time_of(next_update);
  if (!staple->is_current(std::chrono::system_clock::now())) return unused("the response has expired; fetch a new one");
  if (OCSP_check_validity(this_update, next_update, kClockSkew_s, -1) != 1)
    return unused("the response is not valid yet; check the clock");
  staple->der = std::move(*der);
  staple->leaf.reset(X509_dup(pair.leaf.get()));
  return staple;
}

Status serve_staples(SSL_CTX* context, const Place& place, std::vector<std::shared_ptr<Staple>> staples) {
  if (staples.empty()) return {};
  if (!attach(context, std::make_unique<Staples>(std::move(staples)))) return place.wrong("ocsp", openssl_error());
  SSL_CTX_callback_ctrl(context, SSL_CTRL_SET_TLSEXT_STATUS_REQ_CB, reinterpret_cast<void (*)()>(on_status_request));
  return {};
}

}  // namespace ktrunk::handshake
