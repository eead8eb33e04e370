#include "handshake/tls_context_certificates.h"

#include <openssl/err.h>

#include <algorithm>

#include "handshake/peer_identity.h"
#include "handshake/tls_failure.h"

namespace ktrunk::handshake {
namespace {

std::string lowered(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return out;
}

// "*.example.com" for "sip.example.com"; empty when there is no second label.
std::string wildcard_of(std::string_view name) {
  const std::size_t dot = name.find('.');
  if (dot == std::string_view::npos || dot == 0 || dot + 1 == name.size() || name.starts_with("*.")) return {};
  return fmt::format("*{}", name.substr(dot));
}

bool has_name(const ServedCertificate& certificate, std::string_view name) {
  return std::ranges::find(certificate.names, name) != certificate.names.end();
}

bool covers(const ServedCertificate& certificate, std::string_view name) {
  const std::string wildcard = wildcard_of(name);
  return has_name(certificate, name) || (!wildcard.empty() && has_name(certificate, wildcard));
}

int kind(const ServedCertificate& certificate) { return EVP_PKEY_get_base_id(certificate.pair.key.get()); }

// OpenSSL asks once the ClientHello is understood, before it chooses a certificate.
int on_server_name(SSL* session, int*, void*) {
  const SSL_CTX* context = SSL_get_SSL_CTX(session);
  const auto* by_name = attached<ContextsByName>(context);
  const char* name = SSL_get_servername(session, TLSEXT_NAMETYPE_host_name);
  if (by_name == nullptr || name == nullptr) return SSL_TLSEXT_ERR_NOACK;
  SSL_CTX* chosen = by_name->find(name);
  if (chosen == nullptr) return SSL_TLSEXT_ERR_NOACK;  // RFC 6066 3: not an error; the default certificate
  return SSL_set_SSL_CTX(session, chosen) != nullptr ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

}  // namespace

std::vector<std::string> names_of(const X509* leaf) {
  const PeerIdentity identity = read_identity(leaf);
  std::vector<std::string> names = identity.dns_names;
  names.insert(names.end(), identity.sip_domains.begin(), identity.sip_domains.end());
  std::ranges::sort(names);
  names.erase(std::ranges::unique(names).begin(), names.end());
  return names;
}

Result<CertificatePlan> plan_certificates(const std::vector<ServedCertificate>& certificates) {
  using Places = CertificatePlan::Places;
  const auto lacks_kind = [&](const Places& places, std::size_t other) {
    return std::ranges::none_of(
        places, [&](std::size_t place) { return kind(certificates[place]) == kind(certificates[other]); });
  };
  CertificatePlan plan;
  for (std::size_t i = 1; i < certificates.size(); ++i) {
    for (const std::string& name : certificates[i].names) {
      Places& places = plan.by_name[name];
      if (!lacks_kind(places, i)) {
        const auto first = std::ranges::find_if(
            places, [&](std::size_t place) { return kind(certificates[place]) == kind(certificates[i]); });
        return certificates[i].place.wrong(
            "names",
            fmt::format("'{}' is served with {} and with {}, and their keys are of one kind; expected one "
                        "certificate for each name and kind of key",
                        name, certificates[*first].pair.certificate_file, certificates[i].pair.certificate_file));
      }
      places.push_back(i);
    }
  }
  for (auto& [name, places] : plan.by_name) {
    for (std::size_t i = 1; i < certificates.size(); ++i)
      if (covers(certificates[i], name) && lacks_kind(places, i)) places.push_back(i);
    if (covers(certificates[0], name) && lacks_kind(places, 0)) places.push_back(0);
    std::ranges::sort(places);
  }
  plan.others = {0};
  const std::vector<std::string>& names = certificates[0].names;
  for (std::size_t i = 1; i < certificates.size() && !names.empty(); ++i) {
    const bool all =
        std::ranges::all_of(names, [&](const std::string& name) { return has_name(certificates[i], name); });
    if (all && lacks_kind(plan.others, i)) plan.others.push_back(i);
  }
  return plan;
}

Status use_certificate(SSL_CTX* context, const Place& place, const Pair& pair) {
  const std::unique_ptr<STACK_OF(X509), void (*)(STACK_OF(X509)*)> chain(
      pair.chain.empty() ? nullptr : sk_X509_new_null(), [](STACK_OF(X509) * stack) { sk_X509_free(stack); });
  for (const CertificatePtr& issuer : pair.chain) sk_X509_push(chain.get(), issuer.get());
  ERR_clear_error();
  constexpr int kReplace = 1;
  if (SSL_CTX_use_cert_and_key(context, pair.leaf.get(), pair.key.get(), chain.get(), kReplace) == 1) return {};
  return place.wrong("certificate", fmt::format("{}: {}", pair.certificate_file, openssl_error()));
}

void complete_chains(SSL_CTX* context) {
  // Like the handshake's own search this one does not mind what is wrong with a certificate: the peer will.
  constexpr int kAnyWithoutRoot =
      SSL_BUILD_CHAIN_FLAG_NO_ROOT | SSL_BUILD_CHAIN_FLAG_IGNORE_ERROR | SSL_BUILD_CHAIN_FLAG_CLEAR_ERROR;
  for (long there = SSL_CTX_set_current_cert(context, SSL_CERT_SET_FIRST); there == 1;
       there = SSL_CTX_set_current_cert(context, SSL_CERT_SET_NEXT)) {
    STACK_OF(X509)* chain = nullptr;
    SSL_CTX_get0_chain_certs(context, &chain);
    if (sk_X509_num(chain) <= 0) (void)SSL_CTX_build_cert_chain(context, kAnyWithoutRoot);
  }
  SSL_CTX_set_mode(context, SSL_MODE_NO_AUTO_CHAIN);
  ERR_clear_error();
}

SSL_CTX* ContextsByName::find(std::string_view server_name) const {
  const std::string name = lowered(server_name);
  auto found = names.find(name);
  if (found == names.end()) found = names.find(wildcard_of(name));
  return found == names.end() ? nullptr : found->second;
}

Status select_by_name(SSL_CTX* context, const Place& place, std::unique_ptr<ContextsByName> by_name) {
  if (!attach(context, std::move(by_name))) return place.wrong("certificates", openssl_error());
  SSL_CTX_callback_ctrl(context, SSL_CTRL_SET_TLSEXT_SERVERNAME_CB, reinterpret_cast<void (*)()>(on_server_name));
  return {};
}

}  // namespace ktrunk::handshake
