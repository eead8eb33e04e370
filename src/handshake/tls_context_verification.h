// How a context verifies the peer's certificate: authorities, revocation lists, purposes. Its names are TlsSession's
// matter (peer_identity.h). The handshake process runs it. Private to tls_context*.cc.
//
// Revocation (RFC 5280 6.3): with a CRL file, the list of the CA that signed the peer's own certificate must be in it
// and not have expired; of the CAs above, those lists count that are there. Lists that have expired let nobody in:
// OpenSSL says so, at load a warning does.
//
// Purpose: what extendedKeyUsage allows. A client's certificate must be for TLS clients, with client_purpose = "any"
// for clients or servers; a server's for TLS servers. One without extendedKeyUsage is for anything; so is
// anyExtendedKeyUsage (RFC 5280 4.2.1.12), and id-kp-sipDomain is for SIP in both roles (RFC 5924 5). Any other set of
// usages is refused. RFC 5924 alone would refuse serverAuth and clientAuth without sipDomain too, which is what every
// public CA issues: those are accepted, as RFC 5922 does.
#pragma once

#include <openssl/ssl.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "config/config.h"
#include "handshake/tls_context_files.h"

namespace ktrunk::handshake {

enum class PeerPurpose : std::uint8_t { kServer, kClient, kClientOrServer };

// What a context trusts, read once and shared by the contexts of one listener.
class Trust {
 public:
  // ca empty: the system's authorities. crl may be empty.
  [[nodiscard]] static Result<Trust> read(const Place& place, const std::string& ca, const std::string& crl,
                                          std::vector<std::string>& warnings);

  // The context's sessions verify their peers' certificates by this, for the purpose.
  [[nodiscard]] Status use(SSL_CTX* context, const Place& place, PeerPurpose purpose) const;
  // The authorities' names, as a hint to clients (RFC 8446 4.2.4).
  void name_to_clients(SSL_CTX* context) const;

  // Digest of both files' contents.
  [[nodiscard]] const std::string& digest() const { return digest_; }

 private:
  struct FreeStore {
    void operator()(X509_STORE* store) const { X509_STORE_free(store); }
  };
  Trust() = default;
  [[nodiscard]] Status add_authorities(const Place& place, const std::string& path, const std::string& text);
  [[nodiscard]] Status add_revocations(const Place& place, const std::string& path, const std::string& text,
                                       std::vector<std::string>& warnings);

  std::unique_ptr<X509_STORE, FreeStore> store_;
  std::vector<CertificatePtr> authorities_;
  std::string digest_;
};

// SHA-256.
[[nodiscard]] std::string digest_of(std::string_view octets);

}  // namespace ktrunk::handshake
