// Endpoint: where a measurement connects to or listens, "tls:HOST:PORT", and the TLS settings of its own side.
#pragma once

#include <cstdint>
#include <string>

#include "base/address.h"
#include "base/result.h"
#include "bench/common/cli.h"
#include "config/config.h"
#include "handshake/tls_context.h"

namespace ktrunk::bench {

struct Endpoint {
  config::Transport transport = config::Transport::kTls;
  std::string host;  // as written, without brackets
  Address address;   // the first that the name has

  // "tls:HOST:PORT" or "tcp:HOST:PORT"; names are resolved here and now. option: for the message, "--connect".
  [[nodiscard]] static Result<Endpoint> parse(const std::string& text, const std::string& option);
};

// TLS as the command line gives it, one set for both roles of a process.
struct TlsSettings {
  std::string version;  // "1.2", "1.3"; empty: what is agreed on
  std::string cipher;   // OpenSSL's name; empty: ktrunk's AEAD suites
  std::string record_layer = "auto";
  std::string ca;           // verifies the server (connecting)
  std::string certificate;  // shown when connecting, if the server asks
  std::string key;
  std::string verify_name;         // that the server's certificate must carry; default: the host
  std::string answer_certificate;  // the server's own (answering)
  std::string answer_key;
  std::string answer_ca;  // asks for a client certificate that it signs

  void add_common(CLI::App& command);
  void add_connecting(CLI::App& command);
  void add_answering(CLI::App& command);

  [[nodiscard]] config::RecordLayer wanted_record_layer() const;
  [[nodiscard]] Result<handshake::TlsContext> connecting() const;
  [[nodiscard]] Result<handshake::TlsContext> answering() const;

 private:
  void fill(config::Tls& tls) const;
};

}  // namespace ktrunk::bench
