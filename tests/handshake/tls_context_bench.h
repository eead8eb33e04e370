// A client of any habits against a listener's context, in memory of one process: what was agreed on, or the alert.
#pragma once

#include <openssl/ssl.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "handshake/tls_session.h"
#include "handshake/tls_test_peer.h"
#include "handshake/tls_test_pki.h"

namespace ktrunk::test {

struct ClientWish {
  std::string server_name;  // empty: none
  std::string alpn;         // protocol names with their lengths; empty: no such extension
  std::string groups;
  std::string signatures;  // signature algorithms
  std::string ciphers;     // TLS 1.2
  int version = 0;         // TLS1_2_VERSION, ...; 0: any
  Pki::Files certificate;  // empty: none
  bool ask_status = false;
  SSL_SESSION* resume = nullptr;
};

struct Meeting {
  bool done = false;                            // our side finished the handshake
  std::string leaf;                             // common name of the server's certificate
  std::vector<std::string> issuers;             // of those that it sent behind it
  std::string alpn;                             // what was chosen
  std::string status;                           // the stapled response
  std::string error;                            // ours
  std::optional<ktls::AlertDescription> alert;  // that we sent
  bool resumed = false;
  bool peer_known = false;  // the client's certificate is verified
  Memory session;           // the client's, with a ticket where one came
  std::string relay_note;   // why the kernel cannot do it; empty: it can
};

[[nodiscard]] Meeting meet(const handshake::TlsContext& context, const std::string& authorities,
                           const ClientWish& wish = {});

}  // namespace ktrunk::test
