// Support: what the running kernel's TLS can do, found by doing it once on a TCP pair over 127.0.0.1.
// The supervisor (check, status) and the handshake process run the probe at start. It keeps no descriptor.
#pragma once

#include <array>
#include <cstddef>
#include <string>

#include "ktls/crypto_info.h"
#include "ktls/kernel.h"

namespace ktrunk::ktls {

struct Support {
  struct Directions {
    bool transmit = false;
    bool receive = false;
  };

  bool ulp = false;    // the TCP_ULP "tls" exists
  bool rekey = false;  // a second set of TLS 1.3 transmit keys is taken (Linux 6.14)
  std::array<std::array<Directions, kAeads.size()>, kVersions.size()> suites = {};
  std::string reason;  // why something is missing, with a remedy; empty when nothing is

  [[nodiscard]] Directions suite(Version version, Aead aead) const {
    return suites[static_cast<std::size_t>(version)][static_cast<std::size_t>(aead)];
  }
  // Both directions can be installed.
  [[nodiscard]] bool complete(Version version, Aead aead) const {
    return suite(version, aead).transmit && suite(version, aead).receive;
  }
  // One line: "kernel TLS: TLS 1.2 and 1.3 with AES-128-GCM, ...; rekey", or "no kernel TLS: REASON".
  [[nodiscard]] std::string describe() const;
};

// Never blocks for longer than kProbeTimeout altogether (loopback answers at once); what cannot be found out counts as
// missing, and reason says why.
inline constexpr int kProbeTimeoutMs = 1000;
[[nodiscard]] Support probe_support(Kernel& kernel = running_kernel());

}  // namespace ktrunk::ktls
