// TLS failure: why a handshake failed, in one line that an operator can act on. The handshake process logs it.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"
#include "handshake/tls_context.h"
#include "ktls/control_record.h"

namespace ktrunk::handshake {

// What was seen while the handshake ran.
struct FailureFacts {
  Role role = Role::kAccept;
  std::string owner;     // "listener 'x'" or "trunk 'y'"
  std::string expected;  // the name that the peer's certificate must carry; a client's
  std::optional<ktls::Alert> sent;
  std::optional<ktls::Alert> received;
  int verify_error = 0;  // X509_V_ERR_...; 0: none
  std::string verify_subject;
  std::string verify_issuer;
  std::string verify_leaf;   // the peer's own certificate; verify_subject may be one further up its chain
  std::string verify_names;  // PeerIdentity::describe() of a certificate with the wrong name
  int socket_error = 0;      // errno
  bool eof = false;
  std::span<const std::byte> beginning;  // first octets from the peer
};

// Empties OpenSSL's error queue of this thread and explains its first entry together with the facts.
[[nodiscard]] Error explain_failure(const FailureFacts& facts);

// The first entry of OpenSSL's error queue in OpenSSL's words, the queue emptied; for errors without a better one.
[[nodiscard]] std::string openssl_error();

}  // namespace ktrunk::handshake
