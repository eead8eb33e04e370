// OCSP stapling (RFC 6066 8, RFC 6960): a response that somebody fetched beforehand, from a file, shown to clients that
// ask for one. The handshake process runs it. Private to tls_context*.cc.
#pragma once

#include <openssl/ssl.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "handshake/tls_context_files.h"

namespace ktrunk::handshake {

struct Staple {
  std::string file;
  std::string der;
  CertificatePtr leaf;  // whom it is about
  std::optional<std::chrono::system_clock::time_point> next_update;
  bool expiry_said = false;  // one log line, not one a handshake

  [[nodiscard]] bool is_current(std::chrono::system_clock::time_point now) const {
    return !next_update || now < *next_update;
  }
};

// Null, and a warning, when the response must not be stapled now: expired, not yet valid, or not "good". Error: the
// file holds no successful response about this certificate, or (where the issuer is in the chain) one that it did not
// sign.
[[nodiscard]] Result<std::shared_ptr<Staple>> read_staple(const Place& place, const std::string& path, const Pair& pair,
                                                          std::vector<std::string>& warnings);

// From now on the context's sessions show the staple of the certificate that was chosen, while it is current.
[[nodiscard]] Status serve_staples(SSL_CTX* context, const Place& place, std::vector<std::shared_ptr<Staple>> staples);

}  // namespace ktrunk::handshake
