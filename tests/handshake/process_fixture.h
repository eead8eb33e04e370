// Fixture of the handshake process's tests: an authority, a server's certificate, and configuration text.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "fake_supervisor.h"
#include "support/certificates.h"
#include "support/process.h"
#include "support/tls_peer.h"

namespace ktrunk::test {

class HandshakeProcessTest : public testing::Test {
 protected:
  HandshakeProcessTest()
      : authority_(folder_.path(), "ca"),
        server_(
            authority_.issue({.name = "server", .common_name = "", .dns = {"sip.example.com"}, .ips = {"127.0.0.1"}})) {
  }

  // [ktrunk] and [limits], then a TLS listener at address().
  [[nodiscard]] std::string base(std::string_view limits = {}, std::string_view listener = {}) const {
    return fmt::format(
        "[ktrunk]\nrecord_layer = \"{}\"\nworkers = 1\n[limits]\nmax_connections = 512\n{}\n"
        "[[listen]]\nname = \"edge\"\ntransport = \"tls\"\naddress = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\n{}\n",
        record_layer_, limits, address_.text(), server_.certificate, server_.key, listener);
  }
  [[nodiscard]] static std::string trunk(std::string_view targets, std::string_view more = {},
                                         std::string_view listener = "edge") {
    return fmt::format("[[trunk]]\nname = \"carrier\"\ntargets = [{}]\nlisten = \"{}\"\n{}\n", targets, listener, more);
  }
  // A trunk with UDP targets, and the UDP listener that it needs.
  [[nodiscard]] static std::string udp_trunk(std::string_view targets) {
    return fmt::format("[[listen]]\nname = \"udp\"\ntransport = \"udp\"\naddress = \"{}\"\n", free_address().text()) +
           trunk(targets, {}, "udp");
  }
  [[nodiscard]] std::string trust(std::string_view name = "sip.example.com") const {
    return fmt::format("ca = \"{}\"\nverify_name = \"{}\"\n", authority_.file(), name);
  }
  [[nodiscard]] TlsOptions client() const {
    return {.ca = authority_.file(), .server_name = "sip.example.com", .verify_name = "sip.example.com"};
  }
  [[nodiscard]] TlsOptions server() const { return {.certificate = server_.certificate, .key = server_.key}; }
  [[nodiscard]] std::unique_ptr<TlsStream> connect(const TlsOptions& options) const {
    auto stream = TlsStream::connect(address_, options);
    if (!stream) {
      ADD_FAILURE() << stream.error().what;
      return nullptr;
    }
    return std::move(*stream);
  }

  std::string record_layer_ = "relay";
  TempFolder folder_;
  CertificateAuthority authority_;
  CertificateFiles server_;
  Address address_ = free_address();
};

// Reads until `bytes` octets have come, or the stream ends.
inline std::string read_bytes(ByteStream& stream, std::size_t bytes) {
  std::string all;
  while (all.size() < bytes) {
    auto some = stream.read_some();
    if (!some) {
      ADD_FAILURE() << some.error().what;
      break;
    }
    if (some->empty()) break;
    all += *some;
  }
  return all;
}

}  // namespace ktrunk::test
