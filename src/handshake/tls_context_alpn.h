// ALPN (RFC 7301) with "sip/2", the one protocol that SIP has registered. The handshake process runs it. Private to
// tls_context*.cc.
#pragma once

#include <openssl/ssl.h>

#include "base/result.h"
#include "config/config.h"
#include "handshake/tls_context_files.h"

namespace ktrunk::handshake {

// As a server: chosen when offered; a client that offers only others is refused with no_application_protocol (3.2), and
// under `require` one that does not use ALPN too.
void accept_alpn(SSL_CTX* context, config::Alpn alpn);

// As a client: offered, unless off.
[[nodiscard]] Status offer_alpn(SSL_CTX* context, const Place& place, config::Alpn alpn);

// A finished session of a client's context: under `require` an error when the server has not chosen it.
[[nodiscard]] Status check_alpn(const SSL* session);

}  // namespace ktrunk::handshake
