// TLS context: the OpenSSL configuration of one listener or one trunk, made from what the operator wrote.
// The handshake process holds them, and nobody else: here lies the private key. Public OpenSSL 3.0 API only, an SSL_CTX
// of our own, and never OpenSSL's own kernel TLS.
//
// Defaults: TLS 1.2 and 1.3, ECDHE with AES-GCM or ChaCha20-Poly1305, no renegotiation, no compression, no early data,
// no read-ahead. Chains are verified by OpenSSL, with purposes and revocation as tls_context_verification.h says; names
// by PeerIdentity (RFC 5922). Several certificates by SNI: tls_context_certificates.h. Stapling:
// tls_context_stapling.h. ALPN: tls_context_alpn.h.
#pragma once

#include <openssl/ssl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "config/config.h"

namespace ktrunk::handshake {

class TicketKeys;

// Which side of TLS we are: the server accepts, the client connects.
enum class Role : std::uint8_t { kAccept, kConnect };

// Sessions keep what they need of a context: it may be replaced (reload) or destroyed while its sessions live.
class TlsContext {
 public:
  // Reads the files. Errors name the file and the configuration's key and say what to do.
  // tickets: seals the sessions' tickets; null: keys of this context's own. Where there are keys, they must outlive the
  // context and its sessions.
  [[nodiscard]] static Result<TlsContext> for_listener(const config::Listener& listener, TicketKeys* tickets = nullptr);
  [[nodiscard]] static Result<TlsContext> for_trunk(const config::Trunk& trunk);

  // Things that work but will not for long, or not for all: a certificate that has expired, is not yet valid, or
  // expires in 14 days; an expired revocation list or OCSP response.
  [[nodiscard]] const std::vector<std::string>& warnings() const { return warnings_; }

  // What the peer is verified by: a digest of our name, the way of verification, the contents of CA and CRL files. A
  // listener's is the session id context: a ticket never opens under another. For a trunk, a session that was kept
  // under another must not be resumed.
  [[nodiscard]] const std::string& verification() const { return verification_; }

  // For TlsSession.
  [[nodiscard]] SSL_CTX* get() const { return context_.get(); }
  [[nodiscard]] const std::string& verify_name() const { return verify_name_; }  // trunk's; may be empty
  [[nodiscard]] const std::string& owner() const { return owner_; }              // "listener 'x'", "trunk 'y'"
  // What a finished handshake must have agreed on: "sip/2" under Alpn::kRequire as a client. (A server refuses during
  // the handshake.) For any session of any context.
  [[nodiscard]] static Status check_agreed(const SSL* session);

 private:
  struct Free {
    void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  };
  TlsContext() = default;
  std::unique_ptr<SSL_CTX, Free> context_;
  std::string verify_name_;
  std::string owner_;
  std::string verification_;
  std::vector<std::string> warnings_;
};

}  // namespace ktrunk::handshake
