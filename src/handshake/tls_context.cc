#include "handshake/tls_context.h"

#include <openssl/err.h>

#include <array>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "handshake/ticket_keys.h"
#include "handshake/tls_context_alpn.h"
#include "handshake/tls_context_certificates.h"
#include "handshake/tls_context_files.h"
#include "handshake/tls_context_stapling.h"
#include "handshake/tls_context_verification.h"
#include "handshake/tls_failure.h"
#include "handshake/traffic_keys.h"

namespace ktrunk::handshake {
namespace {

// What the kernel can do, forward secret, AES first where both have it in hardware.
constexpr const char* kCiphers =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
constexpr const char* kCiphersuites = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

using Warnings = std::vector<std::string>;

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
  std::string groups = tls.groups;  // the macro casts to what may be changed
  if (!groups.empty() && SSL_CTX_set1_groups_list(context, groups.data()) != 1)
    return place.wrong("groups", fmt::format("'{}': not a list of key exchange groups that OpenSSL knows, such as "
                                             "X25519:P-256: {}",
                                             tls.groups, openssl_error()));
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
}

Result<ContextPtr> new_context(const SSL_METHOD* method, const Place& place, const config::Tls& tls) {
  ERR_clear_error();
  const Result<const char*> heard = traffic_keys_are_heard();
  if (!heard) return fail("{}: {}", place.owner, heard.error().what);
  ContextPtr context(SSL_CTX_new_ex(nullptr, *heard, method));
  if (!context) return fail("{}: OpenSSL gives no context: {}", place.owner, openssl_error());
  set_habits(context.get());
  if (Status status = set_protocol(context.get(), place, tls); !status) return std::unexpected(status.error());
  return context;
}

// What verifies the peer, as octets that differ when any of it does.
std::string describe_verification(const Place& place, std::string_view mode, const std::optional<Trust>& trust) {
  return digest_of(fmt::format("{}\n{}\n{}", place.owner, mode, trust ? trust->digest() : std::string()));
}

// Everything about a listener's contexts: there is one for each set of certificates, alike in all the rest, as a
// session takes its callbacks and its trust from the one that its server name leads to.
struct ListenerParts {
  const config::Listener& listener;
  Place place;
  TicketKeys* tickets;
  std::optional<Trust> trust;
  std::string verification;
  std::vector<ServedCertificate> certificates;  // the first is the default

  [[nodiscard]] Status read_trust(Warnings& warnings);
  [[nodiscard]] Status read_certificates(Warnings& warnings);
  [[nodiscard]] Result<ContextPtr> make(const CertificatePlan::Places& places) const;
  [[nodiscard]] Status verify_clients(SSL_CTX* context) const;
  void set_tickets(SSL_CTX* context) const;
};

Status ListenerParts::read_trust(Warnings& warnings) {
  const bool verifies = listener.verify_client != config::ClientVerification::kOff;
  if (verifies) {
    if (listener.tls.ca.empty())
      return place.wrong("ca", "missing; client certificates can only be verified against a CA file");
    auto read = Trust::read(place, listener.tls.ca, listener.tls.crl, warnings);
    if (!read) return std::unexpected(std::move(read.error()));
    trust = std::move(*read);
  }
  verification = describe_verification(
      place, fmt::format("{} {}", static_cast<int>(listener.verify_client), static_cast<int>(listener.client_purpose)),
      trust);
  return {};
}

Status ListenerParts::read_certificates(Warnings& warnings) {
  const auto add = [&](Place where, const std::string& certificate, const std::string& key, const std::string& ocsp,
                       const std::vector<std::string>& names) -> Status {
    auto pair = read_pair(where, certificate, key, warnings);
    if (!pair) return std::unexpected(std::move(pair.error()));
    ServedCertificate served{std::move(where), std::move(*pair), names, nullptr};
    if (served.names.empty()) served.names = names_of(served.pair.leaf.get());
    if (!ocsp.empty()) {
      auto staple = read_staple(served.place, ocsp, served.pair, warnings);
      if (!staple) return std::unexpected(std::move(staple.error()));
      served.staple = std::move(*staple);
    }
    certificates.push_back(std::move(served));
    return {};
  };
  const config::Tls& tls = listener.tls;
  if (tls.certificate.empty() || tls.key.empty())
    return place.wrong(tls.certificate.empty() ? "certificate" : "key", "missing; a TLS listener needs both");
  if (Status status = add(place, tls.certificate, tls.key, tls.ocsp, {}); !status) return status;
  for (const config::Certificate& other : listener.certificates) {
    const Place where{place.owner, place.table + ".certificates"};
    if (Status status = add(where, other.certificate, other.key, other.ocsp, other.names); !status) return status;
    if (certificates.back().names.empty())
      return where.wrong("certificate", fmt::format("{}: no DNS name in it that a client could ask for; expected "
                                                    "'names'",
                                                    other.certificate));
  }
  return {};
}

Status ListenerParts::verify_clients(SSL_CTX* context) const {
  SSL_CTX_set_session_id_context(context, reinterpret_cast<const unsigned char*>(verification.data()),
                                 static_cast<unsigned>(verification.size()));
  if (!trust) {
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, nullptr);
    return {};
  }
  const bool require = listener.verify_client == config::ClientVerification::kRequire;
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | (require ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), nullptr);
  trust->name_to_clients(context);
  const bool any = listener.client_purpose == config::ClientPurpose::kAny;
  return trust->use(context, place, any ? PeerPurpose::kClientOrServer : PeerPurpose::kClient);
}

