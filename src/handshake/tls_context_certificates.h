// A listener's certificates, and which of them a client gets: by the name that it asks for (SNI, RFC 6066 3), then by
// the kinds of key that it can check. Certificates for one name whose keys differ in kind stand in one SSL_CTX, where
// OpenSSL picks. The handshake process runs it. Private to tls_context*.cc.
//
// A name has the certificates that carry it exactly; kinds of key that are missing then come from a wildcard ("*"
// stands for the first label, whole), and at last from the listener's default certificate where that covers the name.
// Any other name, and none, get the default certificate, beside it those of other kinds that have all its names.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "handshake/tls_context_files.h"
#include "handshake/tls_context_stapling.h"

namespace ktrunk::handshake {

struct ServedCertificate {
  Place place;
  Pair pair;
  std::vector<std::string> names;  // lower case; the configuration's, else names_of()
  std::shared_ptr<Staple> staple;  // null: none
};

// The names that a client may ask for in order to get this certificate: subjectAltName dNSNames, wildcards among them,
// and the hosts of sip: URIs (RFC 5922 7.1: such a client asks for the domain).
[[nodiscard]] std::vector<std::string> names_of(const X509* leaf);

// Places in the list of certificates, the first of which is the listener's default.
struct CertificatePlan {
  using Places = std::vector<std::size_t>;
  Places others;                                       // for names that are not below
  std::map<std::string, Places, std::less<>> by_name;  // exact, or "*." and the rest
};
// Error: two certificates with keys of one kind for the same name; it names both files. The default may be one of them:
// the other has precedence then.
[[nodiscard]] Result<CertificatePlan> plan_certificates(const std::vector<ServedCertificate>& certificates);

// Gives a context one certificate, beside those of other kinds of key that it has.
[[nodiscard]] Status use_certificate(SSL_CTX* context, const Place& place, const Pair& pair);

// Once the context has its certificates and authorities: those without issuers in their file get what authorities there
// are above them, all but the root (RFC 8446 4.4.2). OpenSSL would look for them, and verify what it finds, in every
// handshake.
void complete_chains(SSL_CTX* context);

// Contexts by name, for the one whose sessions they serve; attach to that and select.
struct ContextsByName {
  std::map<std::string, SSL_CTX*, std::less<>> names;
  std::vector<ContextPtr> contexts;  // owns what names point to

  [[nodiscard]] SSL_CTX* find(std::string_view server_name) const;  // null: none has the name
};
[[nodiscard]] Status select_by_name(SSL_CTX* context, const Place& place, std::unique_ptr<ContextsByName> by_name);

}  // namespace ktrunk::handshake
