// Key export: the keys and record numbers of a finished OpenSSL session, ready for the kernel, by public API of any
// OpenSSL 3 (RFC 8446 7.3, RFC 5246 6.3). The handshake process runs it once per connection.
#pragma once

#include <openssl/ssl.h>

#include <cstdint>
#include <optional>
#include <utility>

#include "base/result.h"
#include "handshake/traffic_keys.h"
#include "ktls/crypto_info.h"
#include "ktls/key_schedule.h"

namespace ktrunk::handshake {

// What outlives the handover: enough to make every later key of the connection. Wipes itself.
struct KernelSecrets {
  ktls::Version version = ktls::Version::kTls13;
  ktls::Aead aead = ktls::Aead::kAes128Gcm;
  ktls::Hash hash = ktls::Hash::kSha256;
  ktls::Endpoint self = ktls::Endpoint::kServer;
  ktls::TrafficSecret transmit;  // TLS 1.3, else empty
  ktls::TrafficSecret receive;
};

// What a connection takes along when it leaves OpenSSL. Wipes itself.
struct HandoverKeys {
  ktls::SessionKeys keys;  // with the numbers of the next records
  ktls::Hash hash = ktls::Hash::kSha256;
  ktls::Endpoint self = ktls::Endpoint::kServer;
  // TLS 1.3 only, else empty: for following key updates (ktls::next_secret) after the handover.
  ktls::TrafficSecret transmit_secret;
  ktls::TrafficSecret receive_secret;

  [[nodiscard]] ktls::Version version() const { return keys.transmit.version; }
  [[nodiscard]] ktls::Aead aead() const { return keys.transmit.aead; }
  [[nodiscard]] KernelSecrets secrets() && {
    return {version(), aead(), hash, self, std::move(transmit_secret), std::move(receive_secret)};
  }
};

// What was seen of one direction while the handshake ran.
struct DirectionTrace {
  TrafficKeys keys;                       // TLS 1.3: of application data, once they are in use
  std::uint64_t announced = 0;            // records under the application keys, by OpenSSL's message callback
  std::uint64_t passed = 0;               // the same, counted in the bytes that crossed the socket
  std::uint64_t last_explicit_nonce = 0;  // TLS 1.2: first eight octets of the last such record
  bool at_record_boundary = true;         // no record is half in the socket and half out of it
};
struct SessionTrace {
  DirectionTrace transmit;
  DirectionTrace receive;
};

// The version and cipher of a session, when the kernel's TLS knows both.
struct Suite {
  ktls::Version version;
  ktls::Aead aead;
  ktls::Hash hash;
};
// Error: why this version or cipher suite cannot go to the kernel ("TLS 1.2 with ECDHE-RSA-AES128-SHA256 ...").
[[nodiscard]] Result<Suite> kernel_suite(const SSL* ssl);

// Moves the secrets out of the trace. Refused, with the reason, when the handshake is not finished, OpenSSL holds
// received bytes, a record is half done, the two counts differ, or the suite is not one of the kernel's; the session
// can then go on in OpenSSL.
[[nodiscard]] Result<HandoverKeys> export_keys(SSL* ssl, SessionTrace& trace);

}  // namespace ktrunk::handshake