void ListenerParts::set_tickets(SSL_CTX* context) const {
  SSL_CTX_set_num_tickets(context, listener.tickets);
  if (listener.tickets == 0) {
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET);  // TLS 1.2's too
  } else if (tickets != nullptr) {
    tickets->serve(context);
  }
}

Result<ContextPtr> ListenerParts::make(const CertificatePlan::Places& places) const {
  auto context = new_context(TLS_server_method(), place, listener.tls);
  if (!context) return context;
  std::vector<std::shared_ptr<Staple>> staples;
  for (const std::size_t i : places) {
    const ServedCertificate& served = certificates[i];
    if (Status status = use_certificate(context->get(), served.place, served.pair); !status)
      return std::unexpected(std::move(status.error()));
    if (served.staple) staples.push_back(served.staple);
  }
  if (Status status = serve_staples(context->get(), place, std::move(staples)); !status)
    return std::unexpected(std::move(status.error()));
  if (Status status = verify_clients(context->get()); !status) return std::unexpected(std::move(status.error()));
  complete_chains(context->get());
  accept_alpn(context->get(), listener.tls.alpn);
  set_tickets(context->get());
  return context;
}

// The contexts of all names, one for each set of certificates; the default set's is the listener's own.
Result<ContextPtr> make_contexts(const ListenerParts& parts) {
  const auto plan = plan_certificates(parts.certificates);
  if (!plan) return std::unexpected(plan.error());
  auto context = parts.make(plan->others);
  if (!context || plan->by_name.empty()) return context;
  auto by_name = std::make_unique<ContextsByName>();
  std::map<CertificatePlan::Places, SSL_CTX*> made = {{plan->others, context->get()}};
  for (const auto& [name, places] : plan->by_name) {
    auto found = made.find(places);
    if (found == made.end()) {
      auto other = parts.make(places);
      if (!other) return other;
      found = made.emplace(places, other->get()).first;
      by_name->contexts.push_back(std::move(*other));
    }
    by_name->names.emplace(name, found->second);
  }
  if (Status status = select_by_name(context->get(), parts.place, std::move(by_name)); !status)
    return std::unexpected(std::move(status.error()));
  return context;
}

}  // namespace

Result<TlsContext> TlsContext::for_listener(const config::Listener& listener, TicketKeys* tickets) {
  TlsContext made;
  made.owner_ = fmt::format("listener '{}'", listener.name);
  ListenerParts parts{listener, {made.owner_, "listen"}, tickets, {}, {}, {}};
  if (Status status = parts.read_certificates(made.warnings_); !status)
    return std::unexpected(std::move(status.error()));
  if (Status status = parts.read_trust(made.warnings_); !status) return std::unexpected(std::move(status.error()));
  auto context = make_contexts(parts);
  if (!context) return std::unexpected(std::move(context.error()));
  made.context_.reset(context->release());
  made.verification_ = parts.verification;
  return made;
}

Result<TlsContext> TlsContext::for_trunk(const config::Trunk& trunk) {
  const Place place{fmt::format("trunk '{}'", trunk.name), "trunk"};
  TlsContext made;
  made.owner_ = place.owner;
  made.verify_name_ = trunk.verify_name;
  auto fresh = new_context(TLS_client_method(), place, trunk.tls);
  if (!fresh) return std::unexpected(std::move(fresh.error()));
  made.context_.reset(fresh->release());
  SSL_CTX* context = made.context_.get();
  if (trunk.tls.certificate.empty() != trunk.tls.key.empty())
    return place.wrong(trunk.tls.certificate.empty() ? "certificate" : "key", "missing; give both or neither");
  if (!trunk.tls.certificate.empty()) {
    const auto pair = read_pair(place, trunk.tls.certificate, trunk.tls.key, made.warnings_);
    if (!pair) return std::unexpected(pair.error());
    if (Status status = use_certificate(context, place, *pair); !status)
      return std::unexpected(std::move(status.error()));
  }
  const auto trust = Trust::read(place, trunk.tls.ca, trunk.tls.crl, made.warnings_);
  if (!trust) return std::unexpected(trust.error());
  if (Status status = trust->use(context, place, PeerPurpose::kServer); !status)
    return std::unexpected(std::move(status.error()));
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  complete_chains(context);
  if (Status status = offer_alpn(context, place, trunk.tls.alpn); !status)
    return std::unexpected(std::move(status.error()));
  made.verification_ = digest_of(fmt::format("{}\n{}", place.owner, trust->digest()));
  return made;
}

Status TlsContext::check_agreed(const SSL* session) { return check_alpn(session); }

}  // namespace ktrunk::handshake
