// TLS context: the OpenSSL configuration of one listener or one trunk, made from what the operator wrote.
// The handshake process holds them, and nobody else: here lies the private key. Public OpenSSL 3.0 API only, an SSL_CTX
// of our own, and never OpenSSL's own kernel TLS.
//
// Defaults: TLS 1.2 and 1.3, ECDHE with AES-GCM or ChaCha20-Poly1305, no renegotiation, no compression, no early data,
// no read-ahead. Chains are verified by OpenSSL, names by PeerIdentity (RFC 5922).
#pragma once

#include <openssl/ssl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "config/config.h"

namespace ktrunk::handshake {

// Which side of TLS we are: the server accepts, the client connects.
enum class Role : std::uint8_t { kAccept, kConnect };

// Sessions keep what they need of a context: it may be replaced (reload) or destroyed while its sessions live.
class TlsContext {
 public:
  // Reads the certificate, key and CA files. Errors name the file and the configuration's key and say what to do.
  [[nodiscard]] static Result<TlsContext> for_listener(const config::Listener& listener);
  [[nodiscard]] static Result<TlsContext> for_trunk(const config::Trunk& trunk);

  // Things that work but will not for long: a certificate that has expired, is not yet valid, or expires in 14 days.
  [[nodiscard]] const std::vector<std::string>& warnings() const { return warnings_; }

  // For TlsSession.
  [[nodiscard]] SSL_CTX* get() const { return context_.get(); }
  [[nodiscard]] const std::string& verify_name() const { return verify_name_; }  // trunk's; may be empty
  [[nodiscard]] const std::string& owner() const { return owner_; }              // "listener 'x'", "trunk 'y'"

 private:
  struct Free {
    void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  };
  TlsContext() = default;
  std::unique_ptr<SSL_CTX, Free> context_;
  std::string verify_name_;
  std::string owner_;
  std::vector<std::string> warnings_;
};

}  // namespace ktrunk::handshake
